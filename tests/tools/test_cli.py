"""The command line itself: help, streams, exit codes, JSON; and the make targets, which are calls of it."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_tools
from tests.tools.conftest import FILES, Project, make_project
from tools import __version__
from tools.__main__ import cli, main
from tools.errors import EXIT_CODES

VERBS = list(cli.commands)
# A call of each verb that succeeds on a vendored project. `lint` and `lock` need no tree.
CALLS = {
    "vendor": ["vendor"],
    "verify": ["verify"],
    "diff": ["diff"],
    "status": ["status"],
    "clean": ["clean"],
    "audit": ["audit"],
    "apply": ["apply", "{upstream}", "{tmp}/out"],
    "refresh": ["refresh"],
    "lock": ["lock"],
    "lint": ["lint"],
    "outdated": ["outdated"],
    "rebase": ["rebase", "main"],
    "rebase-continue": ["rebase-continue"],
    "rebase-status": ["rebase-status"],
    "rebase-abort": ["rebase-abort"],
}


def call(verb: str, project: Project, tmp_path: Path) -> list[str]:
    return [word.format(upstream=project.upstream, tmp=tmp_path) for word in CALLS[verb]]


def test_help_lists_every_verb_and_every_exit_code() -> None:
    done = run_tools("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    words = " ".join(done.stdout.split())
    for verb in VERBS:
        assert re.search(rf"^  {verb} ", done.stdout, flags=re.MULTILINE)
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in words


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"Usage: python -m tools {verb} ")
    assert "--json" in said.out


def test_the_version_is_the_projects() -> None:
    done = run_tools("--version")
    assert (done.returncode, done.stdout) == (0, f"dsu-patches, version {__version__}\n")
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ["vender"],
        ["verify", "--fast"],
        ["verify", "extra"],
        ["diff", "--context", "-1"],
        ["diff", "--context", "three"],
        ["apply", "one"],
        ["--root", __file__, "verify"],
        [],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_exit_2_with_the_usage_on_standard_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Usage: python -m tools" in said.err


@pytest.mark.parametrize("verb", ["vendor", "verify", "apply", "refresh"])
def test_an_unknown_component_is_exit_2_and_the_known_ones_are_named(
    verb: str, vendored: Project, tmp_path: Path
) -> None:
    done = vendored.run(*call(verb, vendored, tmp_path), "--components", "alpha, gamma", code=2)
    assert "no component is called 'gamma'" in done.stderr
    assert "next: choose from: alpha, beta" in done.stderr


# Two that need a rebase under way are in test_rebase.py.
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("rebase-continue", "rebase-abort")])
def test_every_verb_reports_as_json_on_standard_output_alone(verb: str, vendored: Project, tmp_path: Path) -> None:
    done = vendored.run(*call(verb, vendored, tmp_path), "--json")
    report = json.loads(done.stdout)
    assert (report["schema"], report["verb"], report["ok"]) == (1, verb, True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["verify", "--dest", "/nowhere/at/all"], 1),
        (["verify", "--components", "gamma"], 2),
        (["verify", "--fast"], 2),
        (["vendor", "--offline", "--dest", "{tmp}/out"], 5),
    ],
)
def test_a_failure_is_told_on_standard_error_and_as_json(
    arguments: list[str], code: int, vendored: Project, tmp_path: Path
) -> None:
    shutil.rmtree(vendored.store)
    done = vendored.run(*(word.format(tmp=tmp_path) for word in arguments), "--json", code=code)
    report = json.loads(done.stdout)
    assert (report["schema"], report["ok"], report["exit_code"]) == (1, False, code)
    assert report["error"]
    assert report["error"] in done.stderr
    assert all(detail in done.stderr for detail in report["details"])
    assert all(f"next: {step}" in done.stderr for step in report["next"])


def test_the_findings_of_verify_are_in_its_json(vendored: Project) -> None:
    (vendored.tree / "models/beta/net.py").unlink()
    report = vendored.json("verify", code=1)
    assert report["findings"] == [{"kind": "missing", "path": "models/beta/net.py", "detail": ""}]


def test_progress_goes_to_standard_error_and_quiet_leaves_it_out(unfetched: Project) -> None:
    done = unfetched.run("vendor")
    assert "asking for 5 of 5 files" in done.stderr
    assert "asking for" not in done.stdout
    assert done.stdout.startswith("file ")
    shutil.rmtree(unfetched.store)
    shutil.rmtree(unfetched.tree)
    assert unfetched.run("--quiet", "vendor").stderr == ""


def test_errors_stay_with_quiet(unfetched: Project) -> None:
    assert "error: " in unfetched.run("--quiet", "verify", code=1).stderr


def test_a_list_of_words_may_be_given_in_any_way(vendored: Project) -> None:
    for words in (
        ["--components", "alpha beta"],
        ["--components", "alpha,beta"],
        ["--components", "", "--components", "beta"],
    ):
        assert vendored.json("verify", *words)["components"][-1] == "beta"


# What is not the tools' fault, and still no traceback.


@pytest.mark.parametrize("verb", VERBS)
def test_no_project_there_is_exit_2(
    verb: str, template: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path / "nowhere"), *call(verb, template, tmp_path)]) == 2
    assert f"there is no {tmp_path / 'nowhere' / 'upstream.lock'}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["vendor", "lint", "refresh", "status", "audit"])
def test_a_patch_file_that_is_a_folder_is_no_traceback(verb: str, vendored: Project) -> None:
    path = vendored.root / "patches" / "net.patch"
    path.unlink()
    path.mkdir()
    vendored.run(verb, code=0 if verb in ("status", "audit") else None)


@pytest.mark.parametrize("verb", ["vendor", "diff", "status", "refresh", "audit"])
def test_a_store_that_is_a_file_is_no_traceback(verb: str, vendored: Project) -> None:
    shutil.rmtree(vendored.store)
    vendored.store.write_bytes(b"")
    vendored.run(verb, code=2)
    vendored.env["DSU_PATCHES_STORE"] = str(vendored.store / "below")
    done = run_tools("--root", vendored.root, verb, env=vendored.env)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["vendor", "verify", "diff", "status", "clean", "refresh", "audit"])
def test_a_tree_that_is_a_file_is_no_traceback(verb: str, vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert vendored.run(verb, "--dest", tmp_path / "file", code=2).stdout == ""
    # Below a file; what a verb makes of that is its own.
    done = vendored.run(verb, "--dest", tmp_path / "file" / "below", code=None)
    assert done.returncode in (0, 1, 2)


@pytest.mark.parametrize("package", ["click", "unidiff", "git", "tomlkit"])
def test_a_missing_package_is_said(package: str, unfetched: Project, tmp_path: Path) -> None:
    text = f"raise ModuleNotFoundError('No module named {package}', name='{package}')\n"
    (tmp_path / f"{package}.py").write_text(text, encoding="utf-8")
    unfetched.env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    done = unfetched.run("lock", code=None)
    assert done.returncode != 0
    assert f"error: Python package '{package}' is not installed here" in done.stderr
    assert "next: make vendor" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("arguments", "code"), [(["status", "--json"], 0), (["verify", "--json", "--dest", "/nowhere"], 1)]
)
def test_a_standard_output_that_takes_nothing_is_no_traceback(
    arguments: list[str], code: int, unbuffered: str, vendored: Project
) -> None:
    words = [sys.executable, "-m", "tools", "--root", str(vendored.root), "--store", str(vendored.store), *arguments]
    for redirection, expected in ((">&-", code), ("| true", code), ("> /dev/full", code or 2)):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f'"$@" {redirection}', "bash", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "Exception ignored" not in done.stderr, done.stderr
        assert done.returncode == expected, (redirection, done.stderr)


def test_an_interrupt_is_exit_130(unfetched: Project, tmp_path: Path) -> None:
    started = tmp_path / "started"
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    script = f'case "$*" in *fetch*) touch {started}; exec sleep 60;; esac\nexec {shutil.which("git")} "$@"\n'
    wrapper.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
    wrapper.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-m", "tools", "--root", unfetched.root, "--store", unfetched.store, "vendor"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 20
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert "interrupted; nothing is left half-written" in said
    assert "Traceback" not in said
    assert not unfetched.tree.exists()


# make.

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)


def make(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment |= env or {}
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with nothing in it but the Makefile."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", [[], ["help"]], ids=["by default", "help"])
def test_make_help_has_one_line_a_target_and_needs_no_environment(arguments: list[str], copy: Path) -> None:
    done = make(*arguments, cwd=copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[1] for line in done.stdout.splitlines()] == TARGETS
    assert all(re.fullmatch(r"make [a-z-]+ +\S.*", line) for line in done.stdout.splitlines())
    assert [path.name for path in copy.iterdir()] == ["Makefile"]


def test_every_target_is_phony_and_every_phony_is_a_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(TARGETS)


def test_every_verb_that_make_calls_exists_with_the_options_it_gives() -> None:
    calls = re.findall(r"(?:\$\(TOOLS\)|-m tools) ([a-z-]+)((?:.*\\\n)*.*)", MAKEFILE)
    assert {verb for verb, _ in calls} >= {"vendor", "verify", "diff", "status", "clean", "refresh", "lock", "lint"}
    given = r"\$\(call (?:option|switch),([a-z-]+),|--([a-z]+)"
    variables = dict(re.findall(r"^([a-z]+) := (.*\$\(call .*)", MAKEFILE, flags=re.MULTILINE))
    for verb, rest in calls:
        text = rest + "".join(variables[name] for name in re.findall(r"\$\(([a-z]+)\)", rest))
        options = {f"--{one or other}" for one, other in re.findall(given, text)}
        known = {option for parameter in cli.commands[verb].params for option in parameter.opts}
        assert known >= options, verb
        assert options or verb in ("lint",), verb


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vendor"], "vendor"),
        (
            ["vendor", "DEST=a b", "COMPONENTS=alpha beta", "OFFLINE=1", "FORCE=1", "UPSTREAM=../x", "JSON=1"],
            'vendor --dest "a b" --components "alpha beta" --offline --force --upstream "../x" --json',
        ),
        (["vendor", "OFFLINE=0", "FORCE=0", "JSON=0"], "vendor"),
        (["diff", "CONTEXT=0", "FILE=core.py", "EXPORT=out"], 'diff --context "0" --file "core.py" --export "out"'),
        (["docs"], "lint --write"),
        (["refresh", "ADOPT=a.py b.py", "DESCRIPTION=Why so."], 'refresh --adopt "a.py b.py" --description "Why so."'),
        (["outdated", "UPSTREAM=../x"], 'outdated --upstream "../x"'),
        (
            ["rebase", "TO=v2", "URL=u", "ADD=a", "DROP=b c", "ALLOW_LOSS=1", "DRY_RUN=1"],
            'rebase --url "u" --add "a" --drop "b c" --allow-loss --dry-run -- "v2"',
        ),
        (["rebase-continue", "DROP=x"], 'rebase-continue --drop "x"'),
        (
            ["audit", "TREE=../app", "BASELINE=main", "HTML=1", "CHECK=1", "DEST=there", "OFFLINE=1"],
            'audit --dest "there" --offline --tree "../app" --baseline "main" --html --check',
        ),
        (["audit", "HTML=0", "CHECK=0"], "audit"),
        (["verify", "DEST=there"], 'verify --dest "there"'),
    ],
)
def test_a_target_is_one_call_of_a_verb(arguments: list[str], expected: str, copy: Path) -> None:
    (copy / ".venv" / "tools").mkdir(parents=True)
    (copy / "requirements").mkdir()
    (copy / "requirements" / "tools.txt").touch()
    (copy / ".venv" / "tools" / "ready").touch()
    done = make("-n", *arguments, cwd=copy)
    assert done.returncode == 0, done.stderr
    assert shlex.split(done.stdout.replace("\\\n", " ")) == [
        ".venv/tools/bin/python",
        "-m",
        "tools",
        *shlex.split(expected),
    ]


ODD = """it's $5, "two" words; `touch x` $(touch x) ${HOME} $$ \\ * $(shell touch x) $("""


def test_what_a_variable_holds_reaches_the_verb_as_it_is(copy: Path) -> None:
    """Backticks are what anybody writes around a name in a description."""
    python = copy / ".venv" / "tools" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    python.chmod(0o755)
    (copy / "requirements").mkdir()
    (copy / "requirements" / "tools.txt").touch()
    (copy / ".venv" / "tools" / "ready").touch()
    # As a user's shell hands it to make, for which $ has a meaning that a command line has not.
    for words in (["refresh", "DESCRIPTION", "--description"], ["rebase", "TO", "--"], ["vendor", "DEST", "--dest"]):
        done = make(words[0], f"{words[1]}={ODD}", cwd=copy)
        said = json.loads(done.stdout)
        assert said[said.index(words[2]) + 1] == ODD
    assert not (copy / "x").exists()


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names are UTF-8 there, whatever the locale")
def test_a_path_that_the_locale_cannot_write_is_an_error_in_words(tmp_path: Path) -> None:
    project = make_project(tmp_path, {**FILES, "models/alpha/größe.py": b"x = 1\n"})
    project.env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = project.run("vendor", code=2)
    assert "in this locale's encoding, ascii" in done.stderr
    assert "next: choose a UTF-8 locale" in done.stderr


def test_a_url_of_the_environment_is_none_to_follow(copy: Path) -> None:
    (copy / "requirements").mkdir()
    (copy / "requirements" / "tools.txt").touch()
    (copy / ".venv" / "tools").mkdir(parents=True)
    (copy / ".venv" / "tools" / "ready").touch()
    done = make("-n", "rebase", "TO=main", cwd=copy, env={"URL": "https://example.org/x.git"})
    assert "--url" not in done.stdout
