"""A rebase onto MSST, upstream's own upstream: the hardest real case, where this machine reaches it."""

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import Project, dateless
from tools.errors import NoSource
from tools.git import tip
from tools.lock import Pin, load

LOCK = load(ROOT)
MSST = "https://github.com/ZFTurbo/Music-Source-Separation-Training.git"
SAGE = "models/bs_roformer/attend_sage.py"


@pytest.fixture
def real(tmp_path: Path) -> Project:
    """A copy of this project's own lock, decisions, patches and documents."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "patches", root / "patches")
    for name in ("upstream.lock", "pyproject.toml", "README.md", "MODEL_CHANGES.md"):
        shutil.copyfile(ROOT / name, root / name)
    return Project(root, Path(), LOCK.pin.commit, tmp_path / "store")


def test_onto_upstreams_own_upstream_it_stops_for_the_file_that_was_deleted_there(real: Project) -> None:
    try:
        tip(MSST, "main")
    except NoSource as error:
        pytest.skip(f"cannot be reached: {MSST}: {error}")
    real.decide(upstream=Pin(MSST, "main"))
    before = dateless(real.root)
    assert f"{SAGE} is gone upstream" in real.run("rebase", "--to", "main", code=3).stderr
    assert re.search("attend_sage.patch +gone upstream", real.run("rebase-status").stdout)
    real.run("rebase-abort")
    assert dateless(real.root) == before
