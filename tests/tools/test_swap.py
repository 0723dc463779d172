"""A component is wholly the old one or wholly the new one, whatever kills the run and whenever."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import filelock
import pytest

import tools.sources
import tools.tree
import tools.vendor
import tools.verify
from tests.conftest import ROOT
from tests.tools import servers
from tests.tools.conftest import FILES, Project, make_project, write
from tests.tools.faults import KILL
from tests.tools.servers import wheel_table
from tools.__main__ import main

assert filelock  # Imported, like tools', before the forks: each of them then starts at once.

NEW_FILES = {
    "models/alpha/__init__.py": FILES["models/alpha/__init__.py"],
    "models/alpha/core.py": b"FACTOR = 3\n\n\ndef scale(x):\n    print('scaling')\n    return x * FACTOR\n",
    "models/alpha/late.py": b"# not there before\n",
    "models/beta/__init__.py": b"",
    "models/beta/net.py": b"import math\n\n\ndef area(r):\n    return 3.15 * r * r\n",
}
# Without patches: how a file came about makes no difference to the swap, and each run is shorter.
TREES = {"old": FILES, "new": NEW_FILES}
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@dataclass
class Versions:
    """Two projects on the same upstream at two pins, and one tree that both vendor into."""

    old: Project
    new: Project
    tree: Path
    # `tree` as `old` left it.
    vendored: Path
    scratch: Path

    def reset(self) -> None:
        shutil.rmtree(self.tree, ignore_errors=True)
        if self.vendored.exists():
            shutil.copytree(self.vendored, self.tree)

    def said(self) -> str:
        """What the last `in_child` printed."""
        return (self.scratch / "said").read_text()

    def arguments(self, project: Project, *verb: str) -> list[str]:
        return ["--root", str(project.root), "--store", str(project.store), *verb, "--dest", str(self.tree)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    folder = tmp_path_factory.mktemp("versions")
    old = make_project(folder / "old", FILES, {})
    new = make_project(folder / "new", NEW_FILES, {})
    new.store = old.store
    new.run("vendor", "--dest", folder / "throw away")
    old.run("vendor", "--dest", folder / "vendored")
    return Versions(old, new, folder / "tree", folder / "vendored", folder / "scratch")


@pytest.fixture
def versions(made: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    # Killed runs leave their temporary folders; here those go with the test's own.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = Versions(made.old, made.new, tmp_path / "their project/vendored", made.vendored, tmp_path)
    found.reset()
    return found


def state(tree: Path, component: str) -> str:
    """`old`, `new` or `absent`, or what else there is."""
    folder = tree / "models" / component
    if not folder.exists():
        return "absent"
    found = {path.relative_to(tree).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, files in TREES.items():
        if found == {path: data for path, data in files.items() if path.startswith(f"models/{component}/")}:
            return name
    return f"torn: {found}"


def states(tree: Path) -> set[str]:
    return {state(tree, component) for component in ("alpha", "beta")}


def remains(tree: Path) -> list[str]:
    """Hidden things in the tree: staging folders, lock files, half-written manifests."""
    return [path.name for path in tree.rglob(".*")]


def in_child(versions: Versions, arguments: list[str], prepare: Callable[[], object] = lambda: None) -> int:
    """The command line in a forked process, after `prepare`; its exit code, or minus the signal that ended it."""
    pid = begin(versions, arguments, prepare)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def begin(versions: Versions, arguments: list[str], prepare: Callable[[], object] = lambda: None) -> int:
    """The same, not waited for; its process id."""
    pid = os.fork()
    if pid == 0:
        code: Any = 99
        try:
            sink = os.open(versions.scratch / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            sys.stdout = sys.stderr = os.fdopen(sink, "w")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            tempfile.tempdir = None
            # Only a power cut would tell the difference, and these are many runs.
            os.fsync = lambda _: None
            prepare()
            code = main(arguments)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def at_step(number: int, tree: Path, act: Callable[[], object]) -> None:
    """Have `act` called just before this process changes something below `tree` for the `number`th time."""
    steps = count(1)
    changing = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.truncate"}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            written = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            written = event in changing
        inside = any(isinstance(part, str | bytes) and os.fsencode(tree) in os.fsencode(part) for part in arguments)
        exchange = event == "ctypes.dlsym" and "renameat2" in arguments
        if ((written and inside) or exchange) and next(steps) == number:
            act()

    sys.addaudithook(hook)


def without_exchange() -> None:
    tools.tree._exchange = lambda *_: False  # type: ignore[assignment]


def ended_at_every_step(
    versions: Versions,
    prepare: Callable[[], object],
    verb: Sequence[str] = ("vendor",),
    sent: signal.Signals = KILL,
) -> Iterator[int]:
    """Run `verb` on the new pin over the old tree, ended by `sent` one step later each time, until it survives."""
    for step in count(1):
        versions.reset()

        def doomed(step: int = step) -> None:
            prepare()
            at_step(step, versions.tree, lambda: os.kill(os.getpid(), sent))

        code = in_child(versions, versions.arguments(versions.new, *verb), doomed)
        if code == 0:
            assert step > 10, "the steps were not seen"
            return
        assert code == (130 if sent == signal.SIGINT else -sent), versions.said()
        assert "Traceback" not in versions.said()
        yield step


def ends_well(versions: Versions, name: str) -> None:
    """The next run, on the lock `name`, makes the tree right and leaves nothing else behind."""
    project = {"old": versions.old, "new": versions.new}[name]
    assert in_child(versions, versions.arguments(project, "vendor", "--offline")) == 0, versions.said()
    assert states(versions.tree) == {name}
    assert not remains(versions.tree)
    assert main(versions.arguments(project, "verify")) == 0


@forks
def test_killed_at_any_step_of_an_update_the_tree_is_whole_and_either_pin_can_follow(versions: Versions) -> None:
    for step in ended_at_every_step(versions, lambda: None):
        assert states(versions.tree) in ({"old"}, {"new"}), f"killed at step {step}"
        as_killed = versions.scratch / "as killed"
        shutil.copytree(versions.tree, as_killed)
        ends_well(versions, "new")
        shutil.rmtree(versions.tree)
        as_killed.rename(versions.tree)
        ends_well(versions, "old")


@forks
def test_killed_at_any_step_beside_folders_of_theirs_each_component_is_whole(versions: Versions) -> None:
    shutil.copytree(versions.vendored, versions.scratch / "beside")
    versions.vendored = versions.scratch / "beside"
    write(versions.vendored, {"models/theirs/net.py": b"theirs = 1\n"})
    seen = set()
    for step in ended_at_every_step(versions, lambda: None):
        seen |= {frozenset(states(versions.tree))}
        assert states(versions.tree) <= {"old", "new"}, f"killed at step {step}"
        assert (versions.tree / "models/theirs/net.py").read_bytes() == b"theirs = 1\n"
    assert frozenset({"old", "new"}) in seen, "the moment between the components was not met"
    ends_well(versions, "new")


@forks
def test_killed_at_any_step_of_a_first_run_the_tree_is_whole_or_absent(versions: Versions) -> None:
    versions.vendored = versions.scratch / "nothing"
    for step in ended_at_every_step(versions, lambda: None):
        assert states(versions.tree) in ({"absent"}, {"new"}), f"killed at step {step}"
        ends_well(versions, "new")


@forks
def test_killed_between_two_renames_the_next_run_puts_the_component_back(versions: Versions) -> None:
    seen = set()
    for step in ended_at_every_step(versions, without_exchange):
        seen |= states(versions.tree)
        assert states(versions.tree) <= {"old", "new", "absent"}, f"killed at step {step}"
        # Even one that has nothing to build from.
        lost = ["--root", str(versions.new.root), "--store", str(versions.scratch / "empty"), "vendor", "--offline"]
        code = in_child(versions, [*lost, "--dest", str(versions.tree)], without_exchange)
        assert code in (0, 5), versions.said()
        assert states(versions.tree) <= {"old", "new"}
        ends_well(versions, "new")
    assert "absent" in seen, "the moment between the renames was not met"


@forks
@pytest.mark.parametrize("prepare", [lambda: None, without_exchange], ids=["exchange", "two renames"])
def test_interrupted_at_any_step_no_component_is_torn_or_gone(
    versions: Versions, prepare: Callable[[], object]
) -> None:
    for step in ended_at_every_step(versions, prepare, sent=signal.SIGINT):
        assert states(versions.tree) in ({"old"}, {"new"}), f"interrupted at step {step}"
    ends_well(versions, "new")


@forks
@pytest.mark.parametrize("sent", [KILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_clean_ended_at_any_step_leaves_the_whole_tree_or_none(versions: Versions, sent: signal.Signals) -> None:
    for step in ended_at_every_step(versions, lambda: None, ["clean"], sent):
        assert states(versions.tree) in ({"old"}, {"absent"}), f"ended at step {step}"
        if step % 2:
            ends_well(versions, "new")
        else:
            assert in_child(versions, versions.arguments(versions.new, "clean")) == 0, versions.said()
            assert not versions.tree.exists()


@forks
@pytest.mark.parametrize("prepare", [lambda: None, without_exchange], ids=["exchange", "two renames"])
def test_a_clean_killed_beside_files_of_theirs_leaves_them_with_all_of_ours_or_none(
    versions: Versions, prepare: Callable[[], object]
) -> None:
    shutil.copytree(versions.vendored, versions.scratch / "beside")
    versions.vendored = versions.scratch / "beside"
    write(versions.vendored, {"models/alpha/deep/theirs.txt": b"theirs\n", "models/notes.txt": b"theirs\n"})
    theirs, ours = {"deep/theirs.txt"}, {path.split("/")[-1] for path in FILES if "/alpha/" in path}
    seen = set()
    for step in ended_at_every_step(versions, prepare, ["clean", "--force"]):
        assert state(versions.tree, "beta") in ("old", "absent"), f"killed at step {step}"
        alpha = versions.tree / "models/alpha"
        found = {path.relative_to(alpha).as_posix() for path in alpha.rglob("*") if path.is_file()}
        assert found in (theirs, theirs | ours, *([set()] if prepare is without_exchange else [])), step
        seen.add(frozenset(found))
        assert in_child(versions, versions.arguments(versions.new, "clean", "--force")) == 0, versions.said()
        left = [path.relative_to(versions.tree).as_posix() for path in versions.tree.rglob("*") if path.is_file()]
        assert sorted(left) == ["models/alpha/deep/theirs.txt", "models/notes.txt"]
        assert not remains(versions.tree)
    assert frozenset(theirs) in seen


@forks
def test_killed_at_random_moments_while_going_back_and_forth(versions: Versions) -> None:
    chance = random.Random(20260131)
    ends = []
    for turn in range(40):
        project = (versions.old, versions.new)[turn % 2]
        pid = begin(versions, versions.arguments(project, "vendor"))
        # Now and then one is left alone, so that the tree does change on a slow machine too.
        if turn % 8 != 7:
            time.sleep(chance.uniform(0, 0.12))
            os.kill(pid, signal.SIGKILL)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        assert states(versions.tree) in ({"old"}, {"new"})
    assert set(ends) == {0, -signal.SIGKILL}
    ends_well(versions, "new")


@pytest.mark.parametrize("killed", [False, True])
def test_eight_runs_at_once_all_end_well(versions: Versions, killed: bool) -> None:
    if killed:
        # The first run was killed when it held the lock file, between its two renames.
        (versions.tree / ".dsu-vendor.lock").touch()
        (versions.tree / "models/alpha").rename(versions.tree / "models/.alpha.dsu-retired")
    with ThreadPoolExecutor(8) as pool:
        projects = [versions.new] * 8 if killed else [versions.old, versions.new] * 4
        runs = [pool.submit(project.run, "vendor", "--dest", versions.tree) for project in projects]
    assert [run.result().returncode for run in runs] == [0] * 8
    assert states(versions.tree) in ({"old"}, {"new"})
    assert not remains(versions.tree)
    [found] = states(versions.tree)
    assert main(versions.arguments({"old": versions.old, "new": versions.new}[found], "verify")) == 0


@forks
def test_vendor_and_clean_at_once_leave_a_whole_tree_or_none(versions: Versions) -> None:
    for turn in range(8):
        verbs = ("vendor", "clean") if turn % 2 else ("clean", "vendor")
        pids = [begin(versions, versions.arguments(versions.new, verb)) for verb in verbs * 2]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert codes == [0] * 4, versions.said()
        assert states(versions.tree) in ({"new"}, {"absent"})
        assert not remains(versions.tree)


# interrupted while a source is asked


@pytest.mark.parametrize("kind", ["git", "raw", "index"])
def test_interrupted_while_a_source_is_silent_the_run_ends_at_once(
    vendored: Project, tmp_path: Path, kind: str
) -> None:
    (vendored.tree / "models/alpha/core.py").write_bytes(b"# somebody's edit\n")
    shutil.rmtree(vendored.store)
    vendored.pieces({"models/alpha/core.py": "tiny:core.py | a0+9"})
    with servers.silent() as port:
        vendored.sources(
            {
                "git": ['kind = "git"'],
                "raw": [f'kind = "raw"\nurl = "http://127.0.0.1:{port}/{{commit}}/{{path}}"'],
                "index": ['kind = "index"\n\n' + wheel_table("tiny", "1.0", "0" * 64)],
            }[kind]
        )
        text = vendored.lock.read_text(encoding="utf-8")
        url = vendored.upstream.as_uri()
        vendored.lock.write_text(text.replace(url, f"http://127.0.0.1:{port}/x.git"), encoding="utf-8")
        pip = {"PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
        run = subprocess.Popen(
            [sys.executable, "-m", "tools", "--root", vendored.root, "--store", tmp_path / "store", "vendor"],
            cwd=ROOT,
            env={**os.environ, **pip, "TMPDIR": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stderr is not None
        assert "asking for" in run.stderr.readline()
        time.sleep(0.7)
        run.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, stderr = run.communicate(timeout=60)
        assert time.monotonic() - start < 10
    assert run.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert (vendored.tree / "models/alpha/core.py").read_bytes() == b"# somebody's edit\n"
    assert not list(tmp_path.glob("dsu-patches*")), "a temporary folder was left"


# disks


def test_a_disk_that_takes_no_more_leaves_the_old_tree(tmp_path: Path) -> None:
    big = {"models/gamma/__init__.py": b"", "models/gamma/table.py": b"# a row of a table\n" * 4000}
    project = make_project(tmp_path / "big", big, {})
    project.run("vendor", "--dest", tmp_path / "throw away")
    small = make_project(tmp_path / "small", {"models/gamma/__init__.py": b"# small\n"}, {})
    small.run("vendor", "--dest", tmp_path / "tree")
    before = {path: path.read_bytes() for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    command = f'ulimit -f 16; exec "{sys.executable}" -m tools "$@"'
    arguments = ["--root", project.root, "--store", project.store, "vendor", "--dest", tmp_path / "tree"]
    done = subprocess.run(
        ["bash", "-c", command, "bash", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "tree").rglob("*") if path.is_file()} == before
    project.run("vendor", "--dest", tmp_path / "tree")
    project.run("verify", "--dest", tmp_path / "tree")


def test_a_disk_that_gives_other_bytes_than_were_written_leaves_the_old_tree(
    versions: Versions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.fsync

    def losing(handle: int) -> None:
        real(handle)
        for path in versions.tree.rglob(".*.dsu-staging-*/**/core.py"):
            path.write_bytes(path.read_bytes().replace(b"3", b"7"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", losing)
        assert main(versions.arguments(versions.new, "vendor")) == 4
    assert "models/alpha/core.py does not read back as it was written" in capsys.readouterr().err
    assert states(versions.tree) == {"old"}
    assert not remains(versions.tree)
    assert main(versions.arguments(versions.new, "vendor")) == 0


@pytest.mark.parametrize("name", [".alpha.dsu-staging-1234", ".alpha.dsu-retired", ".models.dsu-staging-1234"])
@pytest.mark.parametrize("kind", ["link", "broken link", "file"])
def test_a_leftover_that_is_no_folder_is_removed_and_not_followed(versions: Versions, name: str, kind: str) -> None:
    behind = versions.scratch / "behind"
    write(behind, {"core.py": b"theirs\n"})
    place = versions.tree / ("models" if "alpha" in name else "") / name
    if kind == "file":
        place.write_bytes(b"")
    else:
        place.symlink_to(behind if kind == "link" else "nowhere")
    shutil.rmtree(versions.tree / "models/alpha")
    assert main(versions.arguments(versions.new, "vendor")) == 0
    assert states(versions.tree) == {"new"}
    assert not remains(versions.tree)
    assert [path.name for path in behind.iterdir()] == ["core.py"]


@forks
def test_a_folder_that_may_not_be_read_stops_the_run(versions: Versions) -> None:
    # Root may read everything, so that a run by root is tried as nobody, outside of root's own temporary folders.
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        place.chmod(0o755)
        shutil.copytree(versions.old.root, place / "project")
        versions.scratch, versions.tree = place, place / "tree"
        versions.reset()
        private = versions.tree / "models/alpha/private"
        private.mkdir()
        (private / "diary.txt").write_bytes(b"theirs\n")
        (versions.tree / "models/alpha/core.py").unlink()
        for path in [place, *place.rglob("*")] if os.geteuid() == 0 else []:
            os.chown(path, 65534, 65534)
        private.chmod(0)

        def as_nobody() -> None:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)

        arguments = ["--root", str(place / "project"), "--store", str(place / "store"), "vendor", "--dest"]
        assert in_child(versions, [*arguments, str(versions.tree)], as_nobody) == 2
        assert "models/alpha/private: Permission denied" in versions.said()
        private.chmod(0o755)
        assert (private / "diary.txt").read_bytes() == b"theirs\n"
        assert not remains(versions.tree)
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder where nobody can write")
def test_a_destination_that_cannot_be_made_is_named(vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file\n")
    for place in (tmp_path / "file/below", Path("/proc/self/vendored")):
        done = vendored.run("vendor", "--dest", place, code=2)
        assert str(place) in done.stderr
        assert "next:" in done.stderr
    assert "file" in vendored.run("vendor", "--dest", tmp_path / "file", code=2).stderr
    assert (tmp_path / "file").read_text() == "a file\n"
