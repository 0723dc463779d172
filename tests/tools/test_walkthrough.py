"""README.md's walk-through, command by command: what it shows is what comes out, and it ends where it began."""

import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.test_real_upstream import LOCK, dateless
from tools.git import tip

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
STEPS = [
    (command, shown)
    for block in BLOCKS
    for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE)
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This project as a user has it after a clone, with an environment that is this one."""
    copy = tmp_path / "checkout"
    skipped = shutil.ignore_patterns(".git", ".venv", "vendor", "build", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, copy, ignore=skipped)
    python = copy / ".venv" / "tools" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (copy / ".venv" / "tools" / "ready").touch()
    return copy


@pytest.mark.skipif(os.name == "nt", reason="README.md's commands are for a Unix shell and make")
def test_what_the_walk_through_shows_is_what_comes_out(checkout: Path, tmp_path: Path) -> None:
    if (tip(LOCK.pin.url, LOCK.pin.branch) or ("", ""))[1] != LOCK.pin.commit:
        pytest.skip("upstream has moved on, so `make outdated` has more to tell than README.md shows")
    environment = {**os.environ, "DSU_PATCHES_STORE": str(tmp_path / "store"), "PYTHONPATH": ""}
    check = doctest.OutputChecker().check_output
    before = dateless(checkout)
    assert len(STEPS) > 12
    for command, shown in [("make vendor", "...\n"), *STEPS]:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        said = re.sub(r"^make(\[\d+\])?: \*\*\* .*\n", "", done.stdout, flags=re.MULTILINE)
        assert check(shown, said, doctest.ELLIPSIS), f"$ {command}\n{said}"
    assert dateless(checkout) == before
