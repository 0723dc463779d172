"""`rebase` and its companions: the patches at another commit of upstream, all of it or nothing yet."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.tools.conftest import EDITED, FILES, Project, git, make_project, snapshot, write
from tests.tools.servers import make_wheel, pip_environment, wheel_table
from tests.tools.test_transaction import killed
from tools.carry import accounted, markers
from tools.lock import RawSpec, load

CORE, NET, EXTRA, NEW = (
    "models/alpha/core.py",
    "models/beta/net.py",
    "models/alpha/extra.py",
    "models/alpha/new.py",
)
MERGES = b"# Shapes.\n" + FILES[NET]
CONFLICTS = FILES[NET].replace(b"3.14 * r * r", b"3.1416 * r * r")
RESOLVED = EDITED[NET].replace(b"math.pi * r * r", b"math.pi * r * r  # exact")


def ours(project: Project) -> dict[str, bytes]:
    """Patches and lock."""
    files = [project.lock, *(project.root / "patches").iterdir()]
    return {path.name: path.read_bytes() for path in files}


def dateless(files: dict[str, bytes]) -> dict[str, list[bytes]]:
    """`files` without the day in a patch's header and, in a lock, the hash of a file that has one."""
    return {
        name: [line for line in data.split(b"\n") if not line.startswith((b"Last-Update", b"sha256 ="))]
        for name, data in files.items()
    }


def in_order(project: Project) -> None:
    """Lock, patches and documents agree, and a tree can be made of them."""
    project.run("lint")
    project.run("lock", "--check")
    shutil.rmtree(project.tree, ignore_errors=True)
    project.run("vendor")
    project.run("verify")


def test_a_patch_whose_file_did_not_change_stays_byte_for_byte(project: Project) -> None:
    before = ours(project)
    tip = project.advance({EXTRA: b"# something to see\n", "README": b"hello\n"})
    done = project.run("rebase", "main")
    assert "patches/net.patch      applies as it is" in done.stdout
    assert "models/alpha/extra.py  changed upstream" in done.stdout
    assert f"the pin is {tip[:12]} of 2026-01-02" in done.stdout
    after = ours(project)
    assert {name for name in after if after[name] != before[name]} == {"upstream.lock"}
    assert load(project.root).pin.commit == tip
    in_order(project)
    assert (project.tree / EXTRA).read_bytes() == b"# something to see\n"
    assert project.run("rebase", "main").stdout == f"nothing to do: the pin is at {tip[:12]}\n"


def test_a_patch_is_merged_and_both_changes_are_there(project: Project) -> None:
    project.advance({NET: MERGES})
    assert "written: patches/net.patch" in project.run("rebase", "main").stdout
    in_order(project)
    assert (project.tree / NET).read_bytes() == b"# Shapes.\n" + EDITED[NET]


RENAMES: dict[str, bytes | None] = {NET: None, "models/beta/shapes.py": MERGES, EXTRA: None}
RENAMES["models/alpha/more.py"] = FILES[EXTRA]


@pytest.mark.parametrize(
    ("changes", "there", "back"),
    [
        ({NET: MERGES, CORE: b"# Scales.\n" + FILES[CORE]}, (), ()),
        (RENAMES, (), ()),
        ({NEW: b"NEW = 1\n"}, ("--add", NEW), ("--drop", NEW)),
        ({EXTRA: None}, ("--drop", EXTRA), ("--add", EXTRA)),
    ],
    ids=["edits", "renames", "a file taken up", "a file dropped"],
)
def test_there_and_back_again_is_where_it_began(
    changes: dict[str, bytes | None], there: tuple[str, ...], back: tuple[str, ...], project: Project
) -> None:
    project.run("vendor")
    text = project.lock.read_text(encoding="utf-8").replace("[[patches]]", "# On the patches.\n[[patches]]", 1)
    project.lock.write_text(text, encoding="utf-8")
    before = ours(project)
    tip = project.advance(changes)
    # The dates that headers had are not today's, so once more before they are compared.
    project.run("rebase", tip, *there)
    gone = ours(project)
    assert dateless(gone) != dateless(before)
    project.run("rebase", project.commit, *back)
    assert dateless(ours(project)) == dateless(before)
    project.run("rebase", tip, *there)
    assert ours(project) == gone


def test_a_last_line_without_its_newline_is_no_conflict(project: Project) -> None:
    # The patch rewrites the last line, which upstream now ends: who wrote a line says how it ends.
    project.advance({CORE: FILES[CORE] + b"\n"})
    project.run("rebase", "main")
    in_order(project)
    assert (project.tree / CORE).read_bytes() == EDITED[CORE]


def test_a_renamed_file_takes_its_patch_along(project: Project) -> None:
    project.advance(RENAMES)
    done = project.run("rebase", "main")
    assert "now models/beta/shapes.py" in done.stdout
    in_order(project)
    assert (project.tree / "models/beta/shapes.py").read_bytes() == b"# Shapes.\n" + EDITED[NET]
    assert not (project.tree / NET).exists()
    assert [file.path for file in load(project.root).components[0].files] == [
        "models/alpha/__init__.py",
        CORE,
        "models/alpha/more.py",
    ]


def test_new_files_are_listed_and_taken_up_when_asked(project: Project) -> None:
    tip = project.advance({NEW: b"NEW = 1\n"})
    assert re.search(rf"{NEW} +new upstream +ADD= takes it up", project.run("rebase", "main", "--dry-run").stdout)
    assert "ther.py is nothing to add" in project.run("rebase", "main", "--add", "ther.py", code=2).stderr
    assert project.json("rebase", "main", "--dry-run")["new_files"] == [NEW]
    project.run("rebase", "main", "--add", "new.py")
    in_order(project)
    assert (project.tree / NEW).read_bytes() == b"NEW = 1\n"
    # Whoever does not take one up is not asked again, and may still do so.
    project.run("rebase", project.commit, "--drop", NEW)
    project.run("rebase", tip)
    newer = project.advance({"README": b"hello\n"})
    assert project.json("rebase", "main")["new_files"] == []
    assert NEW not in project.lock.read_text(encoding="utf-8")
    assert f"{NEW}  taken up" in project.run("rebase", newer, "--add", NEW).stdout
    in_order(project)


@pytest.mark.parametrize(
    "name", ["main", "v2", "light", "{commit}", "{short}", "{upper}", "refs/heads/main", "refs/tags/v2"]
)
def test_a_commit_goes_by_several_names(name: str, project: Project) -> None:
    tip = project.advance({EXTRA: b"x = 1\n"})
    git("tag", "-a", "v2", "-m", "two", cwd=project.upstream)
    git("tag", "light", cwd=project.upstream)
    project.advance({EXTRA: b"x = 2\n"})
    git("branch", "-q", "newer", cwd=project.upstream)
    if name.endswith("main"):
        git("reset", "-q", "--hard", tip, cwd=project.upstream)
    project.run("rebase", name.format(commit=tip, short=tip[:8], upper=tip.upper()))
    assert load(project.root).pin.commit == tip
    assert load(project.root).pin.branch == "main"


def test_another_branch_becomes_the_one_to_follow(project: Project) -> None:
    git("checkout", "-q", "-b", "dev/next", cwd=project.upstream)
    tip = project.advance({EXTRA: b"x = 1\n"})
    project.run("rebase", "dev/next")
    pin = load(project.root).pin
    assert (pin.branch, pin.commit) == ("dev/next", tip)
    assert project.json("outdated")["current"] is True


def test_a_shortened_id_of_another_branch_is_said_not_to_be_looked_for(project: Project) -> None:
    git("checkout", "-q", "-b", "other", cwd=project.upstream)
    tip = project.advance({EXTRA: b"x = 1\n"})
    git("checkout", "-q", "main", cwd=project.upstream)
    done = project.run("rebase", tip[:8], code=2)
    assert "a shortened id is looked for in main alone" in done.stderr
    assert "a commit of another branch needs its full id" in done.stderr
    project.run("rebase", tip)


@pytest.mark.parametrize(
    "name", ["nothing", "0123abcd", "0" * 40, "--upload-pack=touch x", "a..b", "a b", "", "-x", "@{1}"]
)
def test_a_name_that_is_nowhere_or_no_name_is_an_error_in_words(name: str, vendored: Project) -> None:
    before = snapshot(vendored.root)
    done = vendored.run("rebase", "--", name, code=None)
    assert done.returncode in (2, 5)
    assert "error:" in done.stderr
    assert snapshot(vendored.root) == before


def test_an_upstream_that_cannot_be_asked_is_exit_5(vendored: Project, tmp_path: Path) -> None:
    before = snapshot(vendored.root)
    done = vendored.run("rebase", "main", "--upstream", tmp_path / "nothing", code=5)
    assert "UPSTREAM=" in done.stderr
    assert snapshot(vendored.root) == before


def test_another_repository_becomes_the_one_to_follow(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project.upstream, other)
    write(other, {EXTRA: b"x = 1\n"})
    git("commit", "-q", "-a", "-m", "a fork", cwd=other)
    project.run("rebase", "main", "--url", other.as_uri())
    assert load(project.root).pin.url == other.as_uri()
    in_order(project)


@pytest.fixture
def stopped(project: Project) -> Project:
    """A project whose rebase has stopped at a conflict in net.py."""
    project.run("vendor")
    project.advance({NET: CONFLICTS, EXTRA: b"x = 1\n"})
    before = ours(project)
    tree = snapshot(project.tree)
    done = project.run("rebase", "main", code=3)
    assert "patches/net.patch: conflict in models/beta/net.py" in done.stderr
    assert "edit build/rebase/resolve/models/beta/net.py, whose markers are on lines 5, 7, 9, 11" in done.stderr
    assert "next: make rebase-continue\n" in done.stderr
    assert (ours(project), snapshot(project.tree)) == (before, tree)
    return project


def to_resolve(project: Project) -> Path:
    return project.root / "build" / "rebase" / "resolve" / NET


def test_a_conflict_is_resolved_and_continued_from_any_shell(stopped: Project) -> None:
    text = to_resolve(stopped).read_text(encoding="utf-8")
    assert text.splitlines()[4:] == [
        "<<<<<<< upstream",
        "    return 3.1416 * r * r",
        text.splitlines()[6],
        "    return 3.14 * r * r",
        "=======",
        "    return math.pi * r * r",
        ">>>>>>> patches/net.patch",
    ]
    assert text.splitlines()[6].startswith("||||||| ")
    before = ours(stopped)
    assert "conflict in models/beta/net.py" in stopped.run("rebase-status").stdout
    assert stopped.json("rebase-status")["under_way"] is True
    assert "conflict in models/beta/net.py" in stopped.run("rebase-continue", code=3).stderr
    assert ours(stopped) == before
    to_resolve(stopped).write_bytes(RESOLVED.replace(b"math.pi * r * r", b"math.pi * r * r").replace(b"  # exact", b""))
    assert "nothing is left to decide" in stopped.run("rebase-status").stdout
    done = stopped.run("rebase-continue")
    assert "written: patches/net.patch" in done.stdout
    assert not (stopped.root / "build").exists()
    in_order(stopped)
    assert (stopped.tree / NET).read_bytes() == EDITED[NET]
    assert (stopped.tree / EXTRA).read_bytes() == b"x = 1\n"
    assert stopped.json("rebase-status") == {"schema": 1, "verb": "rebase-status", "ok": True, "under_way": False}


def test_continuing_asks_nobody(stopped: Project) -> None:
    stopped.upstream.rename(stopped.upstream.with_name("elsewhere"))
    shutil.rmtree(stopped.store)
    to_resolve(stopped).write_bytes(EDITED[NET])
    stopped.run("rebase-continue")
    shutil.rmtree(stopped.tree)
    stopped.run("vendor", "--offline")


def test_a_line_that_a_person_lost_is_listed_and_needs_a_word(stopped: Project) -> None:
    # Given before there is a loss to see, leave to lose lines is none.
    stopped.run("rebase-continue", "--allow-loss", code=3)
    to_resolve(stopped).write_bytes(b"import math\n\n\ndef area(r):\n    return math.tau * r * r / 2\n")
    done = stopped.run("rebase-continue", code=3)
    assert "patches/net.patch: lost: return math.pi * r * r" in done.stderr
    assert f"edit build/rebase/resolve/{NET}, or ALLOW_LOSS=1 goes on without" in done.stderr
    [problem] = stopped.json("rebase-status")["to_decide"]
    assert problem["text"] == "patches/net.patch: lost: return math.pi * r * r"
    done = stopped.run("rebase-continue", "--allow-loss")
    assert "warning: patches/net.patch: lost: return math.pi * r * r" in done.stderr
    in_order(stopped)


def test_an_editor_that_ends_lines_as_on_windows_is_named(stopped: Project) -> None:
    to_resolve(stopped).write_bytes(RESOLVED.replace(b"\n", b"\r\n"))
    [problem] = stopped.json("rebase-status")["to_decide"]
    assert problem["text"] == f"patches/net.patch: {NET} has Windows line ends now, which upstream's has not"
    stopped.run("rebase-continue", "--allow-loss", code=3)
    to_resolve(stopped).write_bytes(EDITED[NET])
    stopped.run("rebase-continue")


def test_what_lint_will_refuse_is_said_at_once(stopped: Project) -> None:
    to_resolve(stopped).write_bytes(RESOLVED.replace(b"\n", b" \n"))
    done = stopped.run("rebase-continue", "--allow-loss")
    assert "(make check refuses that)" in done.stderr


def test_taking_upstreams_side_leaves_nothing_of_the_patch(stopped: Project) -> None:
    to_resolve(stopped).write_bytes(CONFLICTS)
    done = stopped.run("rebase-continue", code=3)
    assert "patches/net.patch: nothing of it is left to do" in done.stderr
    assert 'next: make rebase-continue DROP="patches/net.patch"' in done.stderr
    assert "removed: patches/net.patch" in stopped.run("rebase-continue", "--drop", "net.patch").stdout
    in_order(stopped)
    assert (stopped.tree / NET).read_bytes() == CONFLICTS


def test_what_is_resolved_has_to_be_python(stopped: Project) -> None:
    to_resolve(stopped).write_bytes(EDITED[NET] + b"return return\n")
    assert "the result is no Python: models/beta/net.py:6" in stopped.run("rebase-continue", code=3).stderr


def test_an_edit_beyond_the_conflict_is_taken_too(stopped: Project) -> None:
    core = to_resolve(stopped).parents[1] / "alpha" / "core.py"
    core.write_bytes(core.read_bytes() + b"\n\ndef half(x):\n    return x / 2\n")
    to_resolve(stopped).write_bytes(EDITED[NET])
    stopped.run("rebase-continue")
    in_order(stopped)
    assert (stopped.tree / CORE).read_bytes().endswith(b"return x / 2\n")


def test_a_second_rebase_refuses_and_abort_forgets_the_first(stopped: Project) -> None:
    before = snapshot(stopped.root)
    done = stopped.run("rebase", "main", code=2)
    assert "a rebase is under way" in done.stderr
    assert "make rebase-status" in done.stderr
    assert snapshot(stopped.root) == before
    stopped.run("rebase-abort")
    assert not (stopped.root / "build").exists()
    assert "nothing to abort" in stopped.run("rebase-abort", code=2).stderr
    assert "no rebase is under way" in stopped.run("rebase-continue", code=2).stderr
    assert stopped.run("rebase-status").stdout == "no rebase is under way\n"
    stopped.run("rebase", "main", code=3)


def test_a_refresh_waits_for_the_rebase(stopped: Project) -> None:
    before = snapshot(stopped.root)
    assert "a rebase is under way" in stopped.run("refresh", code=2).stderr
    assert snapshot(stopped.root) == before


def test_a_file_to_resolve_that_was_lost_begins_anew(stopped: Project) -> None:
    first = to_resolve(stopped).read_bytes()
    to_resolve(stopped).unlink()
    assert "conflict in models/beta/net.py" in stopped.run("rebase-continue", code=3).stderr
    assert to_resolve(stopped).read_bytes() == first


def test_a_resolution_that_is_not_utf8_is_named(stopped: Project) -> None:
    to_resolve(stopped).write_bytes(EDITED[NET] + b"# \xff\n")
    done = stopped.run("rebase-continue", code=3)
    assert "patches/net.patch: the result is not UTF-8" in done.stderr
    assert f"edit build/rebase/resolve/{NET}" in done.stderr


def test_a_resolution_with_upstreams_line_elsewhere_says_so(project: Project) -> None:
    base = b"def a(x):\n    y = 1\n    return x\n\n\ndef b(x):\n    return x\n"
    project.advance({NET: base})
    project.run("rebase", "main", "--drop", "net.patch")
    project.run("vendor")
    write(project.tree, {NET: base.replace(b"y = 1", b"x = fix(x)")})
    project.run("refresh", "--adopt", NET, "--description", "Fix.")
    project.advance({NET: base.replace(b"y = 1", b"y = 2").replace(b"b(x):\n", b"b(x):\n    x = fix(x)\n")})
    project.run("rebase", "main", code=3)
    to_resolve(project).write_bytes(base.replace(b"y = 1", b"z = 3").replace(b"b(x):\n", b"b(x):\n    x = fix(x)\n"))
    done = project.run("rebase-continue")
    assert "patches/net.patch: upstream has such a line now: x = fix(x)" in done.stderr


def test_a_lock_changed_in_between_is_not_overwritten(stopped: Project) -> None:
    stopped.lock.write_text(stopped.lock.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    before = ours(stopped)
    to_resolve(stopped).write_bytes(EDITED[NET])
    assert "upstream.lock was changed since the rebase began" in stopped.run("rebase-continue", code=2).stderr
    assert ours(stopped) == before
    stopped.run("rebase-abort")


@pytest.mark.parametrize(
    "path", ["state.json", f"upstream/{NET}", f"before/upstream/{NET}", f"before/patched/{NET}", f"resolve/{NET}"]
)
@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_state_that_was_tampered_with_is_an_error_in_words(path: str, change: str, stopped: Project) -> None:
    target = stopped.root / "build" / "rebase" / path
    if change == "gone":
        target.unlink()
    else:
        target.write_bytes(b"{}")
    before = ours(stopped)
    done = stopped.run("rebase-continue", code=None)
    assert done.returncode in (2, 3)
    assert "error:" in done.stderr
    assert ours(stopped) == before
    stopped.run("rebase-abort")


@pytest.mark.parametrize("value", ["../victim.py", "{outside}/victim.py", "upstream.lock", ".git/x.py", ["x"]], ids=str)
@pytest.mark.parametrize(
    "place",
    ["patches 1 file", "patches 1 target", "patches 1 path", "moved 0 old", "moved 0 path", "added 0", "choices add"],
)
def test_a_state_that_somebody_bent_leads_nowhere_else(
    place: str, value: str | list[str], project: Project, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    write(outside, {"victim.py": b"precious\n"})
    write(project.root, {"victim.py": b"precious\n"})
    project.run("vendor")
    project.advance({NET: CONFLICTS, NEW: b"NEW = 1\n"})
    project.run("rebase", "main", code=3)
    to_resolve(project).write_bytes(EDITED[NET])
    state = project.root / "build/rebase/state.json"
    document = json.loads(state.read_text(encoding="utf-8"))
    *way, last = [int(word) if word.isdigit() else word for word in place.split()]
    inner = document
    for step in way:
        inner = inner[step]
    bent = value.format(outside=outside) if isinstance(value, str) else value
    # Dropped, a file of ours would be removed.
    document["choices"]["drop"] = [bent]
    inner[last] = [bent] if isinstance(inner[last], list) else bent
    state.write_text(json.dumps(document), encoding="utf-8")
    before = snapshot(tmp_path)
    done = project.run("rebase-continue", code=2)
    assert "cannot be read" in done.stderr
    assert snapshot(tmp_path) == before


def test_a_link_in_the_folder_of_a_rebase_is_not_followed(stopped: Project, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    shutil.rmtree(to_resolve(stopped).parent)
    to_resolve(stopped).parent.symlink_to(tmp_path / "outside")
    assert "is a link" in stopped.run("rebase-status", code=2).stderr
    assert list((tmp_path / "outside").iterdir()) == []
    stopped.run("rebase-abort")


def test_a_file_that_is_gone_takes_its_patch_along_only_when_told(project: Project) -> None:
    project.advance({NET: None, EXTRA: None, "models/beta/other.py": b"x = 1\n"})
    before = ours(project)
    done = project.run("rebase", "main", code=3)
    assert "patches/net.patch: models/beta/net.py is gone upstream" in done.stderr
    assert "models/alpha/extra.py: gone upstream" in done.stderr
    assert 'next: make rebase-continue DROP="patches/net.patch models/alpha/extra.py"' in done.stderr
    assert ours(project) == before
    assert "core.py" not in project.run("rebase-continue", "--drop", "extra.py", code=3).stderr
    # What was chosen once is remembered.
    done = project.run("rebase-continue", "--drop", "patches/net.patch", "--add", "other.py")
    assert "removed: patches/net.patch" in done.stdout
    in_order(project)
    assert [file.path for file in load(project.root).files] == [
        "models/alpha/__init__.py",
        CORE,
        "models/beta/__init__.py",
        "models/beta/other.py",
    ]


def test_a_component_that_has_nothing_left_is_a_problem_of_its_own(project: Project) -> None:
    project.advance({NET: None, "models/beta/__init__.py": None, "models/gamma/net.py": b"x = 1\n"})
    done = project.run("rebase", "main", "--drop", "net.patch", "--drop", "beta/__init__.py", code=3)
    assert "models/beta: none of its files is left" in done.stderr
    assert "make rebase-abort" in done.stderr


def test_what_upstream_has_made_binary_cannot_be_merged(project: Project) -> None:
    project.advance({NET: b"\0\1\2" * 50})
    done = project.run("rebase", "main", code=3)
    assert "patches/net.patch: models/beta/net.py cannot be merged, git takes it for no text" in done.stderr
    assert "cannot be merged" in project.run("rebase-status").stdout
    project.run("rebase-continue", "--drop", "net.patch")
    in_order(project)


def test_a_patched_file_renamed_while_another_looks_more_like_it_keeps_its_patch(project: Project) -> None:
    """Two pairs of renames, of which git's own merge of whole trees takes the wrong ones."""
    long = b"".join(b"ONE_%d = %d\n" % (number, number) for number in range(20)) + FILES[NET]
    other = long.replace(b"ONE_0", b"TWO_0")
    project.advance({NET: long, EXTRA: other})
    project.run("rebase", "main")
    # The one without a patch moves as it is, to a place that looks more like the other than the other's own does.
    less = long.replace(b"ONE_2", b"THREE_2").replace(b"ONE_3", b"THREE_3")
    project.advance({NET: None, EXTRA: None, "models/alpha/x.py": other, "models/beta/y.py": less})
    done = project.run("rebase", "main")
    assert "now models/beta/y.py" in done.stdout
    in_order(project)
    assert b"math.pi" in (project.tree / "models/beta/y.py").read_bytes()


def test_names_with_blanks_can_be_dropped(tmp_path: Path) -> None:
    project = make_project(tmp_path, {**FILES, "models/alpha/a b.py": b"x = 1\n"})
    project.advance({"models/alpha/a b.py": None})
    assert 'DROP="models/alpha/a b.py"' in project.run("rebase", "main", code=3).stderr
    project.run("rebase-continue", "--drop", "models/alpha/a b.py")
    in_order(project)


def test_the_command_that_is_offered_names_one_with_blanks_alone(tmp_path: Path) -> None:
    project = make_project(tmp_path, {**FILES, "models/alpha/a b.py": b"x = 1\n"})
    project.advance({"models/alpha/a b.py": None, EXTRA: None})
    said = project.run("rebase", "main", code=3).stderr
    offered = re.findall(r'next: make rebase-continue DROP="(.*)"', said)
    assert offered == [EXTRA, "models/alpha/a b.py"]
    project.run("rebase-continue", "--drop", offered[0], code=3)
    project.run("rebase-continue", "--drop", offered[1])
    in_order(project)


def test_offline_asks_no_network(project: Project) -> None:
    project.run("vendor")
    project.advance({EXTRA: b"x = 1\n"})
    done = project.run("rebase", "main", "--url", "http://127.0.0.1:9/x.git", "--offline", code=5)
    assert "is not asked, offline" in done.stderr
    text = project.lock.read_text(encoding="utf-8")
    before, head, after = text.partition("[baseline]")
    after = after.replace(project.upstream.as_uri(), "https://127.0.0.1:9/x.git", 1)
    project.lock.write_text(before + head + after, encoding="utf-8")
    project.advance({NEW: b"NEW = 1\n", NET: CONFLICTS})
    project.run("rebase", "main", "--offline", "--add", NEW, code=3)
    to_resolve(project).write_bytes(EDITED[NET])
    done = project.run("rebase-continue", "--offline")
    assert f"offline, what the baseline has of {NEW} stays unknown; make lock asks for it" in done.stderr
    assert "127.0.0.1" not in done.stderr
    project.run("vendor", "--offline")
    project.run("verify")


def test_offline_a_lost_pin_is_not_looked_for_over_a_network(project: Project, tmp_path: Path) -> None:
    project.run("vendor")
    copy = tmp_path / "copy"
    git("clone", "-q", project.upstream, copy, cwd=tmp_path)
    project.advance({EXTRA: b"x = 1\n"})
    git("pull", "-q", cwd=copy)
    text = project.lock.read_text(encoding="utf-8")
    project.lock.write_text(text.replace(project.upstream.as_uri(), "https://127.0.0.1:9/x.git"), encoding="utf-8")
    done = project.run("rebase", "main", "--url", copy.as_uri(), "--offline")
    assert "127.0.0.1" not in done.stderr


def test_a_tag_and_a_branch_of_one_name_are_told_apart(project: Project) -> None:
    first = project.advance({EXTRA: b"x = 1\n"})
    git("tag", "v2", cwd=project.upstream)
    git("checkout", "-q", "-b", "v2", cwd=project.upstream)
    second = project.advance({EXTRA: b"x = 2\n"})
    git("checkout", "-q", "main", cwd=project.upstream)
    project.run("rebase", "refs/tags/v2")
    assert (load(project.root).pin.commit, load(project.root).pin.branch) == (first, "main")
    project.run("rebase", "refs/heads/v2")
    assert (load(project.root).pin.commit, load(project.root).pin.branch) == (second, "v2")


def test_what_a_copy_gave_is_recorded_as_from_there(project: Project, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    project.advance({EXTRA: b"x = 1\n", NET: CONFLICTS})
    git("clone", "-q", project.upstream, copy, cwd=tmp_path)
    project.run("rebase", "main", "--upstream", copy, code=3)
    to_resolve(project).write_bytes(EDITED[NET])
    project.run("rebase-continue")
    project.run("vendor", "--offline")
    assert [row["source"] for row in project.json("vendor")["files"] if row["path"] == EXTRA] == ["UPSTREAM"]


def test_a_dropped_patch_is_called_so(project: Project) -> None:
    project.advance({EXTRA: b"x = 1\n"})
    done = project.run("rebase", "main", "--drop", "net.patch", "--dry-run")
    assert re.search(r"^patches/net.patch +dropped$", done.stdout, re.MULTILINE)


def test_the_id_of_an_annotated_tag_is_as_good_as_its_name(project: Project) -> None:
    tip = project.advance({EXTRA: b"x = 1\n"})
    git("tag", "-a", "v2", "-m", "two", cwd=project.upstream)
    project.run("rebase", git("rev-parse", "v2", cwd=project.upstream).strip())
    assert load(project.root).pin.commit == tip


def test_another_branch_at_the_same_commit_becomes_the_one_to_follow(project: Project) -> None:
    git("branch", "dev", cwd=project.upstream)
    project.run("rebase", "dev")
    assert load(project.root).pin.branch == "dev"


def test_choices_are_heard_even_with_nothing_to_do(project: Project) -> None:
    assert "nonsense.py is nothing to add" in project.run("rebase", "main", "--add", "nonsense.py", code=2).stderr
    report = project.json("rebase", "main")
    assert (report["finished"], report["changed"], report["written"]) == (True, False, [])
    assert report["from"] == report["to"]


def test_comments_in_the_lock_stay(project: Project) -> None:
    text = project.lock.read_text(encoding="utf-8")
    text = text.replace('    "core.py",', '    "core.py",  # the heart')
    text = text.replace('[[files]]\npath = "models/alpha/core.py"', '[[files]]\n# ours\npath = "models/alpha/core.py"')
    text = text.replace(
        '[[patches]]\nfile = "patches/net.patch"', '# The second.\n[[patches]]\nfile = "patches/net.patch"'
    )
    assert text.count("#") == 4
    project.lock.write_text(text, encoding="utf-8")
    project.advance({EXTRA: None, "models/alpha/new.py": b"x = 1\n"})
    project.run("rebase", "main", "--drop", EXTRA, "--add", "new.py")
    now = project.lock.read_text(encoding="utf-8")
    for comment in ("# the heart", "# ours", '# The second.\n[[patches]]\nfile = "patches/net.patch"'):
        assert comment in now
    in_order(project)


def test_what_upstream_has_taken_over_is_offered_to_be_dropped(project: Project) -> None:
    project.advance({NET: EDITED[NET]})
    done = project.run("rebase", "main", code=3)
    assert "upstream has it already" in done.stderr
    project.run("rebase-abort")
    project.run("rebase", "main", "--drop", "net.patch")
    in_order(project)


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ({NET: MERGES}, []),
        ({NET: CONFLICTS}, []),
        ({NET: None}, []),
        ({NET: None}, ["--drop", "net.patch"]),
        ({NET: EDITED[NET]}, []),
        ({EXTRA: b"x = 1\n"}, ["--add", "nothing.py"]),
    ],
)
def test_a_dry_run_writes_nothing_and_exits_as_the_real_one(
    files: dict[str, bytes | None], options: list[str], project: Project
) -> None:
    project.advance(files)
    before = snapshot(project.root)
    dry = project.run("rebase", "main", *options, "--dry-run", code=None)
    assert snapshot(project.root) == before
    assert not (project.root / "build").exists()
    real = project.run("rebase", "main", *options, code=None)
    assert dry.returncode == real.returncode
    if dry.returncode == 0:
        assert (
            dry.stdout.replace("would write", "written").replace("would remove", "removed").splitlines()[:-1]
            == (real.stdout.splitlines()[:-2])
        )


@pytest.fixture
def packaged(project: Project, tmp_path: Path) -> Project:
    """A project with pieces for every file, from a wheel that has another version of net.py as well."""
    files = {f"{number}.py": data for number, data in enumerate([*FILES.values(), MERGES])}
    table = wheel_table("mini", "1.0", make_wheel(tmp_path / "wheels", "mini", "1.0", files))
    project.sources(['kind = "git"', 'kind = "index"\n\n' + table])
    project.env |= pip_environment(tmp_path / "wheels")
    project.run("lock")
    assert all(file.pieces for file in load(project.root).files)
    return project


def test_the_pieces_of_what_changed_are_found_anew_and_what_has_none_is_said(packaged: Project) -> None:
    before = {file.path: file.pieces for file in load(packaged.root).files}
    packaged.advance({NET: MERGES, EXTRA: b"\xe2\x82\xac = 'in no wheel'\n"})
    done = packaged.run("rebase", "main")
    assert f"warning: a package index alone does not give {EXTRA}: not in 400 pieces" in done.stderr
    after = {file.path: file.pieces for file in load(packaged.root).files}
    changed = {NET: f"mini:5.py | a0+{len(MERGES)}", EXTRA: ""}
    assert after == {**before, **changed}
    in_order(packaged)


def test_a_renamed_file_keeps_its_pieces_and_no_index_is_asked(packaged: Project, tmp_path: Path) -> None:
    pieces = next(file.pieces for file in load(packaged.root).files if file.path == EXTRA)
    shutil.rmtree(tmp_path / "wheels")
    packaged.advance({EXTRA: None, "models/alpha/more.py": FILES[EXTRA]})
    done = packaged.run("rebase", "main")
    assert "index" not in done.stderr
    assert [file.pieces for file in load(packaged.root).files if file.path == "models/alpha/more.py"] == [pieces]


@pytest.mark.parametrize("why", ["offline", "no wheel", "another wheel"])
def test_without_the_wheels_a_rebase_goes_on_and_says_what_was_not_looked_for(
    why: str, packaged: Project, tmp_path: Path
) -> None:
    packaged.run("vendor")
    packaged.advance({NET: MERGES})
    if why == "no wheel":
        shutil.rmtree(tmp_path / "wheels")
    if why == "another wheel":
        make_wheel(tmp_path / "wheels", "mini", "1.0", {"x.py": MERGES})
    done = packaged.run("rebase", "main", *(["--offline"] if why == "offline" else []))
    assert ("mini==1.0 is not the wheel that was locked" in done.stderr) == (why == "another wheel")
    said = f"warning: a package index alone does not give {NET}: not all wheels were there; make lock looks again"
    assert said in done.stderr
    assert [file.path for file in load(packaged.root).files if not file.pieces] == [NET]


def test_raw_urls_of_all_forms_follow_to_another_repository(project: Project, tmp_path: Path) -> None:
    """A file URL has no owner and name that a raw URL could hold, so git is told where these two are."""
    places = {"https://example.org/one/models.git": project.upstream, "https://example.org/two/copy": tmp_path / "fork"}
    git("clone", "-q", project.upstream, tmp_path / "fork", cwd=tmp_path)
    write(tmp_path / "fork", {EXTRA: b"x = 1\n"})
    git("commit", "-q", "-a", "-m", "a fork", cwd=tmp_path / "fork")
    lines = [f'[url "{path.as_uri()}"]\n\tinsteadOf = {url}\n' for url, path in places.items()]
    (tmp_path / "gitconfig").write_text("".join(lines))
    project.env |= {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    forms = ("https://raw.example.org/{}/{{commit}}/{{path}}", "https://cdn.example.org/gh/{}@{{commit}}/{{path}}")
    project.sources(['kind = "git"', *(f'kind = "raw"\nurl = "{form.format("one/models")}"' for form in forms)])
    text = project.lock.read_text(encoding="utf-8")
    project.lock.write_text(text.replace(project.upstream.as_uri(), "https://example.org/one/models.git"))
    project.run("rebase", "main", "--url", "https://example.org/two/copy")
    raw = [spec.url for spec in load(project.root).sources if isinstance(spec, RawSpec)]
    assert raw == [form.format("two/copy") for form in forms]


def test_documents_follow(project: Project) -> None:
    document = project.root / "README.md"
    document.write_text("<!-- computed: pins -->\n<!-- end -->\n", encoding="utf-8")
    project.run("lint", "--write")
    tip = project.advance({EXTRA: b"x = 1\n"})
    assert "written: README.md" in project.run("rebase", "main").stdout
    assert tip in document.read_text(encoding="utf-8")


def test_the_users_trees_and_repositories_are_not_touched(stopped: Project) -> None:
    git("init", "-q", cwd=stopped.root)
    (stopped.root / ".gitignore").write_text("/build/\n")
    git("add", "-A", cwd=stopped.root)
    git("commit", "-q", "-m", "ours", cwd=stopped.root)
    tree, upstream = snapshot(stopped.tree), snapshot(stopped.upstream)
    to_resolve(stopped).write_bytes(EDITED[NET])
    stopped.run("rebase-continue")
    assert git("status", "--porcelain", cwd=stopped.root).split() == ["M", "patches/net.patch", "M", "upstream.lock"]
    assert git("log", "--oneline", cwd=stopped.root).count("\n") == 1
    assert (snapshot(stopped.tree), snapshot(stopped.upstream)) == (tree, upstream)


@pytest.mark.parametrize("verb", ["rebase", "rebase-continue"])
def test_a_run_killed_at_any_step_is_all_or_nothing(verb: str, project: Project) -> None:
    if verb == "rebase":
        project.advance({NET: MERGES, EXTRA: b"x = 1\n"})
        words = ["rebase", "main"]
    else:
        project.advance({NET: CONFLICTS})
        project.run("rebase", "main", code=3)
        to_resolve(project).write_bytes(EDITED[NET])
        words = ["rebase-continue"]
    shutil.copytree(project.root, project.root.with_name("began"))
    before = ours(project)
    whole = killed(project, 10_000, *words)
    assert whole.returncode == 0, whole.stderr
    after = ours(project)
    steps = 10_000 - int(whole.stdout.split()[-1])
    outcomes = set()
    # Most steps are in the scratch folders of the proof; the last ones matter most.
    for at in [*range(0, steps - 18, 20), *range(max(0, steps - 18), steps)]:
        shutil.rmtree(project.root)
        shutil.copytree(project.root.with_name("began"), project.root)
        # The first run filled the store, so that the others have less to do.
        assert killed(project, at, *words).returncode in (-signal.SIGKILL, 0)
        project.run("rebase-status")
        assert ours(project) in (before, after), at
        outcomes.add(ours(project) == after)
        if ours(project) == before and at % 5 == 0:
            project.run(*words)
            assert ours(project) == after
    assert outcomes == {False, True}


def test_a_run_killed_while_it_stops_at_a_conflict_stands_or_never_was(project: Project) -> None:
    project.advance({NET: CONFLICTS})
    whole = killed(project, 10_000, "rebase", "main")
    steps = 10_000 - int(whole.stdout.split()[-1])
    project.run("rebase-abort")
    before = ours(project)
    for at in range(max(0, steps - 8), steps):
        assert killed(project, at, "rebase", "main").returncode in (-signal.SIGKILL, 3)
        if project.json("rebase-status")["under_way"]:
            to_resolve(project).write_bytes(EDITED[NET])
            assert not project.json("rebase-status")["to_decide"]
            project.run("rebase-abort")
        assert ours(project) == before


def test_ctrl_c_ends_it_in_one_line(project: Project) -> None:
    project.advance({NET: MERGES})
    # A remote that never answers.
    command = [str(Path(os.sys.executable)), "-m", "tools", "--root", str(project.root), "rebase", "main"]
    fake = project.root / "ssh"
    fake.write_text("#!/bin/sh\nsleep 60\n")
    fake.chmod(0o755)
    process = subprocess.Popen(
        [*command, "--url", "ssh://example.invalid/x.git"],
        env={**os.environ, "GIT_SSH": str(fake), "GIT_SSH_VARIANT": "ssh"},
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; nothing is left half-written"
    assert not (project.root / "build").exists()


@pytest.mark.parametrize(
    ("base", "old", "new", "result", "lost"),
    [
        ("a\nb\n", "a\nx\nb\n", "a\nb\nc\n", "a\nx\nb\nc\n", []),
        ("a\nb\n", "a\nx\nb\n", "a\nb\nc\n", "a\nb\nc\n", ["x"]),
        # Upstream has it now.
        ("a\nb\n", "a\nx\nb\n", "x\na\nb\n", "x\na\nb\n", []),
        # There were others of its kind.
        ("x\nb\n", "x\nx\nb\n", "x\nb\nc\n", "x\nb\nc\n", ["x"]),
        ("x\nb\n", "x\nx\nx\nb\n", "x\nb\nc\n", "x\nx\nb\nc\n", ["x"]),
        # Only moved.
        ("x\nb\n", "b\nx\n", "x\nb\nc\n", "b\nc\n", ["x"]),
        ("x\nb\n", "b\nx\n", "x\nb\nc\n", "b\nx\nc\n", []),
        ("x\nx\nb\n", "x\nb\nx\n", "x\nx\nb\nc\n", "x\nb\nc\n", ["x"]),
        # Another indentation is another line.
        ("a\n", "a\n  x\n", "a\nb\n", "a\nx\nb\n", ["  x"]),
        # Blanks have nothing to lose.
        ("a\n", "a\n\n  \n", "a\nb\n", "a\nb\n", []),
    ],
)
def test_every_added_line_is_accounted_for(base: str, old: str, new: str, result: str, lost: list[str]) -> None:
    added = [line for line in old.split("\n") if old.split("\n").count(line) >= base.split("\n").count(line)]
    assert list(accounted(added, *(text.encode() for text in (base, old, new, result)))[0]) == lost


def test_a_line_that_upstream_brings_itself_is_said_to_be_taken_over() -> None:
    assert accounted(["x"], b"a\nb\n", b"a\nx\nb\n", b"x\na\nb\n", b"x\na\nb\n") == ((), ("x",))
    assert accounted(["x"], b"a\nb\n", b"a\nx\nb\n", b"x\na\nb\n", b"x\na\nx\nb\n") == ((), ())


def test_markers_that_were_meant_are_none() -> None:
    title = b"Title\n=======\n"
    assert markers(title, [title]) == []
    assert markers(title, []) == [2]
    assert markers(b"a\n<<<<<<< upstream\nb\n||||||| 1\n=======\nc\n>>>>>>> p\n", [title]) == [2, 4, 7]
    assert markers(b"a\n<<<<<<< upstream\r\n=======\r\n", []) == [2, 3]
