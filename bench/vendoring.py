"""Measures `make vendor` against the same by hand: a clone at depth 1, then `git apply`."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from bench.measure import compare
from tests.conftest import ROOT
from tests.tools.conftest import Project
from tools.lock import DECISIONS, NAME, dump, load


def run(rounds: int) -> list[dict[str, Any]]:
    """Rows with seconds of whole processes; none where upstream cannot be cloned."""
    lock = load(ROOT)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        store = top / "store"
        tree = top / "tree"
        verb = [sys.executable, "-m", "tools", "--store", str(store), "vendor", "--dest", str(tree)]

        # pip must not keep wheels between rounds.
        environment = {**os.environ, "PIP_NO_CACHE_DIR": "1"}

        def call(*command: str, cwd: Path = ROOT) -> None:
            subprocess.run(command, cwd=cwd, check=True, capture_output=True, env=environment)

        def clone_and_apply() -> None:
            shutil.rmtree(top / "clone", ignore_errors=True)
            call("git", "clone", "--quiet", "--depth", "1", lock.pin.url, str(top / "clone"))
            patches = [str(ROOT / "patches" / file.patch) for file in lock.patched if not file.extra]
            call("git", "apply", "--unidiff-zero", *patches, cwd=top / "clone")

        def rebuild() -> None:
            shutil.rmtree(tree, ignore_errors=True)
            call(*verb)

        def fetch_and_build() -> None:
            shutil.rmtree(store, ignore_errors=True)
            rebuild()

        index_only(top / "project")

        def fetch_from_the_index() -> None:
            # It has its own store and tree, since its manifest names another upstream.
            shutil.rmtree(top / "index", ignore_errors=True)
            places = ["--store", str(top / "index" / "store"), "vendor", "--dest", str(top / "index" / "tree")]
            call(*verb[:3], "--root", str(top / "project"), *places)

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
        # The order is random; each way leaves a filled store and a whole tree for the next.
        fetch_and_build()
        timings = compare(ways, against=["git clone + git apply"], rounds=rounds)
        return [{"what": "vendoring", **timing.as_json()} for timing in timings]


def index_only(folder: Path) -> None:
    """A copy of this project in `folder` whose only source is the package index."""
    shutil.copytree(ROOT / "patches", folder / "patches")
    for name in (DECISIONS, NAME):
        shutil.copyfile(ROOT / name, folder / name)
    lock = load(ROOT)
    nowhere = attrs.evolve(lock.decisions.upstream, url=(folder / "nowhere").as_uri())
    Project(folder, Path(), lock.pin.commit, folder).decide(raw=[], upstream=nowhere)
    (folder / NAME).write_bytes(dump(attrs.evolve(lock, pin=attrs.evolve(lock.pin, url=nowhere.url))))
