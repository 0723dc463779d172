"""Lock and decisions: what is accepted, and that every fault is named with its place, all of them at once."""

import re

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import Project
from tools.lock import DECISIONS, NAME, dump, is_path, load, parse, without_secrets


@pytest.mark.parametrize("path", ["models/scnet/scnet.py", "models/größe/x-1_2.py", "__init__.py", "console.py"])
def test_a_path_of_plain_names_may_be_written(path: str) -> None:
    assert is_path(path)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "a//b.py", "a/../../b.py", "../a.py", "./a.py", "a/"),
        # Of git, and what Windows takes for something else.
        *("a/.Git/hooks/x", "GIT~1/config", "a\\b.py", "C:/x.py", "a?.py", "a./b.py", "a /b.py", "a."),
        *("aux.py", "a/COM1.tar.py", "NUL", "lpt1/a.py"),
        *("a\u200b.py", "a\n.py", "a.py\n", "a\x1b.py", "-rf.py"),
    ],
)
def test_no_other_path_may(path: str) -> None:
    assert not is_path(path)


def test_a_lock_is_read_back_as_it_was_written(project: Project) -> None:
    lock = load(project.root)
    assert dump(lock) == project.lock.read_bytes()
    assert parse(project.lock.read_text(encoding="utf-8"), lock.decisions) == lock
    assert dump(load(ROOT)) == (ROOT / "upstream.lock").read_bytes()


def test_all_faults_come_at_once_each_with_its_path(project: Project) -> None:
    text = project.lock.read_text(encoding="utf-8")
    text = re.sub(r'^branch = "main"$', "branch = 3\nbranches = 1", text, count=1, flags=re.MULTILINE)
    text = text.replace("models/beta/net.py", "models/../net.py")
    text = re.sub(r'^upstream = "\w', 'upstream = "X', text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^date = .*\n", "", text, count=1, flags=re.MULTILINE)
    project.lock.write_text(text, encoding="utf-8")
    details = project.json("status", code=2)["details"]
    for words, place in (
        ("should be a non-empty string", "pin.branch"),
        ("extra fields found (branches)", "pin"),
        ("required field missing", "pin.date"),
        ("should be a path of plain names", "files['models/../net.py']"),
        ("should be a SHA-256 of 64", "files['models/alpha/__init__.py'].upstream"),
    ):
        assert [line for line in details if line.startswith(words) and line.endswith(f"@ upstream.lock.{place}")]


@pytest.mark.parametrize(
    ("name", "old", "new", "said", "then"),
    [
        (NAME, r'commit = "[0-9a-f]{40}"', f'commit = "{"c" * 40}"', "changed by hand", "c" * 40),
        (NAME, r'patched = "\w{64}', 'patched = "' + "0" * 64, "changed by hand", "git checkout upstream.lock"),
        (NAME, "digest", "digest = \n", "malformed", "git checkout"),
        (DECISIONS, 'branch = "main"', 'branch = "other"', "upstream.branch: pyproject.toml says other", "lock"),
        (DECISIONS, "models/beta", "models/gamma", "components: ", "lock"),
        (DECISIONS, r"wheels = \[\]", 'wheels = ["a==1"]', "wheels: ", "lock"),
        (DECISIONS, r"wheels = \[\]", 'wheels = ["--pre"]', "should be NAME==VERSION", "edit pyproject"),
        (DECISIONS, "file://", "https://token@", "holds a password @ pyproject.toml.upstream.url", "edit pyproject"),
        (DECISIONS, "components", "component", "required field missing", "edit pyproject"),
    ],
)
def test_a_lock_that_was_not_computed_so_is_refused(
    vendored: Project, name: str, old: str, new: str, said: str, then: str
) -> None:
    path = vendored.root / name
    text, count = re.subn(old, new, path.read_text(encoding="utf-8"), count=1)
    assert count == 1
    path.write_text(text, encoding="utf-8")
    for verb in ("vendor", "verify", "status"):
        report = vendored.json(verb, code=2)
        assert said in "\n".join([report["error"], *report["details"]])
        assert any(then in step for step in report["next"])


def test_without_a_lock_the_folder_is_named(project: Project) -> None:
    project.lock.unlink()
    assert f"{project.lock} is not there" in project.run("vendor", code=2).stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@example.org/x.git", "https://example.org/x.git"),
        ("fatal: 'HTTP://tok@host/x' failed", "fatal: 'HTTP://host/x' failed"),
        ("ssh://git@example.org/x", "ssh://git@example.org/x"),
        ("https://example.org/@scope", "https://example.org/@scope"),
    ],
)
def test_no_password_is_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_an_extra_is_applied_only_where_it_was_asked_for(vendored: Project) -> None:
    vendored.decide(extras={"round": ["net.patch"]})
    assert [file.extra for file in load(vendored.root).patched] == ["", "round"]
    done = vendored.json("vendor")
    assert {row["path"]: row["status"] for row in done["files"]}["models/beta/net.py"] == "unchanged"
    vendored.run("verify")
    assert vendored.json("vendor", "--extras", "round")["changed"]
    assert b"math.pi" in (vendored.tree / "models/beta/net.py").read_bytes()
    assert '"round"' in (vendored.tree / "models/beta/PROVENANCE.json").read_text(encoding="utf-8")
    assert '"extras"' not in (vendored.tree / "models/alpha/PROVENANCE.json").read_text(encoding="utf-8")
    vendored.run("verify")
    assert "choose from: round" in vendored.run("vendor", "--extras", "square", code=2).stderr
