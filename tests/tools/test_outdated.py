"""`outdated`: what upstream has that the pin has not, and what a rebase would meet."""

from pathlib import Path

import pytest

from tests.tools.conftest import EDITED, FILES, Project, git, snapshot

CORE, NET, EXTRA = "models/alpha/core.py", "models/beta/net.py", "models/alpha/extra.py"


def test_the_newest_commit_is_current(vendored: Project) -> None:
    done = vendored.run("outdated")
    assert done.stdout.startswith(f"current: the pin, {vendored.commit[:12]} of 2026-01-02, is the newest on main")
    report = vendored.json("outdated")
    assert report["current"] is True
    assert report["pin"]["commit"] == report["newest"]["commit"] == vendored.commit
    assert (report["commits"], report["patches"], report["files"], report["new_files"]) == ([], [], [], [])


# What upstream does to net.py, whose patch puts math.pi for 3.14 and is otherwise one line.
MOVES = {
    "clean": (FILES[NET], "applies as it is"),
    "merged": (b"# Shapes.\n" + FILES[NET], "merges cleanly"),
    "conflict": (FILES[NET].replace(b"3.14 * r * r", b"3.1416 * r * r"), "conflicts"),
    "already upstream": (b"# Shapes.\n" + EDITED[NET], "already upstream"),
    "gone": (None, "its file is gone"),
}


@pytest.mark.parametrize("outcome", MOVES)
def test_what_becomes_of_a_patch(outcome: str, project: Project) -> None:
    new, words = MOVES[outcome]
    tip = project.advance({NET: new, "models/alpha/new.py": b"NEW = 1\n"}, "A change of theirs")
    before = snapshot(project.root)
    report = project.json("outdated", code=1)
    assert snapshot(project.root) == before
    assert (report["ok"], report["exit_code"], report["current"], report["diverged"]) == (False, 1, False, False)
    assert report["newest"]["commit"] == tip
    touched = [] if outcome == "clean" else [NET]
    assert [(commit["subject"], commit["touches"]) for commit in report["commits"]] == [("A change of theirs", touched)]
    assert {patch["file"]: patch["outcome"] for patch in report["patches"]} == {
        "patches/core.patch": "clean",
        "patches/net.patch": outcome,
    }
    assert {file["path"]: file["outcome"] for file in report["files"] if file["outcome"] != "same"} == (
        {} if outcome == "clean" else {NET: "gone" if new is None else "changed"}
    )
    assert report["new_files"] == ["models/alpha/new.py"]
    done = project.run("outdated", code=1)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("patches/net.patch")]
    assert line.split("  ")[-1].strip() == words or words in line
    assert done.stderr.count("error") == 0


def test_several_commits_newest_first_and_one_deleted_file(project: Project) -> None:
    first = project.advance({"README": b"hello\n"}, "Say hello")
    second = project.advance({EXTRA: None}, "Clean up")
    report = project.json("outdated", code=1)
    assert [(commit["commit"], commit["touches"]) for commit in report["commits"]] == [(second, [EXTRA]), (first, [])]
    assert {"path": EXTRA, "outcome": "gone", "now": None, "note": ""} in report["files"]
    text = project.run("outdated", code=1).stdout
    assert f"* {second[:12]} 2026-01-02 Clean up\n  {first[:12]} 2026-01-02 Say hello\n" in text


def test_a_long_list_of_commits_is_cut_for_people_and_whole_for_scripts(project: Project) -> None:
    for number in range(23):
        git("commit", "-q", "--allow-empty", "-m", f"Number {number}", cwd=project.upstream)
    assert "  and 3 more\n" in project.run("outdated", code=1).stdout
    assert len(project.json("outdated", code=1)["commits"]) == 23


def test_a_rewritten_history_is_said(project: Project) -> None:
    git("commit", "-q", "--amend", "-m", "all anew", cwd=project.upstream)
    report = project.json("outdated", code=1)
    assert report["diverged"] is True
    assert {patch["outcome"] for patch in report["patches"]} == {"clean"}
    assert "the pin is no part of main, which was rewritten" in project.run("outdated", code=1).stdout


def test_upstream_names_a_copy_to_ask(project: Project, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    git("clone", "-q", project.upstream, copy, cwd=tmp_path)
    project.advance({NET: b"# theirs\n"})
    assert project.json("outdated", "--upstream", copy)["current"] is True
    assert project.json("outdated", code=1)["current"] is False


@pytest.mark.parametrize(("old", "new"), [("/upstream", "/nowhere"), ('branch = "main"', 'branch = "dev"')])
def test_an_upstream_that_cannot_be_asked_is_exit_5(old: str, new: str, vendored: Project) -> None:
    text = vendored.lock.read_text(encoding="utf-8")
    assert old in text
    vendored.lock.write_text(text.replace(old, new, 1), encoding="utf-8")
    done = vendored.run("outdated", code=5)
    assert "next:" in done.stderr


def test_a_file_that_left_its_component_is_gone_with_a_note(project: Project) -> None:
    body = b"".join(b"LINE_%d = %d\n" % (number, number) for number in range(20))
    project.advance({EXTRA: body})
    project.run("rebase", "main")
    project.advance({EXTRA: None, "lib/extra.py": body})
    [file] = [file for file in project.json("outdated", code=1)["files"] if file["outcome"] != "same"]
    assert file == {
        "path": EXTRA,
        "outcome": "gone",
        "now": None,
        "note": "moved to lib/extra.py, outside every component",
    }


def test_a_pin_ahead_of_its_branch_is_said(project: Project) -> None:
    project.advance({EXTRA: b"x = 1\n"})
    project.run("rebase", "main")
    git("reset", "-q", "--hard", "HEAD~1", cwd=project.upstream)
    report = project.json("outdated", code=1)
    assert (report["ahead"], report["diverged"], report["commits"]) == (True, False, [])


def test_a_subject_of_any_letters_is_shown_and_harmless(project: Project) -> None:
    project.advance({EXTRA: b"x = 1\n"}, "A \x01 bell \x07 and \x1b[31m red")
    [commit] = project.json("outdated", code=1)["commits"]
    assert commit["subject"] == "A ? bell ? and ?[31m red"
    assert commit["touches"] == [EXTRA]


def test_a_configuration_against_bare_repositories_is_no_matter(project: Project, tmp_path: Path) -> None:
    project.advance({EXTRA: b"x = 1\n"})
    (tmp_path / "config").write_text("[safe]\n\tbareRepository = explicit\n")
    project.env["GIT_CONFIG_GLOBAL"] = str(tmp_path / "config")
    assert len(project.json("outdated", code=1)["commits"]) == 1


def test_a_shallow_copy_tells_what_it_has(project: Project, tmp_path: Path) -> None:
    project.advance({EXTRA: b"x = 1\n"})
    tip = project.advance({EXTRA: b"x = 2\n"})
    git("clone", "-q", "--depth=1", project.upstream.as_uri(), tmp_path / "shallow", cwd=tmp_path)
    report = project.json("outdated", "--upstream", tmp_path / "shallow", code=1)
    assert report["newest"]["commit"] == tip
    assert (report["ahead"], report["diverged"], report["commits"]) == (False, None, None)
    text = project.run("outdated", "--upstream", tmp_path / "shallow", code=1).stdout
    assert "the commits between are unknown" in text
    assert "rewritten" not in text
    git("fetch", "-q", "--depth=3", "origin", cwd=tmp_path / "shallow")
    deeper = project.json("outdated", "--upstream", tmp_path / "shallow", code=1)
    assert (deeper["diverged"], len(deeper["commits"])) == (False, 2)
    assert {patch["outcome"] for patch in report["patches"]} == {"clean"}


def test_offline_asks_a_repository_on_this_machine_alone(project: Project) -> None:
    project.run("vendor")
    project.advance({EXTRA: b"x = 1\n"})
    assert len(project.json("outdated", "--offline", code=1)["commits"]) == 1
    text = project.lock.read_text(encoding="utf-8")
    project.lock.write_text(text.replace(project.upstream.as_uri(), "https://127.0.0.1:9/x.git"), encoding="utf-8")
    assert "is not asked, offline" in project.run("outdated", "--offline", code=5).stderr


def test_a_file_too_deep_for_python_is_no_traceback(project: Project) -> None:
    project.advance({NET: b"x = " + b"-" * 200_000 + b"1\n" + FILES[NET]})
    report = project.json("outdated", code=1)
    assert "merged" in {patch["outcome"] for patch in report["patches"]}
    project.run("rebase", "main")
