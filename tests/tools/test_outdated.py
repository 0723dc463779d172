"""Tests `outdated`: upstream's commits since the pin, and what a rebase would merge."""

import attrs
import pytest

from tests.tools.conftest import EDITED, EXTRA, FILES, NET, Project, git, snapshot
from tools.lock import Pin, dump, load

NEW = "models/alpha/new.py"
# What upstream does to net.py, whose patch puts math.pi for 3.14.
MOVES = {
    "clean": (FILES[NET], "applies as it is"),
    "merged": (b"# Shapes.\n" + FILES[NET], "merges cleanly"),
    "conflict": (FILES[NET].replace(b"3.14 * r", b"3.1416 * r"), "conflicts"),
    "already upstream": (b"# Shapes.\n" + EDITED[NET], "already upstream"),
    "gone": (None, "gone upstream"),
}


def test_the_newest_commit_is_current(vendored: Project) -> None:
    assert vendored.run("outdated").stdout.startswith(f"current: the pin, {vendored.commit[:12]} of 2026-01-02")
    report = vendored.json("outdated")
    assert report["pin"]["commit"] == report["newest"]["commit"] == vendored.commit
    assert (report["current"], report["commits"], report["patches"], report["files"]) == (True, [], [], [])


@pytest.mark.parametrize("outcome", MOVES)
def test_the_outcome_of_a_rebase_is_reported_for_each_patch(outcome: str, project: Project) -> None:
    new, words = MOVES[outcome]
    tip = project.advance({NET: new, NEW: b"NEW = 1\n"}, "A change of theirs")
    before = snapshot(project.root)
    report = project.json("outdated", code=1)
    assert snapshot(project.root) == before
    assert (report["exit_code"], report["current"], report["diverged"], report["ahead"]) == (1, False, False, False)
    assert report["newest"]["commit"] == tip
    touched = [] if outcome == "clean" else [NET]
    assert [(it["subject"], it["touches"]) for it in report["commits"]] == [("A change of theirs", touched)]
    outcomes = {patch["file"]: patch["outcome"] for patch in report["patches"]}
    assert outcomes == {"patches/core.patch": "clean", "patches/net.patch": outcome}
    changed = {file["path"]: file["outcome"] for file in report["files"] if file["outcome"] != "same"}
    assert changed == ({} if outcome == "clean" else {NET: "gone" if new is None else "changed"})
    assert report["new_files"] == [NEW]
    [line] = [line for line in project.run("outdated", code=1).stdout.splitlines() if line.startswith("patches/net")]
    assert line.endswith(words)


def test_commits_are_listed_newest_first_with_a_mark_where_a_pinned_file_changes(project: Project) -> None:
    first = project.advance({"README": b"hello\n"}, "Say \x1b[31mhello")
    second = project.advance({EXTRA: None}, "Clean up")
    text = project.run("outdated", code=1).stdout
    assert f"*  {second[:12]}  2026-01-02  Clean up\n   {first[:12]}  2026-01-02  Say \\x1b[31mhello\n" in text


def test_a_pin_ahead_of_its_branch_and_a_rewritten_history_are_said(project: Project) -> None:
    project.advance({EXTRA: b"x = 1\n"})
    project.run("rebase", "--to", "main")
    git("reset", "-q", "--hard", "HEAD~1", cwd=project.upstream)
    report = project.json("outdated", code=1)
    assert (report["ahead"], report["diverged"], report["commits"]) == (True, False, [])
    git("commit", "-q", "--amend", "-m", "all anew", cwd=project.upstream)
    assert "is no part of main" in project.run("outdated", code=1).stdout


def test_an_unreachable_upstream_is_exit_5_with_a_next_step(project: Project) -> None:
    project.alone()
    assert "next: git config --global url.FOLDER.insteadOf " in project.run("outdated", code=5).stderr
    assert project.json("outdated", "--upstream", project.upstream.with_name("away"))["current"] is True


def test_offline_reads_only_local_repositories(project: Project) -> None:
    project.run("outdated", "--offline")
    lock, url = load(project.root), "https://127.0.0.1:9/x.git"
    project.decide(upstream=Pin(url, "main"))
    project.lock.write_bytes(dump(attrs.evolve(lock, pin=attrs.evolve(lock.pin, url=url))))
    assert f"{url} is not asked, offline" in project.run("outdated", "--offline", code=5).stderr
