"""Tests that workflows run only commands that exist, and the issue that one of them opens."""

import importlib
import io
import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, NET, Project
from tools.cli import cli

SCRIPT = ROOT / ".github" / "outdated_issue.py"


def test_every_job_has_a_time_limit_and_every_command_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    paths = (ROOT / ".github" / "workflows").glob("*.yml")
    workflows = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    assert all(workflow["concurrency"]["group"] for workflow in workflows)
    jobs = [job for workflow in workflows for job in workflow["jobs"].values()]
    assert all(0 < job["timeout-minutes"] <= 60 for job in jobs)
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    for words in (shlex.split(command.partition("||")[0]) for command in commands):
        files = [file for option, file in pairwise(words) if option in ("-r", "-c", "<")]
        assert all((ROOT / file).is_file() or file == "outdated.json" for file in files)
        if words[0] == "make":
            assert words[1] in targets
        elif words[:3] == ["python", "-m", "tools"]:
            assert words[3] in cli.commands
        else:
            assert words[:3] in (["python", "-m", "pip"], ["python", "-m", "pytest"]) or ROOT / words[1] == SCRIPT
    assert {"python -m tools vendor", "python -m tools verify", "python -m pytest"} <= {*commands}


def test_ci_runs_readmes_commands_without_make() -> None:
    told = re.findall(r"^    (python -m .+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for step in workflow["jobs"]["suite"]["steps"] if "run" in step]
    assert len(told) == 3
    assert commands[:3] == told


class GitHub:
    """A stand-in for `subprocess` with a `gh` that keeps the issues of a repository."""

    PIPE, CalledProcessError = subprocess.PIPE, subprocess.CalledProcessError

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.syspath_prepend(SCRIPT.parent)
        self.script = importlib.import_module(SCRIPT.stem)
        monkeypatch.setattr(self.script, "subprocess", self)
        self.patch, self.capsys, self.issues = monkeypatch, capsys, list[dict[str, Any]]()

    def run(self, command: list[str], input: str, **_: Any) -> "subprocess.CompletedProcess[str]":
        said = ""
        match command:
            case ["gh", "issue", "list", "--state", "open", "--limit", _, "--json", _]:
                said = json.dumps([issue for issue in self.issues if issue["open"]])
            case ["gh", "issue", "create", "--title", title, "--body-file", "-"]:
                self.issues.append({**ISSUE, "number": len(self.issues) + 1, "title": title, "body": input})
                said = f"https://example.org/{len(self.issues)}\n"
            case ["gh", "issue", "edit", number, "--body-file", "-"]:
                self.issues[int(number) - 1]["body"] = input
            case ["gh", "issue", "close", number, "--comment", _]:
                self.issues[int(number) - 1]["open"] = False
            case _:
                raise AssertionError(command)
        return subprocess.CompletedProcess(command, 0, said)

    def told(self, report: str, code: int = 0, *arguments: str) -> str:
        """The output of the script for `report`; checks its exit code."""
        self.patch.setattr("sys.stdin", io.StringIO(report))
        assert self.script.main(arguments) == code
        return "".join(self.capsys.readouterr())


ISSUE = {"title": "Patches no longer apply to upstream", "open": True, "author": {"login": "app/github-actions"}}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> GitHub:
    return GitHub(monkeypatch, capsys)


def test_one_issue_is_opened_updated_and_closed(project: Project, github: GitHub) -> None:
    def outdated(code: int) -> str:
        return project.run("outdated", "--json", code=code).stdout

    foreign = {**ISSUE, "number": 1, "body": "", "author": {"login": "somebody"}}
    github.issues = [foreign]
    assert github.told(outdated(0)) == "nothing to report\n"
    project.advance({NET: b"# Shapes.\n" + FILES[NET]}, "Only near it")
    assert github.told(outdated(1)) == "nothing to report\n"
    assert github.issues == [foreign]
    tip = project.advance({NET: FILES[NET].replace(b"3.14 * r", b"3.1416 * r")}, "cc @everyone <b>")
    assert github.told(outdated(1)) == "https://example.org/2\n"
    issue = github.issues[1]
    assert issue["title"] == ISSUE["title"]
    assert f"- `patches/net.patch`: conflicts with what upstream changed (`{NET}`)\n" in issue["body"]
    assert f"`make rebase TO={tip} DRY_RUN=1`" in issue["body"]
    assert "core.patch" not in issue["body"]
    assert "@" not in issue["body"]
    assert github.told(outdated(1)) == "issue 2 is up to date\n"

    project.advance({NET: None}, "Gone")
    assert github.told(outdated(1)) == "updated issue 2\n"
    assert "its file is gone upstream" in github.issues[1]["body"]

    project.advance({NET: EDITED[NET]}, "As we have it")
    github.told(outdated(1))
    assert "upstream has this change now" in github.issues[1]["body"]

    project.advance({NET: FILES[NET]}, "Back")
    assert github.told(outdated(1)) == "closed issue 2\n"
    assert [issue["open"] for issue in github.issues] == [True, False]
    assert len(github.issues) == 2


REPORT: dict[str, Any] = {
    "current": False,
    "pin": {"commit": "a" * 40, "date": "2026-01-02T03:04:05Z"},
    "newest": {"commit": "b" * 40, "date": "2026-01-03T03:04:05Z", "branch": "main"},
    "commits": [{}],
    "patches": [{"file": "p.patch", "target": "p.py", "outcome": "merged", "lost": [], "note": ""}],
    "files": [{"path": "p.py", "outcome": "changed"}],
}


@pytest.mark.parametrize("report", ["", "[]", "{}", '{"ok": false, "exit_code": 5}', json.dumps({**REPORT, "pin": 3})])
def test_only_what_has_to_be_decided_is_told_and_only_from_a_report(report: str, github: GitHub) -> None:
    assert "error: standard input is no report of" in github.told(report.replace('"lost": []', '"lost": ["x"]'), 2)
    lost = {**REPORT, "patches": [{**REPORT["patches"][0], "lost": ["x = 1"]}]}
    assert "merges, and loses 1 of the lines" in github.told(json.dumps(lost), 0, "--dry-run")
    gone = {**REPORT, "files": [{"path": "q`@x\n.py", "outcome": "gone"}]}
    assert "- `q'@x .py`: a pinned file that is gone" in github.told(json.dumps(gone), 0, "--dry-run")
    assert github.told(json.dumps(REPORT), 0, "--dry-run") == "nothing to report\n"
    assert github.issues == []


def test_when_gh_fails_the_job_fails(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit(4)"]
    monkeypatch.setattr(github, "run", lambda _, **named: subprocess.run(failing, **named))
    github.told(json.dumps(REPORT), 4)
