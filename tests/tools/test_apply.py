"""A patch lands exactly or not at all, whatever surrounds it; `apply` as a verb and as a script."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project, git, make_project, write
from tools.hashes import sha256

CORE, NET = "models/alpha/core.py", "models/beta/net.py"
WHOLE = FILES | EDITED


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` but the manifest, by path."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop("PROVENANCE.json", None)
    return files


def relist(project: Project, old: str, new: str, *, patch: str = "core") -> None:
    """Edit a patch file and put its new SHA-256 into the lock, as somebody does who means harm or knows better."""
    path = project.root / "patches" / f"{patch}.patch"
    before = path.read_bytes()
    after = before.replace(old.encode(), new.encode())
    assert before != after
    path.write_bytes(after)
    text = project.lock.read_text(encoding="utf-8")
    project.lock.write_text(text.replace(sha256(before), sha256(after)), encoding="utf-8")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write(tmp_path / "source", FILES)
    return tmp_path / "source"


def test_the_verb_patches_a_folder_of_upstream_files(unfetched: Project, source: Path, tmp_path: Path) -> None:
    done = unfetched.run("apply", source, tmp_path / "out")
    assert tree(tmp_path / "out") == WHOLE
    assert done.stdout == f"5 files, 2 patched, in {tmp_path / 'out'}\n"
    assert not unfetched.store.exists()
    assert tree(source) == FILES
    unfetched.run("verify", "--dest", tmp_path / "out")


def test_the_verb_takes_one_component(unfetched: Project, source: Path, tmp_path: Path) -> None:
    shutil.rmtree(source / "models" / "alpha")
    report = unfetched.json("apply", source, tmp_path / "out", "--components", "beta")
    assert [(row["path"], row["status"]) for row in report["files"]] == [
        ("models/beta/__init__.py", "unchanged"),
        ("models/beta/net.py", "patched"),
    ]
    assert sorted(tree(tmp_path / "out")) == ["models/beta/__init__.py", "models/beta/net.py"]


def test_wrong_and_absent_source_files_are_all_named_and_nothing_is_written(
    unfetched: Project, source: Path, tmp_path: Path
) -> None:
    (source / CORE).write_bytes(b"FACTOR = 3\n")
    (source / NET).unlink()
    done = unfetched.run("apply", source, tmp_path / "out", code=5)
    assert f"missing: {CORE}" in done.stderr
    assert f"{CORE}: wrong bytes" in done.stderr
    assert sha256(b"FACTOR = 3\n") in done.stderr
    assert f"{NET}: No such file or directory" in done.stderr
    assert "missing: models/beta/__init__.py" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_base_that_the_patch_was_not_made_for_is_exit_3_and_names_every_hunk(unfetched: Project) -> None:
    relist(unfetched, "print('scaling')", "print('shrinking')")
    done = unfetched.run("vendor", code=3)
    assert "patches/core.patch does not apply to models/alpha/core.py" in done.stderr
    assert "hunk 1 of 1 (patches/core.patch:10) expects line 5 to be \"    print('shrinking')\"" in done.stderr
    assert "it is \"    print('scaling')\"" in done.stderr
    assert not unfetched.tree.exists()


def test_a_hunk_on_another_line_is_exit_3(unfetched: Project) -> None:
    relist(unfetched, "@@ -5,2 +5 @@", "@@ -4,2 +4 @@")
    done = unfetched.run("vendor", code=3)
    assert "expects line 4 to be" in done.stderr
    assert not unfetched.tree.exists()


def test_another_result_than_promised_is_exit_4(unfetched: Project) -> None:
    relist(unfetched, "+    return x * FACTOR", "+    return x / FACTOR")
    done = unfetched.run("vendor", code=4)
    assert "patches/core.patch gives another result than it promises" in done.stderr
    assert "expected blob" in done.stderr
    assert not unfetched.tree.exists()


def test_another_result_than_the_lock_says_is_exit_4(unfetched: Project) -> None:
    text = unfetched.lock.read_text(encoding="utf-8")
    unfetched.lock.write_text(text.replace(sha256(EDITED[CORE]), "0" * 64), encoding="utf-8")
    done = unfetched.run("vendor", code=4)
    assert f"expected SHA-256 {'0' * 64}" in done.stderr
    assert f"actual SHA-256   {sha256(EDITED[CORE])}" in done.stderr
    assert not unfetched.tree.exists()


@pytest.mark.parametrize("verb", ["vendor", "lint"])
def test_a_patch_edited_after_locking_is_exit_4(verb: str, vendored: Project) -> None:
    path = vendored.root / "patches" / "core.patch"
    path.write_bytes(path.read_bytes().replace(b"Change core.", b"Change the core."))
    done = vendored.run(verb, code=4)
    assert "patches/core.patch is not the file the lock names" in done.stderr
    assert "next: after a change you meant: make lock docs" in done.stderr


@pytest.mark.parametrize(
    ("pattern", "what"),
    [("target", "target: the lock says models/alpha/extra.py"), ("result", "result: the lock says " + "0" * 40)],
)
def test_a_patch_that_disagrees_with_the_lock_is_exit_2(pattern: str, what: str, unfetched: Project) -> None:
    text = unfetched.lock.read_text(encoding="utf-8")
    before, entry = text.split("[[patches]]\n", 1)
    lines = entry.split("\n")
    if pattern == "target":
        # The base has to be the target's, or the lock is malformed before any patch is read.
        blob = git("hash-object", unfetched.upstream / "models/alpha/extra.py", cwd=unfetched.upstream).strip()
        new = {"target": "models/alpha/extra.py", "base": blob}
    else:
        new = {"result": "0" * 40}
    for key, value in new.items():
        place = next(number for number, line in enumerate(lines) if line.startswith(f"{key} = "))
        lines[place] = f'{key} = "{value}"'
    unfetched.lock.write_text(f"{before}[[patches]]\n" + "\n".join(lines), encoding="utf-8")
    done = unfetched.run("vendor", code=2)
    assert "patches/core.patch and the lock disagree" in done.stderr
    assert what in done.stderr
    assert not unfetched.tree.exists()


def test_several_patches_that_do_not_apply_are_reported_at_once(unfetched: Project) -> None:
    relist(unfetched, "print('scaling')", "print('shrinking')")
    relist(unfetched, "3.14 * r", "3.1 * r", patch="net")
    done = unfetched.run("vendor", code=3)
    assert "expects line 5 to be \"    print('shrinking')\"" in done.stderr
    assert "patches/net.patch does not apply to models/beta/net.py" in done.stderr
    assert "expects line 5 to be '    return 3.1 * r * r'" in done.stderr


@pytest.mark.parametrize("verb", ["lint", "vendor", "apply"])
def test_several_bad_patch_files_are_reported_at_once(verb: str, unfetched: Project, source: Path) -> None:
    for name in ("core", "net"):
        path = unfetched.root / "patches" / f"{name}.patch"
        path.write_bytes(path.read_bytes().replace(b"Origin: other\n", b""))
    arguments = [source, source.with_name("out")] if verb == "apply" else []
    done = unfetched.run(verb, *arguments, code=2)
    assert "patches/core.patch:1: header field Origin is missing" in done.stderr
    assert "patches/net.patch:1: header field Origin is missing" in done.stderr


def test_a_patch_that_only_removes_lines_lands(tmp_path: Path) -> None:
    project = make_project(tmp_path, edited={NET: b"\n\ndef area(r):\n    return 3.14 * r * r\n"})
    project.run("vendor")
    assert (project.tree / NET).read_bytes() == b"\n\ndef area(r):\n    return 3.14 * r * r\n"


# Surroundings that have made `git apply` exit 0 and change nothing, or change line ends.


def test_below_another_repository_the_bytes_are_the_same(unfetched: Project, tmp_path: Path) -> None:
    git("init", "-q", cwd=tmp_path)
    (tmp_path / ".gitattributes").write_text("* text eol=crlf\n", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("*\n", encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    unfetched.env["TMPDIR"] = str(tmp_path / "temporary")
    unfetched.run("vendor")
    assert tree(unfetched.tree) == WHOLE
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_user_with_autocrlf_gets_the_same_bytes(unfetched: Project, tmp_path: Path) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[core]\n\tautocrlf = true\n[apply]\n\twhitespace = fix\n", encoding="utf-8")
    unfetched.env |= {"GIT_CONFIG_GLOBAL": str(config), "HOME": str(tmp_path)}
    unfetched.run("vendor")
    assert tree(unfetched.tree) == WHOLE


def test_called_from_a_hook_of_another_repository_the_bytes_are_the_same(unfetched: Project, tmp_path: Path) -> None:
    git("init", "-q", "other", cwd=tmp_path)
    other = tmp_path / "other"
    (other / "file").write_text("x\n", encoding="utf-8")
    git("add", "file", cwd=other)
    before = (other / ".git" / "index").read_bytes()
    unfetched.env |= {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git" / "index"),
        "GIT_PREFIX": "sub/",
    }
    unfetched.run("vendor")
    assert tree(unfetched.tree) == WHOLE
    assert (other / ".git" / "index").read_bytes() == before
    assert sorted(path.name for path in other.iterdir()) == [".git", "file"]


def script(project: Project, *arguments: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the project's own copy of tools/apply.py, as `python PATH ARGUMENTS`."""
    if not (project.root / "tools").exists():
        shutil.copytree(ROOT / "tools", project.root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | env
    done = subprocess.run(
        [sys.executable, os.path.relpath(project.root / "tools" / "apply.py", cwd), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("place", ["project", "project/tools", "source", "."])
def test_the_script_works_from_any_folder(place: str, unfetched: Project, source: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", unfetched.root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    done = script(unfetched, source, tmp_path / "out", cwd=tmp_path / place)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == WHOLE


def test_the_script_works_without_the_folder_on_the_path(unfetched: Project, source: Path, tmp_path: Path) -> None:
    done = script(unfetched, source, tmp_path / "out", cwd=tmp_path, PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stderr


def test_the_script_has_help_and_the_same_exit_codes(unfetched: Project, source: Path, tmp_path: Path) -> None:
    done = script(unfetched, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "SOURCE DEST" in done.stdout
    (source / CORE).write_bytes(b"")
    assert script(unfetched, source, tmp_path / "out", cwd=tmp_path).returncode == 5
    assert script(unfetched, tmp_path / "nowhere", tmp_path / "out", cwd=tmp_path).returncode == 2
    assert script(unfetched, cwd=tmp_path).returncode == 2


def test_an_edit_that_the_verb_replaces_is_kept_in_the_store(project: Project, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    project.run("apply", project.upstream, dest)
    (dest / "models/alpha/extra.py").write_bytes(b"# hours of work\n")
    said = project.run("apply", project.upstream, dest).stderr
    kept = Path(said.split("a copy is kept: ")[1].splitlines()[0])
    assert kept.read_bytes() == b"# hours of work\n"
