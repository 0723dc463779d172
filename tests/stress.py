"""`make stress`: kills hundreds of runs at random moments, starts eight at once on one tree, and checks the results."""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.tools.conftest import CORE, EDITED, FILES, Project, make_project
from tools.files import sha256
from tools.lock import load

VERBS = ("vendor", "refresh", "rebase --to main")


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


def building(root: Path) -> bool:
    """Whether a lock, a patch or a component is being written beside its place."""
    folders = (root, root / "patches", root / "vendor/models")
    return any(path.name.startswith(".") and path.suffix == ".new" for folder in folders for path in folder.iterdir())


def killed(verb: str, template: Project, kills: int, chance: random.Random) -> Counter[str]:
    """Kill `kills` runs of `verb` that are still at work, each at another moment; what stood right behind the kill."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        whole = template.copied(Path(name))
        began = time.monotonic()
        whole.run(*verb.split())
        length = time.monotonic() - began
    while found.total() < kills:
        with tempfile.TemporaryDirectory() as name:
            project = template.copied(Path(name))
            run = start(project, verb)
            if chance.random() < 0.3:
                time.sleep(length * chance.uniform(0, 1))
            else:
                # What counts is a few milliseconds: from the first new file on, all is renamed in.
                while run.poll() is None and not building(project.root):
                    pass
                time.sleep(chance.uniform(0, 0.02))
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            if run.wait() == -signal.SIGKILL:
                found[state(project)] += 1
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
        # vendor undoes this, refresh makes a patch of it, and rebase leaves it.
        (template.tree / CORE).write_bytes(b"# edited\n")
        template.advance({path: b"# Newer.\n" + FILES[path] for path in EDITED})
        for verb in VERBS:
            found = killed(verb, template, options.kills, random.Random(options.seed))
            print(f"{verb}, seed {options.seed}: {found.total()} kills: {dict(found)}; each next run ended right")
        runs = [start(template, "vendor") for _ in range(8)]
        assert [run.wait() for run in runs] == [0] * 8
        template.run("verify")
        print("eight runs at once on one tree: all ended with 0, and the tree is right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
