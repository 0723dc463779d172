"""Tests the reading of upstream.lock and pyproject.toml: what is accepted, and how faults are reported."""

import re

import pytest

from tests.tools.conftest import Project
from tools.lock import DECISIONS, NAME, is_path, load


@pytest.mark.parametrize("path", ["models/scnet/scnet.py", "models/größe/x-1_2.py", "__init__.py", "console.py"])
def test_a_path_of_plain_names_is_allowed(path: str) -> None:
    assert is_path(path)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "a//b.py", "a/../../b.py", "../a.py", "./a.py", "a/"),
        # git's own paths, and paths that Windows reads as something else.
        *("a/.Git/hooks/x", "GIT~1/config", "a\\b.py", "C:/x.py", "a?.py", "a./b.py", "a /b.py", "a."),
        *("aux.py", "a/COM1.tar.py", "NUL", "lpt1/a.py"),
        *("a\u200b.py", "a\n.py", "a.py\n", "a\x1b.py", "-rf.py"),
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    assert not is_path(path)


def test_all_faults_of_a_lock_are_reported_with_their_places(project: Project) -> None:
    text = project.lock.read_text(encoding="utf-8")
    text = re.sub(r'^branch = "main"$', "branch = 3\nbranches = 1", text, count=1, flags=re.MULTILINE)
    text = text.replace("models/beta/net.py", "models/../net.py")
    text = re.sub(r'^upstream = "\w', 'upstream = "X', text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^url = .*\n", "", text, count=1, flags=re.MULTILINE)
    project.lock.write_text(text, encoding="utf-8")
    details = project.json("status", code=2)["details"]
    for words, place in (
        ("should be a non-empty string", "pin.branch"),
        ("extra fields found (branches)", "pin"),
        ("required field missing", "pin.url"),
        ("should be a path of plain names", "files['models/../net.py']"),
        ("should be a SHA-256 of 64", "files['models/alpha/__init__.py'].upstream"),
    ):
        assert [line for line in details if line.startswith(words) and line.endswith(f"@ upstream.lock.{place}")]


@pytest.mark.parametrize(
    ("name", "old", "new", "said", "then"),
    [
        (NAME, "digest", "digest = \n", "malformed", "git checkout"),
        (DECISIONS, 'branch = "main"', 'branch = "other"', "upstream.branch: pyproject.toml says other", "rebase"),
        (DECISIONS, "models/beta", "models/gamma", "components: ", "lock"),
        (DECISIONS, r"wheels = \[\]", 'wheels = ["a==1"]', "wheels: ", "lock"),
        (DECISIONS, r"wheels = \[\]", 'wheels = ["--pre"]', "should be NAME==VERSION", "edit pyproject"),
        (DECISIONS, "file://", "https://token@", "holds a password @ pyproject.toml.upstream.url", "edit pyproject"),
        (DECISIONS, "components", "component", "required field missing", "edit pyproject"),
        (
            DECISIONS,
            r"extras\]",
            'extras]\nround = ["nett.patch"]',
            "extras.round: no patch is called nett.patch",
            "edit [tool.vendor.extras]",
        ),
        (
            DECISIONS,
            r"extras\]",
            'extras]\nnone = ["net.patch"]',
            "none: named twice, or not allowed",
            "edit [tool.vendor.extras]",
        ),
    ],
)
def test_a_lock_that_does_not_match_is_refused(
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


def test_a_missing_lock_is_named(project: Project) -> None:
    project.lock.unlink()
    assert f"{project.lock} is missing" in project.run("vendor", code=2).stderr


def test_an_extra_is_applied_where_it_was_asked_for_and_stays_until_it_is_not(vendored: Project) -> None:
    vendored.decide(extras={"round": ["net.patch"]})
    assert [file.extra for file in load(vendored.root).patched] == ["", "round"]
    assert "5 files, 1 patched" in vendored.run("vendor").stdout
    vendored.run("verify")
    assert "5 files, 2 patched" in vendored.run("vendor", "--extras", "round").stdout
    assert b"math.pi" in (vendored.tree / "models/beta/net.py").read_bytes()
    assert '"round"' in (vendored.tree / "models/beta/PROVENANCE.json").read_text(encoding="utf-8")
    assert '"extras"' not in (vendored.tree / "models/alpha/PROVENANCE.json").read_text(encoding="utf-8")
    vendored.run("verify")
    # A later run keeps what the tree has, and an edit there is the extra's.
    assert "nothing to do" in vendored.run("vendor").stdout
    (vendored.tree / "models/beta/net.py").write_bytes(b"PI = 3\n")
    assert vendored.run("refresh").stdout == "written: patches/net.patch\nwritten: upstream.lock\n"
    assert load(vendored.root).patched[1].extra == "round"
    vendored.run("verify")
    vendored.run("vendor", "--extras", "none")
    assert b"3.14" in (vendored.tree / "models/beta/net.py").read_bytes()
    vendored.run("verify")
    assert "choose from: round" in vendored.run("vendor", "--extras", "square", code=2).stderr
    # One that has another name now is not lost without a word.
    vendored.run("vendor", "--extras", "round")
    vendored.decide(extras={"oval": ["net.patch"]})
    assert "warning: the extra round, which is in the tree, is not in" in vendored.run("vendor").stderr
