"""What differs on Windows and macOS, as far as Linux can play it: line ends, names, separators, files held open.

Of the two renames that replace the exchange of folders, `test_swap.py` tests kills and interruptions; here they fail.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tools.tree
from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project, git, make_project
from tools.__main__ import main
from tools.errors import MalformedLock, MalformedPatch
from tools.lock import load, parse, path_fault
from tools.patchset import parse as parse_patch

CORE = "models/alpha/core.py"
AS_ON_WINDOWS = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf")


def windows_clone(source: Path, target: Path) -> Path:
    """A clone at `target` as Git for Windows makes it by default."""
    git("clone", "-q", *AS_ON_WINDOWS, source, target, cwd=source)
    return target


# Line ends


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    """A repository with the project's own tracked files as they are here."""
    if not (ROOT / ".git").exists():
        pytest.skip("the project is no git checkout, so that what it tracks is not known")
    here = tmp_path / "here"
    here.mkdir()
    for name in git("ls-files", "-z", cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, here / name)
    git("init", "-q", cwd=here)
    return here


def test_a_checkout_on_windows_has_every_tracked_byte(tracked: Path, tmp_path: Path) -> None:
    git("add", "-A", cwd=tracked)
    git("commit", "-q", "-m", "all", cwd=tracked)
    there = windows_clone(tracked, tmp_path / "there")
    names = git("ls-files", "-z", cwd=tracked).strip("\0").split("\0")
    assert {"upstream.lock", "patches/attend.patch", "Makefile", "tools/lock.py"} <= {*names}
    assert [name for name in names if (there / name).read_bytes() != (tracked / name).read_bytes()] == []
    assert git("status", "--porcelain", cwd=there) == ""
    assert load(there) == load(ROOT)


def test_nothing_is_tracked_but_text_and_pictures_of_the_bench(tracked: Path) -> None:
    binary = [path for path in tracked.rglob("*") if path.is_file() and b"\0" in path.read_bytes()]
    strange = [path for path in binary if ".git" not in path.parts and path.parent != tracked / "bench/results"]
    assert strange == []


def test_without_gitattributes_that_checkout_would_differ(tracked: Path, tmp_path: Path) -> None:
    """So that the test above can fail."""
    (tracked / ".gitattributes").unlink()
    git("add", "-A", cwd=tracked)
    git("commit", "-q", "-m", "all", cwd=tracked)
    there = windows_clone(tracked, tmp_path / "there")
    assert b"\r\n" in (there / "patches/scnet.patch").read_bytes()


def test_a_clone_of_upstream_with_windows_line_ends_serves_the_pinned_bytes(unfetched: Project, tmp_path: Path) -> None:
    clone = windows_clone(unfetched.upstream, tmp_path / "clone")
    assert b"\r\n" in (clone / CORE).read_bytes()
    unfetched.run("vendor", "--upstream", clone)
    for path, data in {**FILES, **EDITED}.items():
        assert (unfetched.tree / path).read_bytes() == data


def test_its_work_tree_is_refused_with_the_hash_of_each_file(unfetched: Project, tmp_path: Path) -> None:
    clone = windows_clone(unfetched.upstream, tmp_path / "clone")
    done = unfetched.run("apply", clone, tmp_path / "out", code=5)
    for path, data in FILES.items():
        assert (f"{path}: wrong bytes" in done.stderr) == (b"\n" in data)
    assert not (tmp_path / "out").exists()


def test_a_project_with_windows_line_ends_is_refused_before_anything_is_written(unfetched: Project) -> None:
    for path in unfetched.root.rglob("*.patch"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    unfetched.lock.write_bytes(unfetched.lock.read_bytes().replace(b"\n", b"\r\n"))
    done = unfetched.run("vendor", code=2)
    assert "patches/core.patch" in done.stderr
    assert "patches/net.patch" in done.stderr
    assert "carriage return" in done.stderr
    assert not unfetched.tree.exists()


def test_a_tree_that_went_through_a_windows_checkout_is_drift_and_can_be_restored(
    vendored: Project, tmp_path: Path
) -> None:
    git("init", "-q", cwd=vendored.tree)
    git("add", "-A", cwd=vendored.tree)
    git("commit", "-q", "-m", "vendored", cwd=vendored.tree)
    there = windows_clone(vendored.tree, tmp_path / "there")
    done = vendored.run("verify", "--dest", there, code=1)
    assert f"modified: {CORE}" in done.stderr
    vendored.run("vendor", "--dest", there, "--offline")
    vendored.run("verify", "--dest", there)


# Names


@pytest.mark.parametrize(
    "name",
    [
        *("con", "NUL.py", "aux.py", "Prn.tar.gz", "com1", "COM9.py", "lpt0.py", "com².py", "nul .py", "CONIN$"),
        *("core.py.", "core.py ", "folder./core.py", "folder /core.py", "..."),
        *("a<b.py", "a>b.py", "a|b.py", "a?.py", "*.py", "core.py:stream", "C:core.py", "a\\b.py"),
    ],
)
def test_a_name_that_windows_has_no_file_for_is_refused_in_lock_and_patch(name: str, template: Project) -> None:
    path = f"models/alpha/{name}"
    assert path_fault(path)
    text = template.lock.read_text(encoding="utf-8").replace(f'"{CORE}"', '"{}"'.format(path.replace("\\", "\\\\")))
    with pytest.raises(MalformedLock) as caught:
        parse(text)
    assert any(repr(path) in finding for finding in caught.value.findings)
    patch = (template.root / "patches/core.patch").read_bytes().replace(CORE.encode(), path.encode())
    with pytest.raises(MalformedPatch) as refused:
        parse_patch("core.patch", patch)
    # A blank ends the path already.
    assert any(repr(name.split()[0])[1:-1] in finding for finding in refused.value.findings)


@pytest.mark.parametrize(
    "name", ["console.py", "auxiliary.py", "com.py", "com10.py", "null.py", ".nul", "a.con", "__init__.py", "é.py"]
)
def test_a_name_that_only_looks_like_it_is_allowed(name: str) -> None:
    assert path_fault(f"models/alpha/{name}") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CORE, "models/alpha/Core.py"),
        (CORE, "models/Alpha/other.py"),
        (CORE, "Models/beta/other.py"),
        ("models/alpha/stra\u00dfe.py", "models/alpha/STRASSE.py"),
        ("models/alpha/\u00e9.py", "models/alpha/e\u0301.py"),
    ],
    ids=["a file", "a folder", "the first folder", "sharp s", "accents"],
)
def test_two_paths_that_are_one_file_on_windows_or_macos_are_refused(one: str, other: str, template: Project) -> None:
    entry = f'path = "{{}}"\nsha256 = "{"0" * 64}"\nblob = "{"0" * 40}"\n'
    text = template.lock.read_text(encoding="utf-8")
    text += "".join(f"\n[[files]]\n{entry.format(path)}" for path in (one, other) if path != CORE)
    with pytest.raises(MalformedLock) as caught:
        parse(text)
    line = text[: text.index(f'path = "{other}"')].count("\n") + 1
    said = [finding for finding in caught.value.findings if "are one name on Windows and macOS" in finding]
    assert [finding.split(":")[1] for finding in said] == [str(line)]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("models/alpha/Core.py", 2, "models/alpha/core.py and models/alpha/Core.py are one name"),
        ("models/beta/aux.py", 5, "'models/beta/aux.py' has a part that is a device on Windows"),
    ],
)
def test_the_lock_verb_refuses_an_upstream_with_such_names(name: str, code: int, message: str, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    new = project.advance({name: b"# another\n"})
    # A first lock, which takes up all files there are.
    text = re.sub(r"(?ms)^files = \[.*?^\]\n", "", project.lock.read_text(encoding="utf-8"))
    project.lock.write_text(text.replace(project.commit, new), encoding="utf-8")
    assert message in project.run("lock", code=code).stderr


def test_a_patch_file_that_differs_by_case_is_refused(template: Project) -> None:
    text = template.lock.read_text(encoding="utf-8").replace('"patches/net.patch"', '"patches/CORE.patch"')
    with pytest.raises(MalformedLock) as caught:
        parse(text)
    assert any("patches/CORE.patch and patches/core.patch are one name" in finding for finding in caught.value.findings)


# Separators


def test_dest_is_never_split_or_joined_as_text(vendored: Project, tmp_path: Path) -> None:
    """On Windows it has backslashes and a drive; here they are letters of a name, and stay."""
    place = tmp_path / "C:\\app\\models v1"
    for verb in ("vendor", "verify", "diff", "clean"):
        vendored.run(verb, "--dest", place)
        assert (place / CORE).exists() == (verb != "clean")
    assert {path.name for path in tmp_path.iterdir()} == {"project", "store"}


def test_every_path_in_a_report_has_forward_slashes(vendored: Project) -> None:
    (vendored.tree / "models/alpha/deep").mkdir()
    (vendored.tree / "models/alpha/deep/new.py").write_bytes(b"")
    report = vendored.json("verify", code=1)
    assert [finding["path"] for finding in report["findings"]] == ["models/alpha/deep/new.py"]
    assert tools.tree.listing(vendored.tree / "models/alpha")["deep/new.py"]
    text = (vendored.tree / "PROVENANCE.json").read_text(encoding="utf-8")
    assert "\\" not in text


# Files and folders held open: the rename is refused, as Windows does


@pytest.fixture
def older(vendored: Project) -> Project:
    """A tree of other bytes than the lock asks for, made by us, on a system without an exchange of folders."""
    old = make_project(vendored.root.parent / "old", {**FILES, CORE: b"FACTOR = 1\n"}, {})
    old.run("vendor", "--dest", vendored.tree)
    return vendored


def snapshot(tree: Path) -> dict[str, bytes]:
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def refuse(monkeypatch: pytest.MonkeyPatch, held: Callable[[Path, Path], bool]) -> list[str]:
    """No exchange, and a rename of (source, target) that is `held` is refused; the list names those."""
    refused: list[str] = []
    rename = Path.rename

    def guarded(self: Path, target: Path) -> Path:
        if held(self, target):
            refused.append(self.name)
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(self), None, str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", guarded)
    monkeypatch.setattr(tools.tree, "_exchange", lambda *_: False)
    return refused


def lie_beside_others(project: Project) -> None:
    """Components that have company are swapped in one by one, as on Windows with two renames each."""
    (project.tree / "models" / "others").mkdir()


def vendor(project: Project) -> int:
    return main(["--root", str(project.root), "--store", str(project.store), "vendor", "--offline"])


@pytest.mark.parametrize(
    "held",
    [lambda source, _: source.name == "alpha", lambda source, _: ".dsu-staging-" in source.name],
    ids=["the old folder", "the new folder"],
)
def test_a_folder_held_open_ends_the_run_and_the_old_tree_stays(
    older: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], held: Any
) -> None:
    lie_beside_others(older)
    before = snapshot(older.tree)
    with monkeypatch.context() as patch:
        refused = refuse(patch, held)
        assert vendor(older) == 2
    said = capsys.readouterr()
    assert refused
    assert f"{older.tree / 'models'}{os.sep}" in said.err
    assert "cannot access the file" in said.err
    assert "next:" in said.err
    assert "Traceback" not in said.err
    assert snapshot(older.tree) == before
    assert vendor(older) == 0
    older.run("verify")


def test_when_the_old_folder_cannot_be_put_back_either_the_next_run_does(
    older: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lie_beside_others(older)
    alpha = {name: data for name, data in snapshot(older.tree).items() if name.startswith("models/alpha/")}
    with monkeypatch.context() as patch:
        assert refuse(patch, lambda _, target: target.name == "alpha") == []
        assert vendor(older) == 2
    assert not (older.tree / "models/alpha").exists()
    assert snapshot(older.tree / "models/.alpha.dsu-retired") == {
        name.removeprefix("models/alpha/"): data for name, data in alpha.items()
    }
    said = older.run("verify", code=1).stderr
    assert "incomplete: models/alpha" in said
    capsys.readouterr()
    assert vendor(older) == 0
    assert "put back" in capsys.readouterr().err
    older.run("verify")


def test_an_old_file_held_open_does_not_keep_the_new_tree_out(older: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    lie_beside_others(older)
    remove = os.unlink

    def held(path: Any, **kwargs: Any) -> None:
        if Path(path).name == "core.py" and "dir_fd" in kwargs:
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))
        remove(path, **kwargs)

    with monkeypatch.context() as patch:
        refuse(patch, lambda *_: False)
        patch.setattr(os, "unlink", held)
        assert vendor(older) == 0
    assert (older.tree / CORE).read_bytes() == EDITED[CORE]
    assert (older.tree / "models/.alpha.dsu-retired/core.py").exists()
    assert vendor(older) == 0
    assert not (older.tree / "models/.alpha.dsu-retired").exists()
    older.run("verify")


def test_a_lock_file_that_stays_as_on_windows_is_in_nobodys_way(
    older: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = SimpleNamespace(**{**vars(os), "name": "nt"})
    with monkeypatch.context() as patch:
        refuse(patch, lambda *_: False)
        patch.setattr(tools.tree, "os", windows)
        for _ in range(2):
            assert vendor(older) == 0
            assert (older.tree / tools.tree.LOCK_NAME).exists()
            older.run("verify")
        assert main(["--root", str(older.root), "--store", str(older.store), "clean"]) == 0
    assert [path.name for path in older.tree.iterdir()] == [tools.tree.LOCK_NAME]
    assert vendor(older) == 0
