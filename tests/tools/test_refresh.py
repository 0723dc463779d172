"""`refresh`: what was edited in the tree becomes patches that give exactly those bytes."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.tools.conftest import EDITED, FILES, Project, make_project, snapshot, write
from tools.docs import DOCUMENTS
from tools.patchset import parse

CORE, NET, EXTRA = "models/alpha/core.py", "models/beta/net.py", "models/alpha/extra.py"
BETTER = b"import math\n\n\ndef area(r):\n    return math.pi * r**2\n"


def patches(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.root / "patches").iterdir()}


def state(project: Project) -> tuple[dict[str, bytes], bytes]:
    return patches(project), project.lock.read_bytes()


def header(data: bytes) -> dict[str, str]:
    return parse("p", data, draft=True).header


def today() -> set[str]:
    """The date, and the one that it may be by now."""
    return {datetime.now().astimezone().date().isoformat(), datetime.now(UTC).date().isoformat()}


def test_an_edit_becomes_the_patch_that_makes_it(vendored: Project) -> None:
    before = patches(vendored)
    (vendored.tree / NET).write_bytes(BETTER)
    done = vendored.run("refresh")
    assert done.stdout == "written: patches/net.patch\nwritten: upstream.lock\n"
    vendored.run("verify")
    after = patches(vendored)
    assert after["core.patch"] == before["core.patch"]
    assert header(after["net.patch"]) == {**header(before["net.patch"]), "Last-Update": after_date(after["net.patch"])}
    assert after_date(after["net.patch"]) in today()
    vendored.run("vendor")
    vendored.run("verify")
    assert (vendored.tree / NET).read_bytes() == BETTER
    shutil.rmtree(vendored.tree)
    vendored.run("vendor")
    assert (vendored.tree / NET).read_bytes() == BETTER
    vendored.run("lint")
    vendored.run("lock", "--check")


def test_every_document_that_follows_is_named(vendored: Project) -> None:
    (vendored.root / "docs").mkdir()
    for name in DOCUMENTS:
        (vendored.root / name).write_text("<!-- computed: patches -->\n<!-- end -->\n", encoding="utf-8")
    assert json.loads(vendored.run("lint", "--write", "--json").stdout)["written"] == list(DOCUMENTS)
    (vendored.tree / NET).write_bytes(BETTER)
    written = ["patches/net.patch", "upstream.lock", *DOCUMENTS]
    assert vendored.run("refresh").stdout.splitlines() == [f"written: {name}" for name in written]


def test_a_file_that_no_patch_can_hold_is_said_to_stay_behind(vendored: Project) -> None:
    (vendored.tree / "models/beta/helper.py").write_bytes(b"H = 1\n")
    said = "warning: models/beta/helper.py is no pinned file: no patch can hold it, so no other tree will have it"
    assert said in vendored.run("refresh").stderr
    (vendored.tree / NET).write_bytes(b"from . import helper\n" + BETTER)
    assert said in vendored.run("refresh").stderr


def after_date(data: bytes) -> str:
    return header(data)["Last-Update"]


def test_no_edits_change_nothing(vendored: Project) -> None:
    before = snapshot(vendored.root)
    done = vendored.run("refresh")
    assert done.stdout == "no edits\n"
    assert snapshot(vendored.root) == before
    assert vendored.json("refresh") == {
        "schema": 1,
        "verb": "refresh",
        "ok": True,
        "changed": [],
        "documents": [],
        "to_describe": [],
    }


def test_a_description_of_several_lines_is_kept(vendored: Project) -> None:
    path = vendored.root / "patches" / "net.patch"
    text = path.read_text(encoding="utf-8")
    # With words in it that stand elsewhere in a patch, too.
    lines = "Change net.\n As in diff --git a/x b/x.\n Colon: here\u2028and there.\n"
    path.write_text(text.replace("Change net.\n", lines), encoding="utf-8")
    vendored.run("lock")
    (vendored.tree / NET).write_bytes(BETTER)
    vendored.run("refresh")
    assert f"Description: {lines}" in path.read_text(encoding="utf-8")
    written = path.read_bytes()
    assert vendored.run("refresh").stdout == "no edits\n"
    assert path.read_bytes() == written


def test_an_edited_file_without_a_patch_is_refused_with_a_hint(vendored: Project) -> None:
    write(vendored.tree, {EXTRA: b"x = 1\n", NET: BETTER})
    before = state(vendored)
    done = vendored.run("refresh", code=1)
    assert f"{EXTRA}: was edited, and has no patch" in done.stderr
    assert f'next: make refresh ADOPT="{EXTRA}"' in done.stderr
    assert state(vendored) == before


def test_a_file_adopted_with_its_description_is_complete_at_once(vendored: Project) -> None:
    (vendored.tree / EXTRA).write_bytes(b"x = 1\n")
    done = vendored.run("refresh", "--adopt", "extra.py", "--description", "Say what there is.")
    assert done.stdout == "written: patches/extra.patch\nwritten: upstream.lock\n"
    assert header(patches(vendored)["extra.patch"])["Description"] == "Say what there is."
    for verb in ("verify", "lint", "vendor"):
        vendored.run(verb)
    assert (vendored.tree / EXTRA).read_bytes() == b"x = 1\n"
    vendored.run("lock", "--check")


def test_what_is_to_be_adopted_has_to_be_edited_and_pinned(vendored: Project) -> None:
    before = state(vendored)
    assert f"{EXTRA}: is as upstream has it" in vendored.run("refresh", "--adopt", EXTRA, code=2).stderr
    assert "no pinned file is called nothing.py" in vendored.run("refresh", "--adopt", "nothing.py", code=2).stderr
    assert state(vendored) == before
    # One that has a patch is refreshed in any case.
    assert vendored.run("refresh", "--adopt", NET).stdout == "no edits\n"


def test_documents_follow(vendored: Project) -> None:
    document = vendored.root / "MODEL_CHANGES.md"
    document.write_text("# Changes\n\n<!-- computed: patches -->\n<!-- end -->\n", encoding="utf-8")
    vendored.run("lint", "--write")
    before = document.read_text(encoding="utf-8")
    (vendored.tree / NET).write_bytes(BETTER)
    assert vendored.json("refresh")["documents"] == ["MODEL_CHANGES.md"]
    assert document.read_text(encoding="utf-8") != before
    vendored.run("lint")


def test_a_document_that_cannot_be_computed_stops_it_all(vendored: Project) -> None:
    document = vendored.root / "README.md"
    document.write_text("<!-- computed: nothing -->\n<!-- end -->\n", encoding="utf-8")
    (vendored.tree / NET).write_bytes(BETTER)
    before = snapshot(vendored.root)
    assert "README.md asks for a computed part 'nothing'" in vendored.run("refresh", code=2).stderr
    assert snapshot(vendored.root) == before


def test_a_file_without_a_patch_gets_one_with_a_description_to_write(vendored: Project) -> None:
    (vendored.tree / EXTRA).write_bytes(b"# nothing to see\nTODO = 'later'\n")
    report = vendored.json("refresh", "--adopt", EXTRA)
    assert (report["changed"], report["to_describe"]) == (["patches/extra.patch"], ["patches/extra.patch"])
    path = vendored.root / "patches" / "extra.patch"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("Description: TODO")
    assert after_date(path.read_bytes()) in today()
    for verb in ("lint", "lock", "vendor"):
        done = vendored.run(verb, code=2)
        assert "patches/extra.patch:1: Description is still to be written" in done.stderr
    assert vendored.run("refresh").stdout == "no edits\n"
    path.write_text(text.replace("TODO: say what this changes and why", "Say when."), encoding="utf-8")
    vendored.run("lock")
    vendored.run("lint")
    vendored.run("vendor")
    assert (vendored.tree / EXTRA).read_bytes() == b"# nothing to see\nTODO = 'later'\n"
    vendored.run("verify")


def test_a_patch_whose_code_says_todo_is_complete_at_once(vendored: Project) -> None:
    (vendored.tree / NET).write_bytes(BETTER + b"# TODO: spheres\n")
    report = vendored.json("refresh")
    assert (report["changed"], report["to_describe"]) == (["patches/net.patch"], [])
    vendored.run("lint")


def test_two_new_patches_for_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    files = {f"models/{name}/__init__.py": f"NAME = '{name}'\n".encode() for name in ("alpha", "beta", "gamma")}
    project = make_project(tmp_path, files, {})
    project.run("vendor")
    edits = {path: data + b"MORE = 1\n" for path, data in files.items() if "gamma" not in path}
    write(project.tree, edits)
    report = project.json("refresh", "--adopt", "alpha/__init__.py", "--adopt", "beta/__init__.py")
    assert report["changed"] == ["patches/__init__.patch", "patches/models-beta-__init__.patch"]
    write(project.tree, {"models/gamma/__init__.py": b"NAME = 'c'\n"})
    assert project.json("refresh", "--adopt", "__init__.py")["changed"] == ["patches/models-gamma-__init__.patch"]
    for path in (project.root / "patches").iterdir():
        path.write_bytes(path.read_bytes().replace(b"TODO: say", b"Say"))
    project.run("lock")
    shutil.rmtree(project.tree)
    project.run("vendor")
    for path, data in {**edits, "models/gamma/__init__.py": b"NAME = 'c'\n"}.items():
        assert (project.tree / path).read_bytes() == data


def test_a_lock_with_its_patches_in_one_line_is_kept_whole(vendored: Project) -> None:
    text = vendored.lock.read_text(encoding="utf-8")
    start, end = text.index("[[patches]]"), text.index("[[files]]")
    entries = [", ".join(entry.split("\n")[1:7]) for entry in text[start:end].split("[[patches]]")[1:]]
    line = f"patches = [{', '.join(f'{{ {entry} }}' for entry in entries)}]\n"
    vendored.lock.write_text(line + text[:start] + text[end:], encoding="utf-8")
    write(vendored.tree, {NET: BETTER, EXTRA: b"x = 1\n"})
    assert vendored.json("refresh", "--adopt", EXTRA)["changed"] == ["patches/extra.patch", "patches/net.patch"]
    vendored.run("status")
    vendored.run("lint", code=2)


def test_an_edit_that_only_removes_lines(vendored: Project) -> None:
    (vendored.tree / NET).write_bytes(FILES[NET].removeprefix(b"import math\n"))
    vendored.run("refresh")
    shutil.rmtree(vendored.tree)
    vendored.run("vendor")
    assert (vendored.tree / NET).read_bytes() == FILES[NET].removeprefix(b"import math\n")


def test_an_edit_that_undoes_a_patch_is_exit_1_and_changes_nothing(vendored: Project) -> None:
    before = state(vendored)
    (vendored.tree / NET).write_bytes(FILES[NET])
    (vendored.tree / EXTRA).write_bytes(b"x = 1\n")
    done = vendored.run("refresh", code=1)
    assert f"{NET}: as upstream has it, so patches/net.patch would be empty" in done.stderr
    assert state(vendored) == before


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (BETTER + b"# \xff\n", "is not UTF-8"),
        (BETTER + b"\0", "binary"),
    ],
    ids=["Latin-1", "NUL"],
)
@pytest.mark.parametrize("path", [NET, EXTRA], ids=["patched", "not patched"])
def test_an_edit_that_no_patch_may_hold_is_exit_2_before_anything_is_written(
    path: str, new: bytes, what: str, vendored: Project
) -> None:
    before = state(vendored)
    write(vendored.tree, {path: new, CORE: EDITED[CORE] + b"# fine\n"})
    done = vendored.run("refresh", *(("--adopt", EXTRA) if path == EXTRA else ()), code=2)
    assert what in done.stderr
    assert state(vendored) == before


def test_all_edits_that_no_patch_may_hold_are_reported_at_once(vendored: Project) -> None:
    write(vendored.tree, {CORE: EDITED[CORE] + b"x = '\xff'\n", EXTRA: b"y = '\xfe'\n"})
    done = vendored.run("refresh", "--adopt", EXTRA, code=2)
    assert "patches/core.patch:1: is not UTF-8" in done.stderr
    assert "patches/extra.patch:1: is not UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (BETTER.replace(b"import math\n", b"import math \n"), "adds trailing whitespace: '+import math '"),
        (BETTER.replace(b"\n", b"\r\n"), "adds a carriage return: '+import math\\r'"),
    ],
    ids=["trailing blanks", "Windows line ends"],
)
def test_bad_style_comes_back_byte_for_byte_and_is_for_lint_to_refuse(new: bytes, what: str, vendored: Project) -> None:
    (vendored.tree / NET).write_bytes(new)
    assert what in vendored.run("refresh").stderr
    shutil.rmtree(vendored.tree)
    vendored.run("vendor")
    assert (vendored.tree / NET).read_bytes() == new
    assert what in vendored.run("lint", code=2).stderr


def test_a_file_deleted_in_the_tree_is_exit_1_and_changes_nothing(vendored: Project) -> None:
    before = state(vendored)
    (vendored.tree / NET).unlink()
    done = vendored.run("refresh", code=1)
    assert f"missing: {NET}" in done.stderr
    assert state(vendored) == before


def test_nothing_vendored_is_exit_1(unfetched: Project) -> None:
    done = unfetched.run("refresh", code=1)
    assert f"nothing is vendored in {unfetched.tree}" in done.stderr


def test_only_the_components_asked_for_are_read(vendored: Project) -> None:
    write(vendored.tree, {NET: BETTER, CORE: EDITED[CORE] + b"# more\n"})
    assert vendored.json("refresh", "--components", "beta")["changed"] == ["patches/net.patch"]


@pytest.mark.parametrize("old", [b"Forwarded: no\n", b"diff --git ", b"index "])
def test_a_patch_file_that_is_malformed_already_is_exit_2(old: bytes, vendored: Project) -> None:
    path = vendored.root / "patches" / "net.patch"
    path.write_bytes(path.read_bytes().replace(old, b""))
    (vendored.tree / NET).write_bytes(BETTER)
    before = state(vendored)
    done = vendored.run("refresh", code=2)
    assert "patches/net.patch is malformed" in done.stderr
    assert state(vendored) == before


def test_another_tree_can_be_refreshed_without_a_network(vendored: Project, tmp_path: Path) -> None:
    shutil.copytree(vendored.tree, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / NET).write_bytes(BETTER)
    vendored.run("refresh", "--dest", tmp_path / "elsewhere", "--offline")
    assert b"+    return math.pi * r**2\n" in patches(vendored)["net.patch"]


@pytest.mark.skipif(os.name == "nt", reason="has no such folders")
@pytest.mark.parametrize("name", ["a:b", "x ", "what?"])
def test_a_tree_in_a_folder_with_a_name_that_no_lock_may_hold(name: str, vendored: Project) -> None:
    tree = vendored.root / name
    vendored.run("vendor", "--dest", tree)
    (tree / NET).write_bytes(BETTER)
    vendored.run("refresh", "--dest", tree)
    vendored.run("verify", "--dest", tree)
    assert not (vendored.root / "build").exists()


def test_a_tree_of_another_pin_or_patch_is_refused(project: Project) -> None:
    """Or its refresh would take back what upstream, or somebody else, has changed since."""
    project.run("vendor")
    project.advance({NET: b"# Theirs.\n" + FILES[NET]})
    project.run("rebase", "main")
    before = state(project)
    done = project.run("refresh", code=1)
    assert f"{NET}: made of another version of upstream's" in done.stderr
    assert "next: make vendor" in done.stderr
    project.run("vendor")
    old = snapshot(project.tree)
    write(project.tree, {NET: b"# Theirs.\n" + BETTER})
    project.run("refresh")
    assert state(project) != before
    before = state(project)
    for path, (data, _) in old.items():
        (project.tree / path).write_bytes(data)
    assert f"{NET}: made with another version of its patch" in project.run("refresh", code=1).stderr
    assert state(project) == before


def test_a_tree_without_a_manifest_is_refused(vendored: Project) -> None:
    (vendored.tree / "PROVENANCE.json").unlink()
    assert "PROVENANCE.json says nothing of it" in vendored.run("refresh", code=1).stderr


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_is_not_followed(what: str, vendored: Project, tmp_path: Path) -> None:
    before = state(vendored)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "net.py").write_bytes(b"SECRET = 1\n")
    target = vendored.tree / NET if what == "file" else (vendored.tree / NET).parent
    if what == "file":
        target.unlink()
        target.symlink_to(tmp_path / "secret" / "net.py")
    else:
        shutil.rmtree(target)
        target.symlink_to(tmp_path / "secret")
    done = vendored.run("refresh", code=None)
    assert done.returncode in (1, 2)
    assert state(vendored) == before


def test_the_rest_of_the_header_stays_as_it_is_written(vendored: Project) -> None:
    path = vendored.root / "patches" / "net.patch"
    head, diff = path.read_text(encoding="utf-8").split("\ndiff --git", 1)
    fields = head.splitlines()
    path.write_text("\n".join([*reversed(fields), "---", ""]) + "\ndiff --git" + diff, encoding="utf-8")
    vendored.run("lock")
    vendored.run("vendor")
    (vendored.tree / NET).write_bytes(BETTER)
    vendored.run("refresh")
    now = path.read_text(encoding="utf-8").split("\ndiff --git", 1)[0].splitlines()
    assert [line for line in now if "Last-Update" not in line] == [
        line for line in [*reversed(fields), "---"] if "Last-Update" not in line
    ]
