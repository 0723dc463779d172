"""`refresh`: what was edited in the tree becomes patches that give exactly those bytes; patches are dropped."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.tools.conftest import EDITED, FILES, Project, make_project, snapshot, write
from tools.patch import parse

CORE, NET, EXTRA = "models/alpha/core.py", "models/beta/net.py", "models/alpha/extra.py"
BETTER = b"import math\n\n\ndef area(r):\n    return math.pi * r**2\n"
OURS = FILES[EXTRA] + b"OURS = 1\n"


def state(project: Project) -> dict[str, bytes]:
    """What a refresh may write: every file of the project outside build/."""
    return {path: data for path, (data, _) in snapshot(project.root).items() if not path.startswith("build/")}


def header(project: Project, name: str) -> dict[str, str]:
    return parse(name, (project.root / "patches" / name).read_bytes()).header


def test_an_edit_becomes_the_patch_that_makes_it(vendored: Project) -> None:
    core, before = (vendored.root / "patches/core.patch").read_bytes(), header(vendored, "net.patch")
    write(vendored.tree, {NET: BETTER})
    assert vendored.run("refresh").stdout == "written: patches/net.patch\nwritten: upstream.lock\n"
    assert (vendored.root / "patches/core.patch").read_bytes() == core
    today = {datetime.now().astimezone().date().isoformat(), datetime.now(UTC).date().isoformat()}
    assert header(vendored, "net.patch")["Last-Update"] in today
    assert {**header(vendored, "net.patch"), "Last-Update": ""} == {**before, "Last-Update": ""}
    vendored.run("verify")
    shutil.rmtree(vendored.tree)
    vendored.run("vendor")
    assert (vendored.tree / NET).read_bytes() == BETTER
    assert vendored.json("lock")["changed"] == []


def test_no_edits_write_nothing(vendored: Project) -> None:
    before = snapshot(vendored.root)
    assert vendored.run("refresh").stdout == "no edits\n"
    assert snapshot(vendored.root) == before


# First patches.


def test_an_edited_file_without_a_patch_is_refused_with_the_way_to_adopt_it(vendored: Project) -> None:
    write(vendored.tree, {EXTRA: OURS, NET: BETTER})
    before = state(vendored)
    done = vendored.run("refresh", code=1)
    assert f"{EXTRA}: was edited, and has no patch" in done.stderr
    assert f"refresh --adopt {EXTRA}" in done.stderr
    assert state(vendored) == before


def test_a_file_that_is_adopted_gets_a_patch_with_its_description(vendored: Project) -> None:
    write(vendored.tree, {EXTRA: OURS})
    done = vendored.run("refresh", "--adopt", "extra.py", "--description", "Say whose it is.")
    assert done.stdout == "written: patches/extra.patch\nwritten: upstream.lock\n"
    assert header(vendored, "extra.patch")["Description"] == "Say whose it is."
    vendored.run("verify")
    vendored.run("lint")
    shutil.rmtree(vendored.tree)
    vendored.run("vendor")
    assert (vendored.tree / EXTRA).read_bytes() == OURS


@pytest.mark.parametrize("verb", ["lock", "refresh"])
def test_a_description_is_to_be_written_before_lint_is_content(verb: str, vendored: Project) -> None:
    write(vendored.tree, {EXTRA: OURS})
    assert vendored.json("refresh", "--adopt", EXTRA)["to_describe"] == ["patches/extra.patch"]
    assert "Description is still to be written" in vendored.run("lint", code=2).stderr
    path = vendored.root / "patches/extra.patch"
    path.write_text(re.sub("TODO.*", "Say whose it is,\n in two lines.", path.read_text("utf-8")), encoding="utf-8")
    written = path.read_bytes()
    assert vendored.json(verb)["changed"] == ["upstream.lock"]
    assert path.read_bytes() == written
    vendored.run("lint")


def test_first_patches_for_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    files = {f"models/{name}/__init__.py": f"NAME = '{name}'\n".encode() for name in ("alpha", "beta")}
    project = make_project(tmp_path, files, {})
    project.run("vendor")
    write(project.tree, {path: data + b"MORE = 1\n" for path, data in files.items()})
    names = ["patches/__init__.patch", "patches/models-beta-__init__.patch"]
    assert project.json("refresh", "--adopt", "__init__.py")["changed"][:2] == names
    project.run("verify")


def test_what_is_to_be_adopted_has_to_be_pinned(vendored: Project) -> None:
    assert "no pinned file is called nothing.py" in vendored.run("refresh", "--adopt", "nothing.py", code=2).stderr


# What no patch may hold.


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (BETTER + b"# \xff\n", "is no Python: 'utf-8' codec"),
        (BETTER + b"\0", "is no Python"),
        (b"", "nothing is left in it"),
        (BETTER.replace(b"\n", b"\r\n"), "has Windows line ends"),
        (b"<<<<<<< ours\n" + BETTER + b"=======\n>>>>>>> theirs\n", "conflict markers on lines 1, "),
        (BETTER + b"def half(:\n", "is no Python"),
    ],
    ids=["Latin-1", "NUL", "emptied", "CRLF", "markers", "syntax"],
)
def test_an_edit_that_no_patch_may_hold_is_refused_before_anything_is_written(
    new: bytes, what: str, vendored: Project
) -> None:
    write(vendored.tree, {NET: new, CORE: EDITED[CORE] + b"# fine\n"})
    before = state(vendored)
    assert f"{NET}: {what}" in vendored.run("refresh", code=2).stderr
    assert state(vendored) == before


def test_a_file_that_no_patch_can_hold_is_said_to_stay_behind(vendored: Project) -> None:
    write(vendored.tree, {"models/beta/helper.py": b"H = 1\n"})
    assert "models/beta/helper.py is no pinned file" in vendored.run("refresh").stderr


# Nobody's work is lost.


def test_a_patch_that_was_edited_and_not_locked_is_not_written_over(vendored: Project) -> None:
    path = vendored.root / "patches/net.patch"
    write(vendored.tree, {NET: BETTER})
    vendored.run("refresh")
    theirs = path.read_bytes()
    lock = vendored.lock.read_bytes()
    write(vendored.tree, {NET: BETTER + b"# mine\n"})
    vendored.run("refresh")
    # As if somebody had edited the patch file, and the tree as well.
    mine = path.read_bytes()
    path.write_bytes(theirs)
    write(vendored.tree, {NET: BETTER + b"# third\n"})
    before = state(vendored)
    done = vendored.run("refresh", code=1)
    assert "patches/net.patch was edited and is not locked" in done.stderr
    assert "lock  # takes the patch up" in done.stderr
    assert "git checkout patches/net.patch" in done.stderr
    assert state(vendored) == before
    # Both ways out work.
    vendored.run("lock")
    assert vendored.lock.read_bytes() == lock
    path.write_bytes(mine)
    vendored.run("lock")
    vendored.run("refresh")
    assert b"+# third\n" in path.read_bytes()


def test_a_patch_file_that_stands_where_a_first_one_would_is_not_written_over(vendored: Project) -> None:
    write(vendored.tree, {EXTRA: OURS})
    vendored.run("refresh", "--adopt", EXTRA, "--description", "Ours.")
    kept = (vendored.root / "patches/extra.patch").read_bytes()
    vendored.run("refresh", "--drop", "extra.patch")
    (vendored.root / "patches/extra.patch").write_bytes(kept)
    vendored.run("vendor")
    write(vendored.tree, {EXTRA: OURS + b"# more\n"})
    done = vendored.run("refresh", "--adopt", EXTRA, code=1)
    assert "patches/extra.patch was edited and is not locked" in done.stderr
    assert (vendored.root / "patches/extra.patch").read_bytes() == kept


@pytest.mark.parametrize("done", [["patches/net.patch"], ["patches/net.patch", "MODEL_CHANGES.md"]])
def test_a_run_that_was_killed_before_the_lock_is_put_right_by_the_next(done: list[str], vendored: Project) -> None:
    (vendored.root / "MODEL_CHANGES.md").write_text("<!-- computed: patches -->\n<!-- end -->\n", encoding="utf-8")
    vendored.run("lock")
    write(vendored.tree, {NET: BETTER})
    before = state(vendored)
    vendored.run("refresh")
    after = state(vendored)
    write(vendored.root, {path: data for path, data in before.items() if path not in done})
    vendored.run("refresh")
    assert state(vendored) == after


def test_a_tree_of_another_version_of_a_patch_is_refused(vendored: Project) -> None:
    """Or its refresh would take back what somebody else has changed since."""
    old = state(vendored)
    write(vendored.tree, {NET: BETTER})
    vendored.run("refresh")
    write(vendored.root, {path: data for path, data in old.items() if path.startswith("vendor/")})
    before = state(vendored)
    done = vendored.run("refresh", code=1)
    assert f"made of another pin, or with another patch: {NET}" in done.stderr
    assert state(vendored) == before
    vendored.run("vendor")
    assert vendored.run("refresh").stdout == "no edits\n"


def test_a_tree_without_a_manifest_is_no_tree(vendored: Project) -> None:
    for path in vendored.tree.rglob("PROVENANCE.json"):
        path.unlink()
    assert "nothing is vendored" in vendored.run("refresh", code=1).stderr


def test_a_file_deleted_in_the_tree_is_no_edit(vendored: Project) -> None:
    (vendored.tree / NET).unlink()
    before = state(vendored)
    assert f"missing: {NET}" in vendored.run("refresh", code=1).stderr
    assert state(vendored) == before


def test_a_rebase_under_way_would_lose_what_is_refreshed(vendored: Project) -> None:
    (vendored.root / "build/rebase").mkdir(parents=True)
    write(vendored.tree, {NET: BETTER})
    assert "a rebase is under way" in vendored.run("refresh", code=2).stderr


# Dropping a patch.


@pytest.mark.parametrize("name", ["net.patch", "patches/net.patch", "net"])
def test_a_patch_is_dropped(name: str, vendored: Project) -> None:
    done = vendored.run("refresh", "--drop", name)
    assert done.stdout.startswith("removed: patches/net.patch\nwritten: upstream.lock\n")
    vendored.run("vendor")
    assert (vendored.tree / NET).read_bytes() == FILES[NET]
    vendored.run("verify")
    vendored.run("lint")


def test_a_first_patch_that_is_dropped_leaves_no_trace(vendored: Project) -> None:
    before = state(vendored)
    write(vendored.tree, {EXTRA: OURS})
    vendored.run("refresh", "--adopt", EXTRA)
    vendored.run("refresh", "--drop", "extra")
    vendored.run("vendor")
    assert state(vendored) == before


@pytest.mark.parametrize("verb", ["vendor", "refresh", "lock", "lint"])
def test_a_deleted_patch_file_leads_to_the_way_to_drop_the_patch(verb: str, vendored: Project) -> None:
    (vendored.root / "patches/net.patch").unlink()
    found = vendored.json(verb, code=2)["next"]
    assert any("refresh --drop net.patch" in step for step in found), found
    assert any(step.startswith("git checkout patches") for step in found), found
    shutil.rmtree(vendored.tree)
    vendored.run("refresh", "--drop", "net.patch")
    vendored.run("vendor")
    assert (vendored.tree / NET).read_bytes() == FILES[NET]


def test_an_edit_that_undoes_a_patch_leads_to_the_way_to_drop_it(vendored: Project) -> None:
    write(vendored.tree, {NET: FILES[NET]})
    assert any("refresh --drop net.patch" in step for step in vendored.json("refresh", code=1)["next"])
    vendored.run("refresh", "--drop", "net.patch")
    vendored.run("vendor")
    vendored.run("verify")


def test_edits_of_a_file_whose_patch_is_dropped_are_kept_by_the_next_vendor(vendored: Project) -> None:
    write(vendored.tree, {NET: BETTER})
    vendored.run("refresh", "--drop", "net.patch")
    assert "a copy is kept" in vendored.run("vendor").stderr


def test_a_patch_that_is_none_cannot_be_dropped(vendored: Project) -> None:
    assert "no patch is called extra" in vendored.run("refresh", "--drop", "net.patch extra", code=2).stderr
    vendored.run("lint")


# Where, and with what.


def test_an_extras_patch_is_refreshed_in_a_tree_with_it_and_in_no_other(tmp_path: Path) -> None:
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
