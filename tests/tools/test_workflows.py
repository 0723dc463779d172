"""What GitHub is asked to run: only what there is (zizmor looks after rights and pins); and the issue that it opens."""

import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project

SCRIPT = ROOT / ".github" / "outdated_issue.py"
NET = "models/beta/net.py"


def test_every_job_ends_and_every_command_is_one_that_there_is() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    paths = (ROOT / ".github" / "workflows").glob("*.yml")
    workflows = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    assert all(workflow["concurrency"]["group"] for workflow in workflows)
    jobs = [job for workflow in workflows for job in workflow["jobs"].values()]
    assert all(0 < job["timeout-minutes"] <= 60 for job in jobs)
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    for command in commands:
        match shlex.split(command.partition("||")[0]):
            case ["make", target]:
                assert target in targets
            case ["python", "-m", "pip", "install", *rest]:
                files = [word for option, word in pairwise(rest) if option in ("-r", "-c")]
                assert all((ROOT / file).is_file() for file in files)
                assert files or rest[-1] in (ROOT / "requirements/models.txt").read_text(encoding="utf-8").splitlines()
            case ["python", "-m", "tools", verb, *_]:
                assert subprocess.run([sys.executable, "-m", "tools", verb, "--help"], cwd=ROOT).returncode == 0
            case ["python", "-m", "pytest"]:
                pass
            case ["python", script, "<", "outdated.json"]:
                assert (ROOT / script) == SCRIPT
            case other:
                pytest.fail(f"who checks {other}?")
    assert {"python -m tools vendor", "python -m tools verify", "python -m pytest"} <= {*commands}


def test_the_commands_for_a_system_without_make_run_on_all_three() -> None:
    told = re.findall(r"^    (python -m .+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for step in workflow["jobs"]["suite"]["steps"] if "run" in step]
    assert len(told) == 3
    assert commands[:3] == told


# A `gh` that keeps its issues in a file and knows no option beyond those of the real one that are used.
GH = """#!{python}
import argparse, json, sys
from pathlib import Path
state = Path({state!r})
issues = json.loads(state.read_text())
verb, *rest = sys.argv[2:]
parser = argparse.ArgumentParser()
for option in {{"list": ["--state", "--limit", "--json"], "create": ["--title", "--body-file"],
               "edit": ["number", "--body-file"], "close": ["number", "--comment"]}}[verb]:
    parser.add_argument(option, required=True) if option.startswith("-") else parser.add_argument(option, type=int)
given = parser.parse_args(rest)
if verb == "list":
    print(json.dumps([{{name: issue[name] for name in given.json.split(",")}} for issue in issues if issue["open"]]))
elif verb == "create":
    issues.append({{"number": len(issues) + 1, "title": given.title, "body": sys.stdin.read(), "open": True,
                   "author": {{"is_bot": True, "login": "app/github-actions"}}}})
    print("https://example.org/" + str(len(issues)))
elif verb == "edit":
    issues[given.number - 1]["body"] = sys.stdin.read()
else:
    issues[given.number - 1]["open"] = False
state.write_text(json.dumps(issues))
"""


class GitHub:
    """The issues of a repository, with a `gh` for them."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.state = folder / "bin", folder / "issues.json"
        self.bin.mkdir()
        gh = self.bin / "gh"
        gh.write_text(GH.format(python=sys.executable, state=str(self.state)), encoding="utf-8")
        gh.chmod(0o755)
        self.issues = []

    @property
    def issues(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.state.read_text(encoding="utf-8"))
        return found

    @issues.setter
    def issues(self, value: list[dict[str, Any]]) -> None:
        self.state.write_text(json.dumps(value), encoding="utf-8")

    def told(self, report: str, code: int = 0, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, SCRIPT, *arguments],
            input=report,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"},
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def github(tmp_path: Path) -> GitHub:
    if os.name == "nt":
        pytest.skip("the stand-in for gh is a script")
    return GitHub(tmp_path)


def test_one_issue_is_opened_kept_up_to_date_and_closed(project: Project, github: GitHub) -> None:
    def outdated(code: int) -> str:
        return project.run("outdated", "--json", code=code).stdout

    person = {"is_bot": False, "login": "somebody"}
    foreign = {"number": 1, "title": "Patches no longer apply to upstream", "body": "", "open": True, "author": person}
    github.issues = [foreign]
    assert github.told(outdated(0)) == "nothing to tell\n"
    project.advance({NET: b"# Shapes.\n" + FILES[NET]}, "Only near it")
    assert github.told(outdated(1)) == "nothing to tell\n"
    assert github.issues == [foreign]

    tip = project.advance({NET: FILES[NET].replace(b"3.14 * r", b"3.1416 * r")}, "cc @everyone <b>")
    assert github.told(outdated(1)) == "https://example.org/2\n"
    issue = github.issues[1]
    assert issue["title"] == "Patches no longer apply to upstream"
    assert f"- `patches/net.patch`: conflicts with what upstream changed (`{NET}`)\n" in issue["body"]
    assert f"`make rebase TO={tip} DRY_RUN=1`" in issue["body"]
    assert "core.patch" not in issue["body"]
    assert "@" not in issue["body"]
    assert github.told(outdated(1)) == "issue 2 says so already\n"

    project.advance({NET: None}, "Gone")
    assert github.told(outdated(1)) == "brought issue 2 up to date\n"
    assert "its file is gone upstream" in github.issues[1]["body"]

    project.advance({NET: EDITED[NET]}, "As we have it")
    github.told(outdated(1))
    assert "upstream has taken it over" in github.issues[1]["body"]

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


def test_lost_lines_and_files_that_are_gone_are_told(github: GitHub) -> None:
    lost = {**REPORT, "patches": [{**REPORT["patches"][0], "lost": ["x = 1"]}]}
    assert "merges, and loses 1 of the lines" in github.told(json.dumps(lost), 0, "--dry-run")
    gone = {**REPORT, "files": [{"path": "q`@x\n.py", "outcome": "gone"}]}
    assert "- `q'@x .py`: a pinned file that is gone" in github.told(json.dumps(gone), 0, "--dry-run")
    assert github.told(json.dumps(REPORT), 0, "--dry-run") == "nothing to tell\n"
    assert github.issues == []


@pytest.mark.parametrize("report", ["", "[]", "{}", '{"ok": false, "exit_code": 5}', json.dumps({**REPORT, "pin": 3})])
def test_what_is_no_report_opens_nothing(report: str, github: GitHub) -> None:
    lost = report.replace('"lost": []', '"lost": ["x"]')
    assert "error: no report of" in github.told(lost, 2)
    assert github.issues == []


def test_when_gh_fails_the_job_fails(github: GitHub) -> None:
    github.state.unlink()
    github.told(json.dumps(REPORT), 1)
