"""Tests `rebase`, which carries the patches to another commit of upstream, and its companions."""

import os
import re
import shutil
from pathlib import Path

import attrs
import pytest

from tests.tools.conftest import CORE, EDITED, EXTRA, FILES, NET, Project, dateless, git, make_project, snapshot, write
from tests.tools.test_refresh import FAULTY
from tools.lock import ABSENT, Pin, dump, load

NEW = "models/alpha/new.py"
MERGES = b"# Shapes.\n" + FILES[NET]
CONFLICTS = FILES[NET].replace(b"3.14 * r * r", b"3.1416 * r * r")
RESOLVED = EDITED[NET] + b"\n\nEXACT = True\n"
RENAMES: dict[str, bytes | None] = {NET: None, "models/beta/shapes.py": MERGES, EXTRA: None}
RENAMES["models/alpha/more.py"] = FILES[EXTRA]


def in_order(project: Project) -> dict[str, bytes]:
    """Check lock, patches and documents, and vendor again; the tree's files."""
    project.run("lint")
    shutil.rmtree(project.tree, ignore_errors=True)
    project.run("vendor")
    project.run("verify")
    return {path.relative_to(project.tree).as_posix(): path.read_bytes() for path in project.tree.rglob("*.py")}


def merge(project: Project, path: str = NET) -> Path:
    """A file in build/rebase."""
    return project.root / "build" / "rebase" / path


@pytest.fixture
def stopped(project: Project) -> Project:
    """A project whose rebase has stopped at a conflict in net.py."""
    project.advance({NET: CONFLICTS, EXTRA: b"x = 1\n", NEW: b"NEW = 1\n"})
    before = project.state()
    said = project.run("rebase", "--to", "main", code=3).stderr
    assert "patches/net.patch: models/beta/net.py: conflict markers on lines 5, 7, 11" in said
    assert project.state() == before
    return project


# --- Without a stop ---


def test_a_patch_of_an_unchanged_file_stays_byte_for_byte(project: Project) -> None:
    project.run("vendor")
    before = project.state()
    tip = project.advance({EXTRA: b"# something to see\n", "README": b"hello\n"})
    done = project.run("rebase", "--to", "main").stdout
    assert re.search(r"patches/net.patch +applies as it is", done)
    assert re.search(r"models/alpha/extra.py +changed upstream", done)
    assert f"the pin is {tip[:12]} of 2026-01-02\nnext: python -m tools vendor" in done
    assert {name for name, data in project.state().items() if data != before[name]} == {"upstream.lock"}
    said = project.run("verify", code=1).stderr
    assert f"built for {project.commit[:7]}, the lock now says {tip[:7]}" in said
    assert in_order(project)[EXTRA] == b"# something to see\n"
    assert not (project.root / "build" / "rebase").exists()
    assert f"nothing to do: the pin is {tip[:12]}" in project.run("rebase", "--to", "main").stdout


def test_a_file_that_does_not_exist_cannot_be_added(project: Project) -> None:
    project.advance({NEW: b"NEW = 1\n"})
    said = project.run("rebase", "--to", "main", "--add", "ther.py", code=2).stderr
    assert f"no new file is called ther.py\nnext: choose from: {NEW}" in said


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
def test_a_rebase_there_and_back_changes_only_dates(
    changes: dict[str, bytes | None], there: tuple[str, ...], back: tuple[str, ...], project: Project
) -> None:
    project.run("lock")
    before = dateless(project.root)
    tip = project.advance(changes)
    project.run("rebase", "--to", tip, *there)
    assert dateless(project.root) != before
    project.run("rebase", "--to", project.commit, *back)
    assert dateless(project.root) == before


def test_a_renamed_file_takes_its_patch_along_and_is_told_from_one_that_looks_like_it(project: Project) -> None:
    """Two pairs of renames, of which git's merge of whole trees would take the wrong ones."""
    long = b"".join(b"ONE_%d = %d\n" % (number, number) for number in range(20)) + FILES[NET]
    other = long.replace(b"ONE_0", b"TWO_0")
    project.advance({NET: long, EXTRA: other})
    project.run("rebase", "--to", "main")
    less = long.replace(b"ONE_2", b"THREE_2").replace(b"ONE_3", b"THREE_3")
    project.advance({NET: None, EXTRA: None, "models/alpha/x.py": other, "models/beta/y.py": less})
    assert "now models/beta/y.py" in project.run("rebase", "--to", "main").stdout
    tree = in_order(project)
    assert tree["models/beta/y.py"] == less.replace(b"3.14 ", b"math.pi ")
    # The baseline was asked for the new paths, and has neither.
    assert {file.path for file in load(project.root).files if file.baseline == ABSENT} == tree.keys() - FILES.keys()


def test_a_newline_that_upstream_puts_at_the_end_is_no_conflict(tmp_path: Path) -> None:
    project = make_project(tmp_path, edited={CORE: FILES[CORE] + b" * 1"})
    project.advance({CORE: FILES[CORE] + b"\n"})
    project.run("rebase", "--to", "main")
    assert in_order(project)[CORE] == FILES[CORE] + b" * 1\n"


def test_an_extras_patch_is_rebased_too(tmp_path: Path) -> None:
    project = make_project(tmp_path, extras={"exact": ["net.patch"]})
    project.advance({NET: MERGES})
    project.run("rebase", "--to", "main")
    assert in_order(project)[NET] == MERGES
    project.run("vendor", "--extras", "exact")
    assert (project.tree / NET).read_bytes() == b"# Shapes.\n" + EDITED[NET]


# --- Where to ---


def test_a_commit_may_be_named_by_branch_tag_or_id(vendored: Project, tmp_path: Path) -> None:
    copy = vendored.cloned(tmp_path / "copy")
    tip = copy.advance({EXTRA: b"x = 1\n"})
    git("tag", "-a", "v2", "-m", "two", cwd=copy.upstream)
    git("tag", "light", cwd=copy.upstream)
    tag = git("rev-parse", "v2", cwd=copy.upstream).strip()
    vendored.decide(upstream=Pin(copy.upstream.as_uri(), "main"))
    for name in ("v2", "light", tip, tip[:8], "refs/heads/main", tag):
        assert f"the pin would be {tip[:12]}" in vendored.run("rebase", "--to", name, "--dry-run").stdout
    for name in ("nothing", "0123abcd", "0" * 40, "--upload-pack=touch x", "", "*"):
        done = vendored.run("rebase", f"--to={name}", code=None)
        assert (done.returncode in (2, 5), "error:" in done.stderr) == (True, True), name


def test_another_branch_or_repository_is_followed_once_pyproject_names_it(project: Project, tmp_path: Path) -> None:
    fork = project.cloned(tmp_path / "fork")
    git("checkout", "-q", "-b", "dev/next", cwd=fork.upstream)
    fork.advance({EXTRA: b"x = 1\n"})
    project.decide(upstream=Pin(fork.upstream.as_uri(), "dev/next"))
    assert "next: python -m tools rebase --to dev/next  # follows" in project.run("vendor", code=2).stderr
    project.run("rebase", "--to", "dev/next")
    assert in_order(project)[EXTRA] == b"x = 1\n"
    assert project.json("outdated")["current"] is True


def test_a_commit_that_only_a_copy_has_gives_a_warning(project: Project, tmp_path: Path) -> None:
    project.cloned(tmp_path / "copy").advance({EXTRA: b"x = 1\n"}, "mine alone")
    said = project.run("rebase", "--to", "main", "--upstream", tmp_path / "copy").stderr
    assert "warning: others may not be able to fetch" in said
    project.advance({EXTRA: b"x = 2\n"})
    project.cloned(tmp_path / "fresh")
    assert "warning" not in project.run("rebase", "--to", "main", "--upstream", tmp_path / "fresh").stderr


def test_a_pin_that_upstream_deleted_can_be_left(project: Project) -> None:
    project.run("vendor")
    git("commit", "-q", "--amend", "-m", "all anew", cwd=project.upstream)
    git("reflog", "expire", "--expire=now", "--all", cwd=project.upstream)
    git("gc", "-q", "--prune=now", cwd=project.upstream)
    assert project.json("outdated", code=1)["commits"] is None
    project.run("rebase", "--to", "main")
    in_order(project)


# --- A stop ---


def test_a_resolved_rebase_continues_without_upstream(stopped: Project) -> None:
    assert "conflict markers" in stopped.run("rebase-continue", code=3).stderr
    assert "to decide:\n  patches/net.patch: models/beta/net.py: " in stopped.run("rebase-status").stdout
    merge(stopped).write_bytes(RESOLVED)
    assert "nothing is left to decide" in stopped.run("rebase-status").stdout
    stopped.upstream.rename(stopped.upstream.with_name("elsewhere"))
    shutil.rmtree(stopped.store)
    assert "written: patches/net.patch" in stopped.run("rebase-continue").stdout
    stopped.run("vendor", "--offline")
    assert (stopped.tree / NET).read_bytes() == RESOLVED
    assert stopped.run("rebase-status").stdout == "no rebase is under way\n"


def test_git_shows_the_conflict_and_its_commands_count(stopped: Project) -> None:
    assert re.search(rf"both modified: +{NET}", git("status", cwd=merge(stopped, ".")))
    merge(stopped).write_bytes(RESOLVED)
    git("add", NET, cwd=merge(stopped, "."))
    assert "nothing is left to decide" in stopped.run("rebase-status").stdout
    git("-c", "core.editor=true", "cherry-pick", "--continue", cwd=merge(stopped, "."))
    stopped.run("rebase-continue")
    assert in_order(stopped)[NET] == RESOLVED


def test_a_lost_line_stops_the_rebase_until_it_is_accepted(stopped: Project) -> None:
    # While there is a conflict, it accepts no loss.
    stopped.run("rebase-continue", "--allow-loss", code=3)
    merge(stopped).write_bytes(b"import math\n\n\ndef area(r):\n    return math.tau * r * r / 2\n")
    said = stopped.run("rebase-continue", code=3).stderr
    assert "patches/net.patch: lost: return math.pi * r * r" in said
    assert "next: python -m tools rebase-continue --allow-loss" in said
    said = stopped.run("rebase-continue", "--allow-loss").stderr
    assert "warning: patches/net.patch: lost: return math.pi * r * r" in said
    in_order(stopped)


LOSSES = [
    ("a\nb\n", "a\nx\nb\n", "A\nb\n", "A\nb\nc\n", 1),
    # Upstream has it now.
    ("a\nb\n", "a\nx\nb\n", "x\nA\nb\n", "x\nA\nb\nc\n", 0),
    # The file had that line before.
    ("x\na\n", "x\nx\nx\na\n", "x\nA\n", "x\nx\nA\n", 1),
    # The patch only moves it.
    ("x\na\nb\n", "a\nb\nx\n", "x\nA\nb\n", "A\nb\nc\n", 1),
    ("x\na\nb\n", "a\nb\nx\n", "x\nA\nb\n", "A\nb\nx\nc\n", 0),
]


def test_each_added_line_must_still_be_added_or_be_upstream_now(tmp_path: Path) -> None:
    def side(number: int) -> dict[str, bytes]:
        return {f"models/alpha/f{at}.py": str(case[number]).encode() for at, case in enumerate(LOSSES)}

    project = make_project(tmp_path, side(0), side(1))
    project.advance(side(2))
    project.run("rebase", "--to", "main", code=3)
    write(merge(project, "."), side(3))
    lines = project.run("rebase-status").stdout.splitlines()
    assert [line.strip() for line in lines if "lost" in line] == [
        f"patches/f{at}.patch: lost: x" for at, case in enumerate(LOSSES) if case[4]
    ]


def test_a_resolution_that_no_patch_may_make_is_refused(stopped: Project) -> None:
    for result, said in FAULTY.values():
        merge(stopped).write_bytes(result)
        assert said in stopped.run("rebase-continue", "--allow-loss", code=3).stderr


def test_a_patch_that_changes_nothing_is_dropped_only_when_told(stopped: Project) -> None:
    git("checkout", "--ours", NET, cwd=merge(stopped, "."))
    said = stopped.run("rebase-continue", code=3).stderr
    assert "patches/net.patch: changes nothing any more" in said
    assert "next: python -m tools rebase-continue --drop patches/net.patch" in said
    assert "removed: patches/net.patch" in stopped.run("rebase-continue", "--drop", "net.patch").stdout
    assert in_order(stopped)[NET] == CONFLICTS


def test_files_that_are_gone_are_dropped_only_when_told(project: Project) -> None:
    project.advance({NET: None, EXTRA: None, "models/beta/other.py": b"x = 1\n"})
    said = project.run("rebase", "--to", "main", code=3).stderr
    assert "patches/net.patch: models/beta/net.py is gone upstream" in said
    offered = re.search(r"rebase-continue --drop '(.*)'", said)
    assert offered
    assert set(offered[1].split()) == {"patches/net.patch", EXTRA}
    said = project.run("rebase-continue", "--drop", "extra.py", "--add", "other.py", code=3).stderr
    assert f"rebase-continue --drop '{EXTRA} patches/net.patch' --add other.py" in said
    done = project.run("rebase-continue", "--add", "other.py", "--drop", f"{EXTRA} patches/net.patch").stdout
    assert "removed: patches/net.patch" in done
    assert in_order(project).keys() == FILES.keys() - {NET, EXTRA} | {"models/beta/other.py"}


def test_a_moved_folder_needs_a_change_in_pyproject(project: Project) -> None:
    body = b"".join(b"LINE_%d = %d\n" % (number, number) for number in range(9))
    project.advance({EXTRA: body, NET: body + FILES[NET]})
    project.run("rebase", "--to", "main")
    git("mv", "models/beta", "shapes", cwd=project.upstream)
    project.advance({})
    said = project.run("rebase", "--to", "main", code=3).stderr
    assert "models/beta: its files are in shapes now" in said
    assert "next: edit pyproject.toml, [tool.vendor.components]" in said
    assert "drop" not in said.lower()
    text = (project.root / "pyproject.toml").read_text(encoding="utf-8")
    (project.root / "pyproject.toml").write_text(text.replace('"models/beta"', '"shapes"'), encoding="utf-8")
    project.run("rebase", "--to", "main")
    assert b"math.pi" in in_order(project)["shapes/net.py"]


def test_a_second_rebase_is_refused_until_the_first_is_aborted(stopped: Project) -> None:
    for to, net in (("main", CONFLICTS), ("HEAD~1", RESOLVED)):
        merge(stopped).write_bytes(net + b"<<<<<<< \n" * (to == "main"))
        before = stopped.state()
        assert "a rebase is under way" in stopped.run("rebase", "--to", to, code=2).stderr
        assert stopped.state() == before
    stopped.run("rebase-abort")
    for verb, said in (("rebase-abort", "nothing to abort"), ("rebase-continue", "no rebase is under way")):
        assert said in stopped.run(verb, code=2).stderr
    stopped.run("rebase", "--to", "main", code=3)


@pytest.mark.parametrize("name", ["upstream.lock", "patches/net.patch", "patches/core.patch"])
def test_edits_made_during_a_rebase_are_not_overwritten(name: str, stopped: Project) -> None:
    merge(stopped).write_bytes(RESOLVED)
    lock = load(stopped.root)
    text = (stopped.root / name).read_bytes().replace(b"Description: ", b"Description: Mine. ")
    sealed = dump(attrs.evolve(lock, pin=attrs.evolve(lock.pin, date="2026-01-01")))
    (stopped.root / name).write_bytes(sealed if name == "upstream.lock" else text)
    before = stopped.state()
    assert name in stopped.run("rebase-continue", code=None).stderr
    assert stopped.state() == before
    stopped.run("rebase-abort")


def test_what_was_chosen_once_is_remembered_and_shown(project: Project) -> None:
    project.advance({NET: CONFLICTS, NEW: b"x = 1\n"})
    project.run("rebase", "--to", "main", "--drop", "core.patch", "--add", "new.py", code=3)
    merge(project).write_bytes(RESOLVED)
    said = project.run("rebase-status").stdout
    assert re.search(r"core.patch +dropped", said)
    assert re.search(r"new.py +taken up", said)
    project.run("rebase-continue")
    assert (in_order(project)[CORE], NEW in in_order(project)) == (FILES[CORE], True)


def test_a_resolved_rebase_that_is_tried_out_writes_nothing(stopped: Project) -> None:
    merge(stopped).write_bytes(RESOLVED)
    before = stopped.state()
    assert "would write: patches/net.patch" in stopped.run("rebase", "--to", "main", "--dry-run").stdout
    assert stopped.state() == before
    stopped.run("rebase-continue")


def test_an_edit_of_a_file_without_a_patch_is_not_lost(stopped: Project) -> None:
    merge(stopped).write_bytes(RESOLVED)
    merge(stopped, EXTRA).write_bytes(b"x = 2\n")
    merge(stopped, NEW).write_bytes(b"NEW = 2\n")
    said = stopped.run("rebase-continue", "--add", "new.py", code=3).stderr
    assert all(f"{path}: was edited, and has no patch" in said for path in (EXTRA, NEW))


def test_decisions_that_do_not_touch_a_rebase_may_change_meanwhile(stopped: Project) -> None:
    merge(stopped).write_bytes(RESOLVED)
    stopped.decide(raw=["https://example.org/{path}"])
    stopped.run("rebase-continue")


def test_a_patch_that_a_killed_run_wrote_on_an_earlier_day_stays(stopped: Project) -> None:
    merge(stopped).write_bytes(RESOLVED)
    whole = stopped.lock.read_bytes()
    shutil.copytree(merge(stopped, "."), kept := stopped.root / "kept")
    stopped.run("rebase-continue")
    written = stopped.root / "patches/net.patch"
    written.write_bytes(re.sub(b"(?m)^Last-Update: .*", b"Last-Update: 2026-02-28", written.read_bytes()))
    stopped.lock.write_bytes(whole)
    kept.rename(merge(stopped, "."))
    assert "patches/net.patch" not in stopped.run("rebase-continue").stdout.partition("written:")[2]
    in_order(stopped)


def test_a_lock_from_elsewhere_does_not_end_a_rebase(stopped: Project, tmp_path: Path) -> None:
    shutil.copytree(stopped.root, tmp_path / "other")
    other = Project(tmp_path / "other", stopped.upstream, "", stopped.store)
    merge(other).write_bytes(RESOLVED)
    other.run("rebase-continue")
    for name in ("upstream.lock", "patches/net.patch"):
        shutil.copy(other.root / name, stopped.root / name)
    assert "put them back as they were" in stopped.run("rebase-status", code=2).stderr
    assert merge(stopped).exists()


def test_a_folder_that_is_no_rebase_leads_to_abort(project: Project) -> None:
    merge(project, ".").mkdir(parents=True)
    assert "tools rebase-abort" in project.run("rebase-status", code=2).stderr
    project.run("rebase-abort")


@pytest.mark.parametrize("net", [MERGES, CONFLICTS, None])
def test_a_dry_run_writes_nothing_and_reports_the_same(net: bytes | None, project: Project) -> None:
    project.advance({NET: net})
    before = snapshot(project.root)
    verb = ["rebase", "--to", "main", *([] if net else ["--drop", "net.patch"])]
    dry = project.run(*verb, "--dry-run", code=None)
    assert snapshot(project.root) == before
    real = project.run(*verb, code=dry.returncode)
    told = dry.stdout.replace("would write", "written").replace("would remove", "removed").splitlines()
    assert told[:-1] == real.stdout.splitlines()[: len(told) - 1]


def test_a_rebase_updates_documents_and_pieces(project: Project, tmp_path: Path) -> None:
    (project.root / "README.md").write_text("<!-- computed: pins -->\n<!-- end -->\n", encoding="utf-8")
    project.wheels(tmp_path / "index", {"parts==1.0": {"parts/all.py": FILES[NET] + FILES[EXTRA] + b"x = 1\n"}})
    tip = project.advance({EXTRA: b"x = 1\n", NET: b"y = 'nowhere else'\n" + FILES[NET]})
    said = project.run("rebase", "--to", "main").stderr
    assert re.search(f"the wheels do not have all of .*{NET}", said)
    assert tip in (project.root / "README.md").read_text(encoding="utf-8")
    pieces = {file.path: file.pieces for file in load(project.root).files}
    assert pieces[EXTRA]
    assert not pieces[NET]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("verb", ["rebase --to main", "refresh"])
def test_a_run_killed_at_any_rename_is_finished_by_the_same_verb(verb: str, project: Project, tmp_path: Path) -> None:
    (project.root / "MODEL_CHANGES.md").write_text("<!-- computed: patches -->\n<!-- end -->\n", encoding="utf-8")
    project.run("lock")
    project.run("vendor")
    project.advance({NET: MERGES, EXTRA: b"x = 1\n"})
    write(project.tree, {NET: RESOLVED})
    before, after = project.state(), {}
    renames, killed = 0, True
    while killed:
        run = project.copied(tmp_path / str(renames))
        killed = run.killed_at(renames, *verb.split())
        lock = run.lock.read_bytes()
        run.run(*verb.split())
        after = after or run.state()
        assert run.state() == after != before
        assert lock in (before["upstream.lock"], after["upstream.lock"])
        renames += 1
    assert renames > 4
