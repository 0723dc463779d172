"""On real histories: README.md's walk-through, every claim that audit checks, and the hardest real rebase."""

import doctest
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, ran
from tests.tools.conftest import Project, dateless
from tools.errors import NoSource
from tools.git import tip
from tools.lock import Pin, load

LOCK = load(ROOT)
# Upstream's own upstream, which has deleted a file that we patch.
MSST = "https://github.com/ZFTurbo/Music-Source-Separation-Training.git"


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
    before, readme = dateless(checkout), (ROOT / "README.md").read_text(encoding="utf-8")
    check = doctest.OutputChecker().check_output
    blocks = re.findall(r"^```console\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)
    steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks), flags=re.MULTILINE)
    assert len(steps) > 12
    for command, shown in steps:
        # Both outputs in one, in their order.
        done = ran("bash", "-c", f"exec 2>&1; {command}", cwd=checkout, env=environment)
        said = re.sub(r"^make(\[\d+\])?: \*\*\* .*\n", "", done.stdout, flags=re.MULTILINE)
        assert check(shown, said, doctest.ELLIPSIS), f"$ {command}\n{said}"
    assert dateless(checkout) == before


def test_every_claim_of_this_projects_lock_and_documents_holds(tmp_path: Path) -> None:
    real = Project(ROOT, Path(), LOCK.pin.commit, tmp_path / "store")
    said = real.run("audit", "--check", "--dest", tmp_path / "nowhere").stdout
    assert "all claims of the lock and the documents hold" in said


def test_onto_upstreams_own_upstream_a_rebase_stops_for_the_file_that_was_deleted_there(
    checkout: Path, tmp_path: Path
) -> None:
    try:
        tip(MSST, "main")
    except NoSource as error:
        pytest.skip(f"cannot be reached: {MSST}: {error}")
    real = Project(checkout, Path(), LOCK.pin.commit, tmp_path / "store")
    real.decide(upstream=Pin(MSST, "main"))
    before = dateless(real.root)
    said = real.run("rebase", "--to", "main", code=3).stderr
    assert "models/bs_roformer/attend_sage.py is gone upstream" in said
    assert re.search("attend_sage.patch +gone upstream", real.run("rebase-status").stdout)
    real.run("rebase-abort")
    assert dateless(real.root) == before
