"""Several files written as one, whenever the run is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.tools.conftest import EDITED, Project, snapshot, write
from tools.errors import UsageError
from tools.transaction import project_lock, recover, write_together

posix = pytest.mark.skipif(os.name == "nt", reason="has no such signals and pipes")
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


@posix
def test_interrupted_at_any_step_all_is_old_or_new_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for at in count():
        root = tmp_path / str(at)
        files: dict[Path, bytes | None] = {root / name: b"new" for name in ("one", "other")}
        steps = count()

        def interrupting(real: Callable[..., Any], steps: Iterator[int] = steps, at: int = at) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if next(steps) == at:
                    os.kill(os.getpid(), signal.SIGINT)
                return real(*arguments, **options)

            return call

        write(root, {"one": b"old", "other": b"old"})
        with project_lock(root), monkeypatch.context() as patch:
            patch.setattr("os.fsync", interrupting(os.fsync))
            patch.setattr("shutil.rmtree", interrupting(shutil.rmtree))
            for name in ("rename", "replace", "unlink", "mkdir"):
                patch.setattr(Path, name, interrupting(getattr(Path, name)))
            try:
                write_together(root, files)
            except KeyboardInterrupt:
                pass
            else:
                break
        outcomes.append((root / "one").read_bytes())
        assert (root / "other").read_bytes() == outcomes[-1]
        assert sorted(path.name for path in root.iterdir()) == ["one", "other"], "something is left"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert set(outcomes) == {b"old", b"new"}
    assert outcomes.count(b"new") > 3, "the moments behind the journal's rename were not met"


@posix
def test_interrupted_while_it_finishes_for_a_killed_run_all_is_new_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, {tmp_path / name: b"new" for name in ("one", "other")}, monkeypatch)
    real = Path.replace

    def interrupting(*arguments: Any) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(Path, "replace", interrupting)
    with pytest.raises(KeyboardInterrupt):
        recover(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("o*")} == {"one": b"new", "other": b"new"}
    assert not (tmp_path / "build/journal").exists()


@posix
def test_an_error_behind_an_interruption_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", failing)
    with project_lock(tmp_path), pytest.raises(OSError, match="No space"):
        write_together(tmp_path, {tmp_path / "file": b"new"})


def test_beside_the_main_thread_nothing_is_held_back(tmp_path: Path) -> None:
    # Only the main thread may say how a signal is answered.
    with project_lock(tmp_path), ThreadPoolExecutor(1) as pool:
        pool.submit(write_together, tmp_path, {tmp_path / "file": b"new"}).result()
    assert (tmp_path / "file").read_bytes() == b"new"


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


def test_patches_behind_a_link_are_refused_before_the_journal_stands(vendored: Project, tmp_path: Path) -> None:
    (vendored.root / "patches").rename(tmp_path / "elsewhere")
    (vendored.root / "patches").symlink_to(tmp_path / "elsewhere")
    write(vendored.tree, {path: data + b"# more\n" for path, data in EDITED.items()})
    before = snapshot(tmp_path)
    for _ in range(2):
        done = vendored.run("refresh", code=2)
        assert "nothing was written" in done.stderr
        assert "path 'patches/core.patch' leads out of the project" in done.stderr
        assert snapshot(tmp_path) == before
    vendored.run("status")


@posix
def test_a_plan_that_never_ends_is_refused(vendored: Project) -> None:
    journal = vendored.root / "build/journal"
    journal.mkdir(parents=True)
    os.mkfifo(journal / "plan.json")
    assert "plan.json is no regular file" in vendored.run("status", code=2, timeout=20).stderr


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
