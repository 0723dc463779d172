"""Tests the command line and make: options, exit codes, JSON, and errors of users, disks and terminals."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, ran, run_tools
from tests.tools.conftest import CORE, Project, git, snapshot
from tools.cli import cli


@pytest.fixture
def workshop(vendored: Project) -> Project:
    """A project with a Makefile that uses the Python of the tests."""
    if os.name == "nt" or not shutil.which("make"):
        pytest.skip("needs make")
    shutil.copy(ROOT / "Makefile", vendored.root)
    for name in ("tools", "requirements"):
        (vendored.root / name).symlink_to(ROOT / name)
    python = vendored.root / ".venv/tools/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/usr/bin/env bash\nexec {shlex.join(vendored.command())} "${{@:3}}"\n')
    python.chmod(0o755)
    (vendored.root / ".venv/tools/ready").touch()
    return vendored


def make(project: Project, *words: str, cwd: Path | None = None, code: int = 0) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    folder = ["-C", project.root] if cwd else []
    done = ran("make", *folder, *words, cwd=cwd or project.root, env=environment)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def test_make_passes_values_unchanged_and_next_steps_repeat_them(workshop: Project, tmp_path: Path) -> None:
    for name in ("with blank", "$(shell touch x)", "it's", '"quoted"', "a;b", "$HOME", "`x`", "ünï"):
        make(workshop, "vendor", f"DEST={tmp_path / name}", "COMPONENTS=alpha beta")
        (tmp_path / name / CORE).unlink()
        said = make(workshop, "verify", f"DEST={tmp_path / name}", code=2).stderr
        assert f"next: make vendor DEST={shlex.quote(str(tmp_path / name))}  # makes the tree again" in said
    assert not (workshop.root / "x").exists()


def test_a_switch_may_be_off(workshop: Project) -> None:
    (workshop.tree / CORE).write_bytes(b"edit")
    for value in ("", "0", "no", "false", "off", "FALSE"):
        said = make(workshop, "clean", f"FORCE={value}", code=2).stderr
        assert "next: make clean FORCE=1  # removes them too" in said
    make(workshop, "clean", "FORCE=1")


@pytest.mark.parametrize(("value", "option"), [("it's a.html", r"--HTML='it'\''s a.html'"), ("no", ""), ("", "")])
def test_html_is_a_path_or_off(workshop: Project, value: str, option: str) -> None:
    assert make(workshop, "-n", "audit", f"HTML={value}").stdout.split("audit")[1].strip() == option


def test_torch_may_come_from_another_index(workshop: Project) -> None:
    said = make(workshop, "-n", "test", "TORCH_INDEX=https://example.org/it's").stdout
    assert said.count("--extra-index-url 'https://example.org/it'\\''s'") == 2


def test_an_unknown_variable_is_an_error_that_names_the_nearest(workshop: Project) -> None:
    before = snapshot(workshop.root)
    # Also one that another verb takes.
    for verb, wrong, right in (("vendor", "DST", "DEST"), ("vendor", "force", "FORCE"), ("clean", "DEST_", "DEST")):
        said = make(workshop, verb, f"{wrong}=1", code=2).stderr
        assert f"unknown variable {wrong}= for make {verb}; the nearest is {right}=" in said
    for verb, wrong in (("clean", "DRY_RUN"), ("verify", "EXTRAS")):
        assert f"unknown variable {wrong}= for make {verb}" in make(workshop, verb, f"{wrong}=1", code=2).stderr
    assert snapshot(workshop.root) == before


def test_make_prints_json_alone_and_keeps_the_order_of_targets(workshop: Project, tmp_path: Path) -> None:
    assert json.loads(make(workshop, "status", "JSON=1").stdout)["ok"]
    # Without -s, make prints that it enters a folder.
    assert json.loads(make(workshop, "-s", "status", "JSON=1", cwd=tmp_path).stdout)["ok"]
    shutil.rmtree(workshop.tree)
    done = make(workshop, "-j", "vendor", "verify")
    assert done.stdout.index("2 patched") < done.stdout.index("as locked")


def test_an_environment_without_its_python_is_made_again(workshop: Project) -> None:
    (workshop.root / ".venv/tools/bin/python").unlink()
    (workshop.root / ".venv/tools/bin/python").symlink_to("/nowhere/python")
    make(workshop, "-n", "vendor")
    assert not (workshop.root / ".venv/tools/ready").exists()


def test_help_lists_verbs_variables_and_development_apart(workshop: Project) -> None:
    shown = make(workshop, "help").stdout
    verbs, variables, rest = re.split(r"\nvariables:\n|\ndevelopment:\n", shown)
    assert {*re.findall(r"^make (\S+)", verbs, re.MULTILINE)} == cli.commands.keys()
    assert ("DEST=" in variables, "make stress" in rest, make(workshop).stdout == shown) == (True, True, True)
    # And each takes what the verb does.
    taken = re.findall(r"^takes-(\S+) :=([A-Z_ ]*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for verb, names in taken:
        options = [str(option.name).upper() for option in cli.commands[verb].params]
        assert sorted(options) == sorted([*names.split(), "JSON"]), verb


def test_distclean_stops_for_edits_and_for_a_rebase(workshop: Project) -> None:
    (workshop.tree / CORE).write_bytes(b"edit")
    assert "holds edits" in make(workshop, "distclean", code=2).stderr
    assert (workshop.tree / CORE).read_bytes() == b"edit"
    make(workshop, "vendor")
    (workshop.root / "build/rebase").mkdir(parents=True)
    assert "a rebase is under way" in make(workshop, "distclean", code=2).stderr
    (workshop.root / "build/rebase").rmdir()
    make(workshop, "distclean")
    assert not (workshop.root / ".venv").exists()


def test_usage_is_exit_2_and_json_says_so() -> None:
    for words in (["nonsense"], ["vendor", "--nonsense"], ["vendor", "--components", "x"]):
        done = run_tools(*words, "--json")
        report = json.loads(done.stdout)
        assert (done.returncode, report["ok"], report["exit_code"]) == (2, False, 2)
        assert report["next"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir(mode=0o500)
    assert str(tmp_path / "app") in vendored.run("vendor", "--dest", tmp_path / "app", code=2).stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported(vendored: Project) -> None:
    with Path("/dev/full").open("w") as full:
        done = ran(*vendored.command("status"), capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, "No space left" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


@pytest.mark.skipif(os.name == "nt", reason="needs a pipe")
def test_a_closed_pipe_is_no_error(vendored: Project) -> None:
    command = f"{shlex.join(vendored.command('diff'))} | true"
    done = ran("bash", "-o", "pipefail", "-c", command)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="needs a terminal")
@pytest.mark.parametrize("plain", [False, True])
def test_a_terminal_gets_colours_unless_no_color_and_no_control_characters(vendored: Project, plain: bool) -> None:
    import pty

    (vendored.tree / CORE).write_bytes(b"\x1b]0;title\n")
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", **({"NO_COLOR": "1"} if plain else {})}
    subprocess.run(vendored.command("diff"), cwd=ROOT, env=environment, stdout=follower, check=True)
    os.close(follower)
    shown = os.read(leader, 4096)
    os.close(leader)
    assert (b"\x1b[32m" in shown) is not plain
    assert b"\x1b]0" not in shown
    assert "\n+\x1b]0;title\n" in vendored.run("diff").stdout


def test_a_missing_package_is_reported_with_the_way_to_install_it() -> None:
    done = ran(sys.executable, "-S", "-m", "tools")
    assert "is not installed here\nnext: make vendor" in done.stderr
    assert done.returncode == 2


def test_variables_of_a_git_hook_do_not_change_its_repository(project: Project, tmp_path: Path) -> None:
    git("init", "-q", cwd=tmp_path)
    project.env |= {"GIT_DIR": str(tmp_path / ".git"), "GIT_INDEX_FILE": str(tmp_path / "index")}
    before = snapshot(tmp_path / ".git")
    project.run("vendor")
    project.run("diff")
    assert snapshot(tmp_path / ".git") == before
