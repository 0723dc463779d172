"""`diff`: upstream against the tree, edits included, for people, for pipes and for other tools."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project, git, make_project, write

CORE, NET, EXTRA = "models/alpha/core.py", "models/beta/net.py", "models/alpha/extra.py"
ESCAPE = "\x1b["


def command(project: Project, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools", "--root", str(project.root), "--store", str(project.store), *arguments]


def checkout(project: Project, where: Path) -> Path:
    git("clone", "-q", project.upstream, where, cwd=where.parent)
    return where


def test_every_changed_file_is_shown_with_three_lines_around(vendored: Project) -> None:
    text = vendored.run("diff").stdout
    assert text.count("diff --git ") == 2
    assert f"--- a/{CORE}\n+++ b/{CORE}\n@@ -2,5 +2,4 @@" in text
    assert "-    print('scaling')\n" in text
    assert "\n def scale(x):\n" in text
    assert "\\ No newline at end of file\n" in text
    assert text.endswith("+    return math.pi * r * r\n")
    assert ESCAPE not in text


@pytest.mark.parametrize(("context", "header"), [("0", "@@ -5 +5 @@"), ("1", "@@ -4,2 +4,2 @@")])
def test_context_can_be_chosen(context: str, header: str, vendored: Project) -> None:
    text = vendored.run("diff", "--context", context, "--file", "net.py").stdout
    assert header in text


@pytest.mark.parametrize("name", ["core.py", "alpha/core.py", CORE])
def test_a_file_can_be_chosen_by_name_and_by_path(name: str, vendored: Project) -> None:
    report = vendored.json("diff", "--file", name)
    [file] = report["files"]
    assert (report["schema"], report["ok"], file["path"]) == (1, True, CORE)
    assert (file["added"], file["removed"]) == (1, 2)
    assert file["text"].startswith(f"diff --git a/{CORE} b/{CORE}\nindex ")


def test_several_files_can_be_chosen_and_unchanged_ones_show_nothing(vendored: Project) -> None:
    report = vendored.json("diff", "--file", "core.py net.py", "--file", "extra.py")
    assert [file["path"] for file in report["files"]] == [CORE, NET]
    assert vendored.run("diff", "--file", "extra.py").stdout == ""


@pytest.mark.parametrize("name", ["gone.py", "ore.py", "py", "alpha"])
def test_an_unknown_file_is_exit_2(name: str, vendored: Project) -> None:
    done = vendored.run("diff", "--file", f"core.py {name}", code=2)
    assert f"no pinned file is called {name}" in done.stderr


def test_edits_in_the_tree_appear(vendored: Project) -> None:
    (vendored.tree / EXTRA).write_bytes(b"# something to see\x0c+\xe2\x80\xa8+\n")
    (vendored.tree / NET).write_bytes(FILES[NET])
    report = vendored.json("diff")
    assert [(file["path"], file["added"], file["removed"]) for file in report["files"]] == [(CORE, 1, 2), (EXTRA, 1, 1)]
    assert "+# something to see" in report["files"][1]["text"]


def test_removed_lines_that_look_like_file_names_are_counted(tmp_path: Path) -> None:
    files = {"models/alpha/core.py": b"a\n-- b\n++ c\nd\n"}
    project = make_project(tmp_path, files, {"models/alpha/core.py": b"a\nd\n++ e\n-- f\n"})
    project.run("vendor")
    [file] = project.json("diff", "--context", "0")["files"]
    assert (file["added"], file["removed"]) == (2, 2)


def test_a_missing_file_and_an_empty_tree_are_exit_1(vendored: Project) -> None:
    (vendored.tree / NET).unlink()
    assert f"missing: {NET}" in vendored.run("diff", code=1).stderr
    shutil.rmtree(vendored.tree)
    done = vendored.run("diff", code=1)
    assert f"nothing is vendored in {vendored.tree}" in done.stderr
    assert "next: make vendor" in done.stderr
    vendored.run("diff", "--file", "core.py", code=1)


def test_one_vendored_component_is_enough(vendored: Project) -> None:
    shutil.rmtree(vendored.tree / "models" / "beta")
    assert [file["path"] for file in vendored.json("diff")["files"]] == [CORE]


def test_without_a_network_and_with_an_empty_store_it_is_exit_5(vendored: Project) -> None:
    shutil.rmtree(vendored.store)
    done = vendored.run("diff", "--offline", code=5)
    assert f"missing: {CORE}" in done.stderr


# Export.


@pytest.mark.parametrize("tool", ["git", "patch"])
def test_exported_patches_are_taken_by_other_tools(tool: str, vendored: Project, tmp_path: Path) -> None:
    done = vendored.run("diff", "--export", tmp_path / "out")
    written = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in written] == ["core.patch", "net.patch"]
    assert written[0].read_text(encoding="utf-8").startswith("Description: Change core.\nOrigin: other\n")
    work = checkout(vendored, tmp_path / "checkout")
    for path in written:
        if tool == "git":
            git("apply", "--check", path, cwd=work)
            git("apply", path, cwd=work)
        else:
            subprocess.run(["patch", "-p1", "--fuzz=0", "-s", "-i", path], cwd=work, check=True)
    assert {path: (work / path).read_bytes() for path in EDITED} == EDITED


def test_an_export_is_repeatable_but_never_replaces_another_file(vendored: Project, tmp_path: Path) -> None:
    vendored.run("diff", "--export", tmp_path)
    vendored.run("diff", "--export", tmp_path)
    (tmp_path / "net.patch").write_text("mine\n", encoding="utf-8")
    (tmp_path / "core.patch").unlink()
    done = vendored.run("diff", "--export", tmp_path, code=2)
    assert str(tmp_path / "net.patch") in done.stderr
    assert (tmp_path / "net.patch").read_text(encoding="utf-8") == "mine\n"
    assert not (tmp_path / "core.patch").exists()


def test_an_edit_without_a_patch_is_exported_under_its_path(vendored: Project, tmp_path: Path) -> None:
    new = "# größer\n".encode() + b"# latin: \xe4\n"
    (vendored.tree / EXTRA).write_bytes(new)
    report = vendored.json("diff", "--file", "extra.py", "--export", tmp_path / "out")
    assert report["written"] == [str(tmp_path / "out" / "models-alpha-extra.py.patch")]
    work = checkout(vendored, tmp_path / "checkout")
    git("apply", report["written"][0], cwd=work)
    assert (work / EXTRA).read_bytes() == new


# Terminals and pipes.


def on_a_terminal(project: Project, *words: str, **variables: str) -> bytes:
    """What a run shows on a terminal."""
    pty = pytest.importorskip("pty", reason="this system has no such terminals")
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(
        command(project, *words),
        cwd=ROOT,
        env={**environment, "TERM": "xterm", **variables},
        stdout=slave,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(master)
    assert process.returncode == 0
    return shown


def test_a_terminal_gets_colours(vendored: Project) -> None:
    shown = on_a_terminal(vendored, "diff", "--file", "net.py")
    assert b"\x1b[31m-    return 3.14 * r * r\x1b[0m" in shown
    assert b"\x1b[32m+    return math.pi * r * r\x1b[0m" in shown


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_who_wants_no_colours_gets_none(variable: dict[str, str], vendored: Project) -> None:
    shown = on_a_terminal(vendored, "diff", "--file", "net.py", **variable)
    assert b"\n+    return math.pi * r * r" in shown
    assert b"\x1b" not in shown


def test_a_terminal_obeys_nothing_of_what_is_shown(vendored: Project) -> None:
    (vendored.tree / EXTRA).write_bytes(b"x = '\x1b]0;owned\x07'\n")
    shown = on_a_terminal(vendored, "diff", "--file", "extra.py")
    assert b"+x = '\\x1b]0;owned\\x07'" in shown
    assert b"\x1b[32m" in shown
    assert b"\x1b]0;owned" in vendored.run("diff", "--file", "extra.py").stdout.encode()


@pytest.mark.parametrize("arguments", [("diff",), ("diff", "--json")])
def test_a_reader_that_has_read_enough_is_no_error(arguments: tuple[str, ...], vendored: Project) -> None:
    # More than a pipe holds.
    (vendored.tree / EXTRA).write_bytes(b"".join(b"number = %d\n" % number for number in range(30_000)))
    with subprocess.Popen(
        command(vendored, *arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


def test_letters_that_a_terminal_does_not_know_are_no_error(vendored: Project) -> None:
    write(vendored.tree, {EXTRA: "# 日\n".encode() + b"# \xff\n"})
    vendored.env["PYTHONIOENCODING"] = "iso8859-1"
    assert "+# \\u65e5\n+# \\udcff\n" in vendored.run("diff", "--file", "extra.py").stdout
    [file] = vendored.json("diff", "--file", "extra.py")["files"]
    assert "+# 日\n" in file["text"]
