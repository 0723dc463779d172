"""`make stress`: kills hundreds of runs at random moments, starts eight at once on one tree, and checks the results."""

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
from pathlib import Path

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project, make_project
from tools.files import sha256
from tools.lock import load

CORE = "models/alpha/core.py"
VERBS = ("vendor", "refresh", "rebase --to main")


def copy(template: Project, where: Path) -> Project:
    """A copy of the template below `where`, with an edit for vendor to undo and refresh to make a patch of."""
    shutil.copytree(template.root, where / "project")
    shutil.copytree(template.store, where / "store")
    (where / "project/vendor" / CORE).write_bytes(b"# edited\n")
    return Project(where / "project", template.upstream, template.commit, where / "store")


def start(project: Project, verb: str) -> "subprocess.Popen[bytes]":
    command, quiet = project.command(*verb.split()), subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True)


def state(project: Project) -> str:
    """Whether component and lock are old or new, and the component perhaps absent; all else raises AssertionError."""
    here = {f"models/alpha/{path.name}": path.read_bytes() for path in (project.tree / "models/alpha").glob("*.py")}
    new = {path: data for path, data in {**FILES, **EDITED}.items() if "alpha" in path}
    old = {**new, CORE: b"# edited\n"}
    assert here in (old, new, {})
    lock = load(project.root)
    patches = [sha256((project.root / "patches" / file.patch).read_bytes()) for file in lock.patched]
    changed = lock.pin.commit != project.commit or sha256(old[CORE]) in [file.patched for file in lock.files]
    # The lock comes last: a new one is never ahead of the patches.
    assert not changed or patches == [file.patch_sha256 for file in lock.patched]
    return "new" if changed or here == new else "old" if here else "absent"


def killed(verb: str, template: Project, kills: int, chance: random.Random) -> Counter[str]:
    """Kill `kills` runs of `verb` that are still at work, each at another moment; what stood right behind the kill."""
    found: Counter[str] = Counter()
    length = 0.0
    while found.total() < kills:
        with tempfile.TemporaryDirectory() as name:
            project = copy(template, Path(name))
            began, run = time.monotonic(), start(project, verb)
            if length:
                time.sleep(chance.uniform(0, length))
                os.killpg(run.pid, signal.SIGKILL)
            if run.wait() == -signal.SIGKILL:
                found[state(project)] += 1
            length = length or time.monotonic() - began
            project.run(*verb.split())
            assert state(project) == "new"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make stress", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="kills for each verb")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the random moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        template = make_project(Path(name))
        template.run("vendor")
        template.advance({path: b"# Newer.\n" + FILES[path] for path in EDITED})
        for verb in VERBS:
            found = killed(verb, template, options.kills, random.Random(options.seed))
            print(f"{verb}, seed {options.seed}: {found.total()} kills: {dict(found)}; each next run ended right")
        (template.tree / CORE).write_bytes(b"# edited\n")
        runs = [start(template, "vendor") for _ in range(8)]
        assert [run.wait() for run in runs] == [0] * 8
        template.run("verify")
        print("eight runs at once on one tree: all ended with 0, and the tree is right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
