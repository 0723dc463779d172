"""`make stress`: hundreds of runs killed at random moments, and eight at once on one tree. Prints what came of it.

A case is a verb with what has to hold behind a kill and behind the next run; `CASES` lists them.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project, make_project
from tools.files import sha256
from tools.lock import load

RESULT = {**FILES, **EDITED}


@dataclass(frozen=True)
class Case:
    """A verb with its options; prepare: makes a fresh copy ready for it; state: "old", "new" or "absent", or raises."""

    words: Sequence[str]
    prepare: Callable[[Project], None]
    state: Callable[[Project], str]


def _edit(project: Project) -> None:
    (project.tree / "models/alpha/core.py").write_bytes(b"# edited\n")


def _alpha(project: Project) -> str:
    folder = project.tree / "models/alpha"
    if not folder.exists():
        return "absent"
    here = {f"models/alpha/{path.name}": path.read_bytes() for path in folder.glob("*.py")}
    new = {path: data for path, data in RESULT.items() if "alpha" in path}
    if here == new:
        return "new"
    assert here == {**new, "models/alpha/core.py": b"# edited\n"}, f"neither old nor new: {folder}"
    return "old"


def _patches(project: Project) -> str:
    lock = load(project.root)
    edited = lock.named(["core.py"])[0].patched == sha256(b"# edited\n")
    if lock.pin.commit == project.commit and not edited:
        return "old"
    for file in lock.patched:
        assert sha256((project.root / "patches" / file.patch).read_bytes()) == file.patch_sha256
    return "new"


CASES = {
    "vendor": Case(["vendor"], _edit, _alpha),
    "refresh": Case(["refresh"], _edit, _patches),
    "rebase": Case(["rebase", "--to", "main"], lambda _: None, _patches),
}


def _copy(template: Project, where: Path) -> Project:
    shutil.copytree(template.root, where / "project")
    shutil.copytree(template.store, where / "store")
    return Project(where / "project", template.upstream, template.commit, where / "store")


def _start(project: Project, words: Sequence[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tools", "--root", str(project.root), "--store", str(project.store), *words]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True)


def killed(case: Case, template: Project, folder: Path, kills: int, chance: random.Random) -> Counter[str]:
    """Kill `kills` runs of `case` that are still at work, each at another moment; what stood right behind the kill."""
    found: Counter[str] = Counter()
    began = time.monotonic()
    project = _copy(template, folder / "whole")
    case.prepare(project)
    assert _start(project, case.words).wait() == 0
    length = time.monotonic() - began
    while found.total() < kills:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            project = _copy(template, Path(name))
            case.prepare(project)
            run = _start(project, case.words)
            time.sleep(chance.uniform(0, length))
            os.killpg(run.pid, signal.SIGKILL)
            if run.wait() == -signal.SIGKILL:
                found[case.state(project)] += 1
            project.run(*case.words)
            assert case.state(project) == "new"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make stress", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="of runs at work, for each verb")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        template = make_project(Path(name))
        template.run("vendor")
        template.advance({path: b"# Newer.\n" + FILES[path] for path in EDITED})
        for verb, case in CASES.items():
            (Path(name) / verb).mkdir()
            found = killed(case, template, Path(name) / verb, options.kills, random.Random(options.seed))
            print(f"{verb}, seed {options.seed}: {found.total()} kills: {dict(found)}; each next run ended right")
        _edit(template)
        runs = [_start(template, ["vendor"]) for _ in range(8)]
        assert [run.wait() for run in runs] == [0] * 8
        template.run("verify")
        print("eight runs at once on one tree: all ended with 0, and the tree is right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
