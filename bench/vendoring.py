"""`make vendor` beside what one would do by hand: clone at depth 1, then `git apply`."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import compare
from tests.conftest import ROOT
from tools.lock import load


def run(rounds: int) -> list[dict[str, Any]]:
    """Rows of whole-process seconds; [] where upstream cannot be cloned."""
    lock = load(ROOT)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        store = top / "store"
        tree = top / "tree"
        verb = [sys.executable, "-m", "tools", "--quiet", "--store", str(store), "vendor", "--dest", str(tree)]

        def call(*command: str, cwd: Path = ROOT) -> None:
            subprocess.run(command, cwd=cwd, check=True, capture_output=True)

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

        try:
            clone_and_apply()
        except subprocess.CalledProcessError:
            return []
        ways: dict[str, Callable[[], object]] = {
            "git clone + git apply": clone_and_apply,
            "vendor, empty store": fetch_and_build,
            "vendor, filled store": rebuild,
            "vendor, nothing to do": lambda: call(*verb),
            "verify": lambda: call(*[*verb[:-3], "verify", "--dest", str(tree)]),
        }
        # Rounds are shuffled, and each way leaves a filled store and a whole tree behind for the next.
        fetch_and_build()
        timings = compare(ways, against=["git clone + git apply"], rounds=rounds)
        return [{"what": "vendoring", **timing.as_json()} for timing in timings]
