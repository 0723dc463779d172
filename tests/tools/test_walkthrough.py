"""On real histories: README.md's walk-through shows what comes out and ends where it began; audit's claims hold."""

import doctest
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import Project, dateless
from tools.git import tip
from tools.lock import load

LOCK = load(ROOT)
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
STEPS = [
    (command, shown)
    for block in BLOCKS
    for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE)
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This project as after a clone, with the Python of the tests."""
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
def test_readmes_commands_print_what_readme_shows(checkout: Path, tmp_path: Path) -> None:
    if tip(LOCK.pin.url, LOCK.pin.branch) != LOCK.pin.commit:
        pytest.skip("upstream has moved on, so `make outdated` has more to tell than README.md shows")
    environment = {**os.environ, "DSU_PATCHES_STORE": str(tmp_path / "store"), "PYTHONPATH": ""}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    run = partial(subprocess.run, cwd=checkout, env=environment, check=False, **output)
    check = doctest.OutputChecker().check_output
    before = dateless(checkout)
    assert len(STEPS) > 12
    for command, shown in STEPS:
        done = run(["bash", "-c", command])
        said = re.sub(r"^make(\[\d+\])?: \*\*\* .*\n", "", done.stdout, flags=re.MULTILINE)
        assert check(shown, said, doctest.ELLIPSIS), f"$ {command}\n{said}"
    assert dateless(checkout) == before


def test_every_claim_of_this_projects_lock_and_documents_holds(tmp_path: Path) -> None:
    real = Project(ROOT, Path(), LOCK.pin.commit, tmp_path / "store")
    said = real.run("audit", "--check", "--dest", tmp_path / "nowhere").stdout
    assert "all claims of the lock and the documents hold" in said
