"""The scratch repository: nothing of the user's reaches it, and git's word is not taken for a change."""

import os
from pathlib import Path

import pytest

from tests.tools.conftest import git
from tools.errors import PatchFails, ToolError
from tools.git import Scratch

OLD, NEW = b"one\ntwo\nthree\n", b"one\n2\nthree\n"


def round_trip(path: str = "models/core.py") -> bytes:
    with Scratch() as scratch:
        return scratch.apply(path, OLD, scratch.diff(path, OLD, NEW, 0).encode(), "p.patch")


@pytest.mark.parametrize(
    "path",
    [
        "core.py",
        "models/offset.py",
        "models/fuzz.py",
        "models/a[b]*.py",
        "models/größe.py",
        "models/:(top)x.py",
        "-n.py",
    ],
)
def test_a_patch_lands_whatever_its_file_is_called(path: str) -> None:
    assert round_trip(path) == NEW


def test_other_files_do_not_show_up_in_a_diff() -> None:
    with Scratch() as scratch:
        scratch.diff("models/a1.py", OLD, NEW, 0)
        assert "a1.py" not in scratch.diff("models/a*.py", OLD, NEW, 0)


@pytest.mark.parametrize(
    "config",
    [
        "[core]\n\tautocrlf = true\n\teol = crlf\n\twhitespace = cr-at-eol\n",
        "[apply]\n\twhitespace = fix\n\tignoreWhitespace = change\n",
        "[diff]\n\tnoprefix = true\n\tmnemonicPrefix = true\n\texternal = false\n\talgorithm = patience\n",
        "[color]\n\tui = always\n[core]\n\tattributesFile = ~/attributes\n\thooksPath = /nowhere\n",
    ],
    ids=["line ends", "whitespace", "diff", "colour and attributes"],
)
def test_no_configuration_of_the_user_changes_a_byte(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text(config, encoding="utf-8")
    (tmp_path / "attributes").write_text("* -text -diff working-tree-encoding=UTF-16\n", encoding="utf-8")
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "attributes").write_text("*.py binary eol=crlf\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / ".gitconfig"))
    assert round_trip() == NEW


def test_no_surrounding_repository_or_variable_changes_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("init", "-q", cwd=tmp_path)
    (tmp_path / ".gitattributes").write_text("*.py binary\n", encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"):
        monkeypatch.setenv(name, str(tmp_path / ".git" / name))
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=9")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    assert round_trip() == NEW
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", ".gitattributes", "temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_hunk_that_only_removes_lands() -> None:
    with Scratch() as scratch:
        for new in (b"one\nthree\n", b"two\nthree\n", b"one\ntwo\n", b"three\n"):
            assert scratch.apply("core.py", OLD, scratch.diff("core.py", OLD, new, 0).encode(), "p.patch") == new
        twice = scratch.diff("core.py", b"x\nx", b"x\n", 0).encode()
        assert scratch.apply("core.py", b"x\nx", twice, "p.patch") == b"x\n"


@pytest.mark.parametrize(
    "hunk",
    [
        "@@ -1 +1 @@\n-two\n+2\n",
        "@@ -3 +3 @@\n-two\n+2\n",
        "@@ -2 +2 @@\n-two \n+2\n",
        "@@ -2 +2 @@\n-TWO\n+2\n",
        "@@ -1 +0,0 @@\n-two\n",
        "@@ -3 +2,0 @@\n-two\n",
    ],
    ids=["a line above", "a line below", "a blank", "another text", "a line above, gone", "a line below, gone"],
)
def test_a_hunk_lands_on_its_line_or_not_at_all(hunk: str) -> None:
    with Scratch() as scratch:
        head = scratch.diff("core.py", OLD, NEW, 0).split("@@")[0]
        with pytest.raises(PatchFails) as caught:
            scratch.apply("core.py", OLD, (head + hunk).encode(), "p.patch")
    assert caught.value.message == "p.patch does not apply to core.py"
    assert caught.value.findings


def test_a_patch_that_changes_nothing_is_no_success() -> None:
    with Scratch() as scratch, pytest.raises(PatchFails):
        scratch.apply("core.py", OLD, b"diff --git a/core.py b/core.py\n", "p.patch")
    with Scratch() as scratch:
        same = scratch.diff("core.py", OLD, NEW, 0).replace("+2\n", "+two\n").encode()
        with pytest.raises(PatchFails, match="changes nothing"):
            scratch.apply("core.py", OLD, same, "p.patch")


def test_a_patch_for_another_file_leaves_ours_alone() -> None:
    with Scratch() as scratch:
        data = scratch.diff("other.py", OLD, NEW, 0).encode()
        with pytest.raises(PatchFails):
            scratch.apply("core.py", OLD, data, "p.patch")


def test_edits_of_equal_length_within_one_tick_of_the_clock_are_seen() -> None:
    with Scratch() as scratch:
        for number in range(10, 30):
            new = OLD.replace(b"two", f"t{number}".encode())
            assert f"+t{number}" in scratch.diff("core.py", OLD, new, 0)


def test_equal_bytes_make_no_diff() -> None:
    with Scratch() as scratch:
        assert scratch.diff("core.py", OLD, OLD, 3) == ""


def test_a_machine_without_git_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="git was not found"):
        round_trip()


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = dict(os.environ)
    with pytest.raises(PatchFails), Scratch() as scratch:
        scratch.apply("core.py", OLD, b"", "p.patch")
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == environment
