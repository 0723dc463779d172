"""`make vendor` beside what one would do by hand: clone at depth 1, then `git apply`."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomlkit

from bench.measure import compare
from tests.conftest import ROOT
from tools.lock import LOCK_NAME, load


def run(rounds: int) -> list[dict[str, Any]]:
    """Rows of whole-process seconds; [] where upstream cannot be cloned."""
    lock = load(ROOT)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        store = top / "store"
        tree = top / "tree"
        verb = [sys.executable, "-m", "tools", "--quiet", "--store", str(store), "vendor", "--dest", str(tree)]

        # pip keeps no wheels from one round to the next.
        environment = {**os.environ, "PIP_NO_CACHE_DIR": "1"}

        def call(*command: str, cwd: Path = ROOT) -> None:
            subprocess.run(command, cwd=cwd, check=True, capture_output=True, env=environment)

        def clone_and_apply() -> None:
            shutil.rmtree(top / "clone", ignore_errors=True)
            call("git", "clone", "--quiet", "--depth", "1", lock.pin.url, str(top / "clone"))
            patches = [str(ROOT / patch.file) for patch in lock.patches]
            call("git", "apply", "--unidiff-zero", *patches, cwd=top / "clone")

        def rebuild() -> None:
            shutil.rmtree(tree, ignore_errors=True)
            call(*verb)

        def fetch_and_build() -> None:
            shutil.rmtree(store, ignore_errors=True)
            rebuild()

        index_only(top / "project")

        def fetch_from_the_index() -> None:
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(tree, ignore_errors=True)
            call(*verb[:3], "--root", str(top / "project"), *verb[3:])

        try:
            clone_and_apply()
        except subprocess.CalledProcessError:
            return []
        ways: dict[str, Callable[[], object]] = {
            "git clone + git apply": clone_and_apply,
            "vendor from git, empty store": fetch_and_build,
            "vendor from the index, empty store": fetch_from_the_index,
            "vendor, filled store": rebuild,
            "vendor, nothing to do": lambda: call(*verb),
            "verify": lambda: call(*[*verb[:-3], "verify", "--dest", str(tree)]),
        }
        # Rounds are shuffled, and each way leaves a filled store and a whole tree behind for the next.
        fetch_and_build()
        timings = compare(ways, against=["git clone + git apply"], rounds=rounds)
        return [{"what": "vendoring", **timing.as_json()} for timing in timings]


def index_only(folder: Path) -> None:
    """This project's patches and lock in `folder`, without any source but the package index."""
    shutil.copytree(ROOT / "patches", folder / "patches")
    document = tomlkit.parse((ROOT / LOCK_NAME).read_text(encoding="utf-8"))
    sources = document["sources"]
    for at in reversed(range(len(sources))):
        if sources[at]["kind"] != "index":
            del sources[at]
    (folder / LOCK_NAME).write_text(tomlkit.dumps(document), encoding="utf-8")
