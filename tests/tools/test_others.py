"""What is not ours in a tree that is swapped in: kept, or a reason to stop."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import tools.tree
from tests.tools.conftest import EDITED, Project, snapshot
from tools.__main__ import main

NET = "models/beta/net.py"


def vendor(project: Project) -> int:
    return main(["--root", str(project.root), "--store", str(project.store), "vendor", "--offline"])


@pytest.fixture
def due(vendored: Project) -> Project:
    """A tree of which both components are to be replaced."""
    for path in EDITED:
        (vendored.tree / path).write_bytes(b"# edited\n")
    return vendored


@pytest.mark.parametrize("exchanges", [True, False], ids=["in one step", "in two renames"])
def test_a_file_that_appears_during_the_swap_is_moved_over(
    exchanges: bool, due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[Path, Path], bool] = tools.tree._exchange

    def late(one: Path, other: Path) -> bool:
        (other / "notes.txt").write_bytes(b"mine")
        (other / "alpha" / "notes.txt").write_bytes(b"mine too")
        return exchanges and real(one, other)

    monkeypatch.setattr(tools.tree, "_exchange", late)
    assert vendor(due) == 0
    assert (due.tree / "models/notes.txt").read_bytes() == b"mine"
    assert (due.tree / "models/alpha/notes.txt").read_bytes() == b"mine too"
    assert (due.tree / NET).read_bytes() == EDITED[NET]


@pytest.mark.skipif(os.name == "nt", reason="modes of folders are for other systems")
def test_folders_keep_their_modes(due: Project) -> None:
    for folder, mode in (("models", 0o2770), ("models/alpha", 0o700)):
        (due.tree / folder).chmod(mode)
    assert vendor(due) == 0
    assert stat.S_IMODE((due.tree / "models").stat().st_mode) == 0o2770
    assert stat.S_IMODE((due.tree / "models/alpha").stat().st_mode) == 0o700


def test_a_mount_is_never_emptied(
    due: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(due.tree)
    monkeypatch.setattr(tools.tree, "mounts", lambda _: [due.tree / "models/alpha"])
    assert vendor(due) == 2
    assert f"is a mount: {due.tree / 'models/alpha'}" in capsys.readouterr().err
    assert snapshot(due.tree) == before


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux tells its mounts there")
def test_mounts_are_found() -> None:
    assert Path("/proc") in tools.tree.mounts(Path("/proc"))


def test_no_mounts_are_found_where_there_are_none(tmp_path: Path) -> None:
    assert tools.tree.mounts(tmp_path) == []
