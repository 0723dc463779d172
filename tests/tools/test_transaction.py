"""Several files written as one, whenever the run is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.conftest import EDITED, Project, snapshot, write
from tools.errors import UsageError
from tools.transaction import project_lock, recover, write_together

# Kills itself right before the call number KILL_AT of those that change the disk.
KILLED = """
import os, pathlib, shutil, signal, sys
from pathlib import Path
left = int(os.environ["KILL_AT"])
def counted(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
for name in ("rename", "replace", "unlink", "rmdir"):
    setattr(Path, name, counted(getattr(Path, name)))
os.fsync = counted(os.fsync)
os.mkdir = counted(os.mkdir)
shutil.rmtree = counted(shutil.rmtree)
from tools.__main__ import main
code = main(sys.argv[1:])
print("left", left)
sys.exit(code)
"""


def killed(project: Project, at: int, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLED, "--root", str(project.root), "--store", str(project.store), *words],
        env={**os.environ, "KILL_AT": str(at)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def state(project: Project) -> dict[str, bytes]:
    return {
        path.relative_to(project.root).as_posix(): path.read_bytes()
        for path in project.root.rglob("*")
        if path.is_file()
    }


def test_a_refresh_killed_at_any_step_is_all_or_nothing(vendored: Project) -> None:
    document = vendored.root / "README.md"
    document.write_text("<!-- computed: patches -->\n<!-- end -->\n", encoding="utf-8")
    vendored.run("lint", "--write")
    write(vendored.tree, {path: data + b"# more\n" for path, data in EDITED.items()})
    before = state(vendored)
    whole = killed(vendored, 10_000, "refresh")
    assert whole.returncode == 0, whole.stderr
    after = state(vendored)
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {
        "README.md",
        "upstream.lock",
        "patches/core.patch",
        "patches/net.patch",
        "vendor/PROVENANCE.json",
    }
    steps = 10_000 - int(whole.stdout.split()[-1])
    outcomes = set()
    for at in range(steps):
        for path in changed:
            (vendored.root / path).write_bytes(before[path])
        assert killed(vendored, at, "refresh").returncode == -signal.SIGKILL
        done = vendored.run("status", code=None)
        assert done.returncode == 0, done.stderr
        found = state(vendored)
        relevant = {path: data for path, data in found.items() if not path.startswith("build/")}
        assert relevant in (before, after), at
        outcomes.add(relevant == after)
        if at % 7 == 0:
            # And the run itself needs no help.
            vendored.run("refresh")
            assert state(vendored) == after
    assert outcomes == {False, True}


def interrupted(root: Path, files: dict[Path, bytes | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write `files` and stop right behind the moment at which the change has happened."""
    with monkeypatch.context() as patch, project_lock(root):
        patch.setattr("tools.transaction._finish", lambda _: [])
        write_together(root, files)


def test_a_file_edited_after_the_kill_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"old")
    other.write_bytes(b"old")
    interrupted(tmp_path, {one: b"new", other: b"new"}, monkeypatch)
    one.write_bytes(b"edited")
    with pytest.raises(UsageError) as caught:
        recover(tmp_path)
    assert caught.value.findings == (f"changed: {one}",)
    assert (one.read_bytes(), other.read_bytes()) == (b"edited", b"old")
    one.write_bytes(b"old")
    assert recover(tmp_path) == [str(one), str(other)]
    assert (one.read_bytes(), other.read_bytes()) == (b"new", b"new")
    assert recover(tmp_path) == []


def test_a_project_moved_after_the_kill_is_finished_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "gone").write_bytes(b"old")
    interrupted(here, {here / "new": b"new", here / "gone": None}, monkeypatch)
    here.rename(tmp_path / "there")
    recover(tmp_path / "there")
    assert {path.name for path in (tmp_path / "there").iterdir() if path.is_file()} == {"new"}
    assert not here.exists()


def test_an_error_before_anything_happened_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, project_lock(tmp_path):
        patch.setattr("tools.transaction.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_together(tmp_path, {target: b"new"})
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_journal_is_a_plan_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, {tmp_path / "file": b"new"}, monkeypatch)
    [entry] = json.loads((tmp_path / "build" / "journal" / "plan.json").read_text())["files"]
    assert (entry["path"], entry["before"]) == ("file", None)


PLAIN = {"path": "file", "before": None, "after": "0" * 64, "staged": "0"}
HOSTILE_PLANS = {
    "no JSON": "{",
    "a list": "[]",
    "brackets": "[" * 100_000,
    "no files": '{"remove": null}',
    "a number": json.dumps({"files": [3], "remove": None}),
    "a path upwards": json.dumps({"files": [PLAIN | {"path": "../canary"}], "remove": None}),
    "an absolute path": json.dumps({"files": [PLAIN | {"path": "/etc/canary"}], "remove": None}),
    "a path of a repository": json.dumps({"files": [PLAIN | {"path": ".git/hooks/pre-commit"}], "remove": None}),
    "a name too long for a disk": json.dumps({"files": [PLAIN | {"path": "9" * 400}], "remove": None}),
    "a NUL": json.dumps({"files": [PLAIN | {"path": "a\0b"}], "remove": None}),
    "half a letter": json.dumps({"files": [PLAIN | {"path": "\ud800"}], "remove": None}),
    "a staged file elsewhere": json.dumps({"files": [PLAIN | {"staged": "../../canary"}], "remove": None}),
    "a hash that is none": json.dumps({"files": [PLAIN | {"after": "x"}], "remove": None}),
    "a folder to remove": json.dumps({"files": [], "remove": "../canary"}),
    "all of the project": json.dumps({"files": [], "remove": "."}),
}


@pytest.mark.parametrize("plan", HOSTILE_PLANS.values(), ids=HOSTILE_PLANS)
def test_a_plan_that_no_run_wrote_is_refused_and_does_nothing(plan: str, vendored: Project) -> None:
    canary = vendored.root.parent / "canary"
    canary.mkdir()
    (canary / "mine").write_bytes(b"mine")
    journal = vendored.root / "build" / "journal"
    journal.mkdir(parents=True)
    (journal / "plan.json").write_text(plan)
    before = snapshot(vendored.root.parent)
    done = vendored.run("status", code=2)
    assert f"{journal} was not written by a run that was killed" in done.stderr
    assert snapshot(vendored.root.parent) == before


def test_a_staged_file_with_other_bytes_is_not_moved_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, {tmp_path / "file": b"new"}, monkeypatch)
    (tmp_path / "build" / "journal" / "0").write_bytes(b"other")
    with pytest.raises(UsageError, match="changed since"):
        recover(tmp_path)
    assert not (tmp_path / "file").exists()


def test_the_verb_lock_finishes_what_was_begun_first(vendored: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    old = vendored.lock.read_bytes()
    interrupted(vendored.root, {vendored.lock: old + b"# new\n"}, monkeypatch)
    vendored.run("lock")
    assert vendored.lock.read_bytes().endswith(b"# new\n")


def test_a_plan_does_not_lead_through_a_link(vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (vendored.root / "link").symlink_to(tmp_path / "outside")
    journal = vendored.root / "build" / "journal"
    journal.mkdir(parents=True)
    (journal / "0").write_bytes(b"")
    entry = PLAIN | {"path": "link/file", "after": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    (journal / "plan.json").write_text(json.dumps({"files": [entry], "remove": None}))
    assert "leads out of the project" in vendored.run("status", code=2).stderr
    assert list((tmp_path / "outside").iterdir()) == []
