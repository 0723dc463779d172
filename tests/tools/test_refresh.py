"""Tests `refresh`: edits in a tree become patches that give exactly those bytes, and patches are dropped."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.tools.conftest import CORE, EDITED, EXTRA, FILES, NET, Project, make_project, snapshot, write
from tools.patch import parse

BETTER = b"import math\n\n\ndef area(r):\n    return math.pi * r**2\n"
OURS = FILES[EXTRA] + b"OURS = 1\n"


def header(project: Project, name: str) -> dict[str, str]:
    return parse(name, (project.root / "patches" / name).read_bytes()).header


def remade(project: Project, path: str) -> bytes:
    """The bytes of `path` in a new tree."""
    shutil.rmtree(project.tree)
    project.run("vendor")
    return (project.tree / path).read_bytes()


def test_an_edit_becomes_a_patch_that_gives_it_again(vendored: Project) -> None:
    core, before = (vendored.root / "patches/core.patch").read_bytes(), header(vendored, "net.patch")
    write(vendored.tree, {NET: BETTER})
    assert vendored.run("refresh").stdout == "written: patches/net.patch\nwritten: upstream.lock\n"
    assert (vendored.root / "patches/core.patch").read_bytes() == core
    today = {datetime.now().astimezone().date().isoformat(), datetime.now(UTC).date().isoformat()}
    assert header(vendored, "net.patch")["Last-Update"] in today
    assert {**header(vendored, "net.patch"), "Last-Update": ""} == {**before, "Last-Update": ""}
    vendored.run("verify")
    assert remade(vendored, NET) == BETTER
    assert "are up to date" in vendored.run("lock").stdout
    # Without edits nothing is written.
    files = snapshot(vendored.root)
    assert vendored.run("refresh").stdout == "no edits\n"
    assert snapshot(vendored.root) == files


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--adopt", "nothing.py"], "no pinned file is called nothing.py"),
        (["--drop", "net.patch extra"], "no patch is called extra"),
    ],
)
def test_unknown_names_can_neither_be_adopted_nor_dropped(words: list[str], said: str, vendored: Project) -> None:
    before = vendored.state()
    assert said in vendored.run("refresh", *words, code=2).stderr
    assert vendored.state() == before


# First patches.


def test_an_edited_file_gets_its_first_patch_only_when_it_is_adopted(vendored: Project) -> None:
    write(vendored.tree, {EXTRA: OURS})
    before = vendored.state()
    said = vendored.run("refresh", code=1).stderr
    assert f"{EXTRA}: was edited, and has no patch" in said
    assert f"refresh --adopt {EXTRA}" in said
    assert vendored.state() == before
    done = vendored.run("refresh", "--adopt", "extra.py", "--description", "Say whose it is.")
    assert done.stdout == "written: patches/extra.patch\nwritten: upstream.lock\n"
    assert header(vendored, "extra.patch")["Description"] == "Say whose it is."
    vendored.run("verify")
    vendored.run("lint")
    assert remade(vendored, EXTRA) == OURS


@pytest.mark.parametrize("verb", ["lock", "refresh"])
def test_lint_asks_for_a_missing_description(verb: str, vendored: Project) -> None:
    write(vendored.tree, {EXTRA: OURS})
    assert "write the Description in patches/extra.patch" in vendored.run("refresh", "--adopt", EXTRA).stdout
    assert "patches have no Description yet" in vendored.run("lint", code=2).stderr
    path = vendored.root / "patches/extra.patch"
    path.write_text(re.sub("TODO.*", "Say whose it is,\n in two lines.", path.read_text("utf-8")), encoding="utf-8")
    written = path.read_bytes()
    assert vendored.run(verb).stdout == "written: upstream.lock\n"
    assert path.read_bytes() == written
    vendored.run("lint")


def test_first_patches_for_files_of_one_name_get_different_names(tmp_path: Path) -> None:
    files = {f"models/{name}/__init__.py": f"NAME = '{name}'\n".encode() for name in ("alpha", "beta")}
    project = make_project(tmp_path, files, {})
    project.run("vendor")
    write(project.tree, {path: data + b"MORE = 1\n" for path, data in files.items()})
    said = project.run("refresh", "--adopt", "__init__.py").stdout
    assert said.startswith("written: patches/__init__.patch\nwritten: patches/models-beta-__init__.patch\n")


# What no patch may hold.

# Of models/beta/net.py, with what is said of it.
FAULTY = {
    "Latin-1": (BETTER + b"# \xff\n", "is not valid Python: 'utf-8' codec"),
    "NUL": (BETTER + b"\0", "is not valid Python"),
    "emptied": (b"\n", "is empty"),
    "CRLF": (BETTER.replace(b"\n", b"\r\n"), "has Windows line ends"),
    "markers": (b"<<<<<<< ours\n" + BETTER + b"=======\n>>>>>>> theirs\n", "conflict markers on lines 1, "),
    "syntax": (BETTER + b"def half(:\n", "is not valid Python"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_an_edit_that_no_patch_may_have_is_refused(fault: str, vendored: Project) -> None:
    new, said = FAULTY[fault]
    write(vendored.tree, {NET: new, CORE: EDITED[CORE] + b"# fine\n"})
    before = vendored.state()
    assert f"{NET}: {said}" in vendored.run("refresh", code=2).stderr
    assert vendored.state() == before


@pytest.mark.parametrize("fault", ["emptied", "CRLF", "markers", "syntax"])
def test_lint_and_lock_refuse_a_patch_with_a_forbidden_result(fault: str, tmp_path: Path) -> None:
    new, said = FAULTY[fault]
    project = make_project(tmp_path, edited={NET: new})
    project.run("vendor")
    for verb in ("lint", "lock"):
        assert f"{NET}: {said}" in project.run(verb, code=2).stderr


# Nobody's work is lost.


def test_an_edited_patch_file_is_not_overwritten(vendored: Project) -> None:
    path = vendored.root / "patches/net.patch"
    path.write_bytes(path.read_bytes().replace(b"Change net.", b"Use the real pi."))
    write(vendored.tree, {NET: BETTER})
    before = vendored.state()
    said = vendored.run("refresh", code=1).stderr
    assert "patches/net.patch is not as locked" in said
    assert "lock  # uses the patch file" in said
    assert "git checkout patches/net.patch" in said
    report = vendored.json("vendor", code=4)
    assert "patches/net.patch is not the file the lock names" in report["error"]
    assert any("lock" in step for step in report["next"])
    assert "is not the file the lock names" in vendored.run("refresh", "--drop", "net.patch", code=4).stderr
    assert vendored.state() == before
    vendored.run("lock")
    vendored.run("refresh")
    assert header(vendored, "net.patch")["Description"] == "Use the real pi."
    assert remade(vendored, NET) == BETTER


def test_a_tree_made_with_an_older_patch_is_refused(vendored: Project) -> None:
    """A refresh would undo what changed since."""
    shutil.copytree(vendored.tree, vendored.root / "old")
    write(vendored.tree, {NET: BETTER})
    vendored.run("refresh")
    before = vendored.state()
    assert f"or with another patch: {NET}" in vendored.run("refresh", "--dest", vendored.root / "old", code=1).stderr
    assert vendored.state() == before
    vendored.run("vendor", "--dest", vendored.root / "old")
    assert vendored.run("refresh", "--dest", vendored.root / "old").stdout == "no edits\n"


def test_what_is_no_edit_or_would_be_lost_is_not_refreshed(vendored: Project) -> None:
    lock = vendored.lock.read_bytes()
    write(vendored.tree, {"models/beta/helper.py": b"H = 1\n"})
    assert "models/beta/helper.py is no pinned file" in vendored.run("refresh").stderr
    (vendored.tree / NET).unlink()
    assert f"missing: {NET}" in vendored.run("refresh", code=1).stderr
    write(vendored.tree, {NET: BETTER})
    (vendored.root / "build/rebase").mkdir(parents=True)
    assert "a rebase is under way" in vendored.run("refresh", code=2).stderr
    (vendored.root / "build/rebase").rmdir()
    for path in vendored.tree.rglob("PROVENANCE.json"):
        path.unlink()
    assert "nothing is vendored" in vendored.run("refresh", code=1).stderr
    assert vendored.lock.read_bytes() == lock


# Dropping a patch.


@pytest.mark.parametrize("name", ["net.patch", "patches/net.patch", "net"])
def test_a_dropped_patch_is_removed_and_edits_are_kept(name: str, vendored: Project) -> None:
    write(vendored.tree, {NET: BETTER})
    done = vendored.run("refresh", "--drop", name)
    assert done.stdout.startswith("removed: patches/net.patch\nwritten: upstream.lock\n")
    assert "a copy is kept" in vendored.run("vendor").stderr
    assert (vendored.tree / NET).read_bytes() == FILES[NET]
    vendored.run("verify")
    vendored.run("lint")


def test_a_first_patch_that_is_dropped_leaves_no_trace(vendored: Project) -> None:
    before = vendored.state()
    write(vendored.tree, {EXTRA: OURS})
    vendored.run("refresh", "--adopt", EXTRA)
    vendored.run("refresh", "--drop", "extra")
    vendored.run("vendor")
    assert vendored.state() == before


@pytest.mark.parametrize("verb", ["vendor", "refresh", "lock", "lint"])
def test_a_deleted_patch_file_or_an_edit_that_undoes_it_leads_to_the_way_to_drop_it(
    verb: str, vendored: Project
) -> None:
    write(vendored.tree, {NET: FILES[NET]})
    assert any("refresh --drop net.patch" in step for step in vendored.json("refresh", code=1)["next"])
    write(vendored.tree, {NET: EDITED[NET]})
    (vendored.root / "patches/net.patch").unlink()
    found = vendored.json(verb, code=2)["next"]
    assert any("refresh --drop net.patch" in step for step in found), found
    assert any(step.startswith("git checkout patches") for step in found), found
    vendored.run("refresh", "--drop", "net.patch")
    assert remade(vendored, NET) == FILES[NET]


@pytest.mark.parametrize("verb", ["refresh", "rebase --to main"])
def test_a_patch_of_an_extra_is_dropped_only_once_no_extra_names_it(verb: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, extras={"fast": ["net.patch"]})
    project.advance({EXTRA: b"x = 1\n"})
    project.run("vendor")
    before = project.state()
    said = project.run(*verb.split(), "--drop", "net.patch", code=2).stderr
    assert "extras.fast: no patch is called net.patch\nnext: edit [tool.vendor.extras]" in said
    assert project.state() == before
    project.decide(extras={})
    project.run(*(verb.split() if verb == "refresh" else ["rebase-continue"]), "--drop", "net.patch")
    project.run("lint")


# Where, and with what.


def test_an_extras_patch_is_refreshed_only_in_a_tree_with_the_extra(tmp_path: Path) -> None:
    project = make_project(tmp_path, extras={"fast": ["net.patch"]})
    project.run("vendor")
    assert project.run("refresh").stdout == "no edits\n"
    write(project.tree, {NET: BETTER})
    assert f"{NET}: its patch is of the extra fast" in project.run("refresh", code=1).stderr
    project.run("vendor", "--extras", "fast")
    write(project.tree, {NET: BETTER})
    project.run("refresh")
    project.run("verify")
    assert b"r**2\n" in (project.root / "patches/net.patch").read_bytes()
