"""Verbs cut off at random moments, and what has to hold then. The suite does it a few times, `make stress` often."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project, git, make_project, write

CORE, NET = "models/alpha/core.py", "models/beta/net.py"
MERGES = {CORE: b"# Scales.\n" + FILES[CORE], NET: b"# Shapes.\n" + FILES[NET], "models/alpha/extra.py": b"x = 1\n"}
CONFLICTS = {NET: FILES[NET].replace(b"3.14 * r * r", b"3.1416 * r * r")}
JOURNAL = "build/journal"
# Windows, where tests that kill are skipped, has none.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
State = dict[str, bytes]


def files_below(folder: Path, *places: str) -> State:
    """The bytes of every file in `places` (files or folders) below `folder`, by its path there."""
    found = {}
    for place in places:
        here = folder / place
        for path in [here] if here.is_file() else sorted(here.rglob("*")):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


@dataclass
class Case:
    """A verb on a project that stands in `began`, to be copied for each run.

    groups: what has to be wholly old or wholly new, each group for itself; with a journal there, after the next verb.
    again: words and exit code of the next run, one that writes, given whether the first one had come to its end.
    code: of a run left alone.
    """

    name: str
    words: Sequence[str]
    began: Project
    groups: Sequence[Sequence[str]]
    again: Callable[[bool], tuple[Sequence[str], int]]
    code: int = 0
    old: list[State] = field(default_factory=list)
    new: list[State] = field(default_factory=list)
    end: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def states(self, project: Project) -> list[State]:
        return [files_below(project.root, *places) for places in self.groups]

    def measure(self, folder: Path, runs: int) -> None:
        """What a run that is left alone makes of it, and how long it takes."""
        for number in range(runs):
            project = self.copy(folder / f"whole {number}")
            process, _ = start(project, self.words)
            begun = time.monotonic()
            assert process.wait() == self.code, said(project)
            self.seconds = max(self.seconds, time.monotonic() - begun)
        self.old, self.new = self.states(self.began), self.states(project)
        assert all(old != new for old, new in zip(self.old, self.new, strict=True)), self.name
        words, code = self.again(True)
        project.run(*words, code=code)
        self.end = everything(project)

    def copy(self, to: Path) -> Project:
        # Not whole at once where a git of the last run still writes, and this system has not told of it.
        shutil.rmtree(to, ignore_errors=True)
        if to.exists():
            time.sleep(1)
            shutil.rmtree(to)
        shutil.copytree(self.began.root, to / "project", symlinks=True)
        if self.began.store.exists():
            shutil.copytree(self.began.store, to / "store")
        (to / "tmp").mkdir()
        env = {"TMPDIR": str(to / "tmp")}
        return Project(to / "project", self.began.upstream, self.began.commit, to / "store", env)


def everything(project: Project) -> set[str]:
    """Every path there is in project, store and temporary folder, without those that `start` writes."""
    home = project.root.parent
    found = {path.relative_to(home).as_posix() for place in ("project", "store") for path in (home / place).rglob("*")}
    return found | {path.relative_to(home).as_posix() for path in (home / "tmp").iterdir()}


def start(project: Project, words: Sequence[str]) -> tuple["subprocess.Popen[bytes]", float]:
    """The verb in a process group of its own, and when it began; `said` has what it prints."""
    command = [sys.executable, "-m", "tools", "--root", str(project.root), "--store", str(project.store), *words]
    with (project.root.parent / "said").open("wb") as log:
        begun = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **project.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    return process, begun


def wait_for_git(project: Project) -> None:
    """Git has a session of its own, and goes on for a moment in its temporary folder when the verb alone is killed."""
    deadline = time.monotonic() + 60
    while any(_works_below(process, project.root.parent) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, f"git does not end in {project.root.parent}"
        time.sleep(0.01)


def _works_below(process: Path, folder: Path) -> bool:
    """Of a process there, as Linux tells it; elsewhere there is none to ask about."""
    try:
        return (process / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def said(project: Project) -> str:
    return (project.root.parent / "said").read_text(errors="replace")


def make_cases(folder: Path) -> list[Case]:
    """A case for each verb that writes to a project or a tree."""
    base = make_project(folder / "base")
    base.run("vendor")
    (base.root / "README.md").write_text("<!-- computed: patches -->\n<!-- end -->\n", encoding="utf-8")
    base.run("lint", "--write")
    for branch, files in (("merges", MERGES), ("conflicts", CONFLICTS)):
        git("checkout", "-q", "-b", branch, base.commit, cwd=base.upstream)
        base.advance(dict(files))

    def prepared(name: str) -> Project:
        shutil.copytree(base.root, folder / name / "project")
        shutil.copytree(base.store, folder / name / "store")
        return Project(folder / name / "project", base.upstream, base.commit, folder / name / "store")

    def same(words: Sequence[str]) -> Callable[[bool], tuple[Sequence[str], int]]:
        return lambda _: (words, 0)

    ours = ("patches", "upstream.lock", "README.md")
    trees = (("vendor/models/alpha", "vendor/models/beta"), ("vendor/PROVENANCE.json",))

    # With nothing in the store, so that it asks git and fills the store too.
    moved = prepared("vendor")
    moved.run("rebase", "merges")
    shutil.rmtree(moved.store)
    first = prepared("first")
    shutil.rmtree(first.tree)
    shutil.rmtree(first.store)
    edited = prepared("refresh")
    write(edited.tree, {path: data + b"# more\n" for path, data in EDITED.items()})
    stopped = prepared("continue")
    stopped.run("rebase", "conflicts", code=3)
    (stopped.root / "build/rebase/resolve" / NET).write_bytes(EDITED[NET])
    audited = prepared("audit")
    write(audited.root, {"build/audit/index.html": b"an older page\n"})
    # Without the choices, which are remembered before anything else is written.
    standing = [f"build/rebase/{name}" for name in ("resolve", "upstream", "before")]
    rebase, stops, page = ["rebase", "merges"], ["rebase", "conflicts"], ["audit", "--html"]
    return [
        Case("vendor", ["vendor"], moved, trees, same(["vendor"])),
        Case("vendor, first run", ["vendor"], first, trees, same(["vendor"])),
        Case("refresh", ["refresh"], edited, [(*ours, "vendor")], same(["refresh"])),
        Case("rebase", rebase, prepared("rebase"), [ours], same(rebase)),
        Case(
            "rebase that stops",
            stops,
            prepared("stops"),
            [("build/rebase",)],
            lambda done: (["rebase-continue"] if done else stops, 3),
            code=3,
        ),
        Case(
            "rebase-continue",
            ["rebase-continue"],
            stopped,
            [(*ours, *standing)],
            lambda done: (stops if done else ["rebase-continue"], 0),
        ),
        Case("clean", ["clean"], prepared("clean"), trees, same(["clean"])),
        Case("audit --html", page, audited, [("build/audit/index.html",)], same(page)),
    ]


@dataclass
class Tally:
    """Counts by name; `failures` in words."""

    counts: Counter[object] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    # The latest moment, in seconds, at which Python had not yet come to our code.
    latest_start: float = 0.0


def cut_off(case: Case, place: Path, delay: float, sent: signal.Signals, tally: Tally, again: bool = True) -> bool:
    """Run `case` below `place`, end its process group with `sent` after `delay` seconds, and judge what is there.

    again: have the next run tried, too. Whether the signal came in time, that is to a process still at work.
    """
    project = case.copy(place)
    process, begun = start(project, case.words)
    time.sleep(max(0.0, begun + delay - time.monotonic()))
    if process.poll() is None:
        os.killpg(process.pid, sent)
    code = process.wait(60)
    wait_for_git(project)
    tally.counts["sent"] += 1

    def fail(what: str) -> None:
        tally.failures.append(f"{case.name}, {sent.name} after {delay:.3f} s: {what}\n{said(project)[-1500:]}")

    if sent == signal.SIGINT:
        in_time = _answered(case, code, delay, said(project), tally, fail)
    else:
        in_time = code == -sent
        if not in_time and code != case.code:
            fail(f"exit code {code}")
    if not in_time:
        tally.counts["too late"] += 1
    if in_time and delay > 0.8 * case.seconds:
        # Beside others it takes longer than when it was measured: its end is to be met, too.
        case.seconds *= 1.1
    tally.counts["in time"] += in_time
    tally.counts[case.name, "hit"] += in_time

    pending = (project.root / JOURNAL).exists()
    if pending and sent == signal.SIGINT:
        fail("left half-written, and said that it was not")
    if pending:
        tally.counts["journals"] += 1
        for found, old, new in zip(case.states(project), case.old, case.new, strict=True):
            if torn := [path for path, data in found.items() if data not in (old.get(path), new.get(path))]:
                fail(f"torn: {torn}")
        project.run("status", code=None)
    outcomes = []
    for found, old, new in zip(case.states(project), case.old, case.new, strict=True):
        outcomes.append("new" if found == new else "old" if found == old else "mixed")
        if outcomes[-1] == "mixed":
            fail(f"mixed, not as before: {sorted(path for path in {*found, *old} if found.get(path) != old.get(path))}")
    if in_time:
        tally.counts[case.name, outcomes[0]] += 1

    if not again:
        return in_time
    words, expected = case.again(outcomes[0] == "new")
    try:
        project.run(*words, code=expected)
        if case.states(project) != case.new:
            fail("the next run does not end as one left alone")
        if strays := everything(project) - case.end:
            fail(f"strays: {sorted(strays)}")
        if lost := case.end - everything(project):
            fail(f"lost: {sorted(lost)}")
    except AssertionError as error:
        fail(f"the next run: {error}")
    return in_time


def _answered(case: Case, code: int, delay: float, stderr: str, tally: Tally, fail: Callable[[str], None]) -> bool:
    """Whether Ctrl-C came in time; counts how it was answered."""
    lines = [line for line in stderr.splitlines() if line.startswith("interrupted")]
    noise = any(word in stderr for word in ("Traceback", "Exception ignored", "Fatal Python"))
    if code == 130 and len(lines) == 1 and not noise:
        tally.counts["answered"] += 1
        return True
    if noise and not lines and not re.search(r"tools/(?!__init__|__main__|interrupt)", stderr):
        tally.counts["early"] += 1
        tally.latest_start = max(tally.latest_start, delay)
        return True
    if code == -signal.SIGINT and not stderr:
        # Before Python has a handler at all.
        tally.counts["early"] += 1
        tally.latest_start = max(tally.latest_start, delay)
        return True
    if code != case.code or lines or noise:
        fail(f"exit code {code}")
    return False


def many(
    cases: Sequence[Case],
    folder: Path,
    hits: int,
    sent: signal.Signals,
    seed: int,
    each: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Tally:
    """Cut off each of `cases` in turn at moments spread evenly over its length, until `hits` signals came in time.

    each: of how many runs one is followed by the next run. Two at once, a verb mostly waits for git or the disk.
    """
    chance = random.Random(seed)
    tally = Tally()
    done = 0
    turns = count()

    def one(place: Path, turn: int, share: float) -> bool:
        case = cases[turn % len(cases)]
        return cut_off(case, place, share * case.seconds, sent, tally, turn % each == 0)

    with ThreadPoolExecutor(2) as pool:
        while done < hits and len(tally.failures) < 10:
            places = (folder / "one", folder / "other")
            runs = [pool.submit(one, place, next(turns), chance.random()) for place in places]
            done += sum(run.result() for run in runs)
            say(f"{sent.name}: {done} of {hits}")
    return tally


def measured(folder: Path, runs: int) -> list[Case]:
    """`make_cases`, measured two at a time, as `many` runs them."""
    cases = make_cases(folder / "began")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda case: case.measure(folder / "whole" / case.name, runs), cases))
    return cases


def at_once(folder: Path, rounds: int, trees: bool = True, say: Callable[[str], None] = lambda _: None) -> Tally:
    """Eight runs at once, on one tree or one store, `rounds` times each way; afterwards one of their results is there.

    Counts runs and what they left; `failures` holds every run with another exit code than 0, and every mixed tree.
    trees: on one tree, too.
    """
    old = make_project(folder / "old")
    old.run("vendor")
    new = Project(folder / "new/project", old.upstream, old.commit, old.store)
    shutil.copytree(old.root, new.root)
    old.advance(dict(MERGES))
    new.run("rebase", "main")
    new.run("vendor")
    results = {name: files_below(project.tree, "models", "PROVENANCE.json") for name, project in _named(old, new)}
    tree = folder / "tree"
    to_tree = ("vendor", "--dest", tree)
    on_one_tree: dict[str, Sequence[tuple[Project, Sequence[str | Path]]]] = {
        "one destination": [(new, to_tree)] * 8,
        "one destination, two locks": [(old, to_tree), (new, to_tree)] * 4,
        "vendor and clean": [(new, to_tree), (new, ("clean", "--dest", tree))] * 4,
    }
    tally = Tally()
    for number in range(rounds):
        for kind, runs in on_one_tree.items() if trees else ():
            shutil.rmtree(tree, ignore_errors=True)
            _all_well(kind, runs, tally)
            found = files_below(tree, "models", "PROVENANCE.json")
            ends = [name for name, files in results.items() if files == found]
            if not found and kind == "vendor and clean":
                ends = ["no tree"]
            if not ends or list(tree.rglob(".*")):
                tally.failures.append(f"{kind}: mixed, {sorted(map(str, tree.rglob('*')))}")
            tally.counts[f"{kind}: left {ends[0] if ends else 'mixed'}"] += 1

        # One store, empty at first, and eight trees.
        store = folder / f"store {number}"
        shutil.rmtree(folder / "trees", ignore_errors=True)
        empty = Project(new.root, new.upstream, new.commit, store)
        places = [folder / "trees" / str(index) for index in range(8)]
        _all_well("one store, empty at first", [(empty, ("vendor", "--dest", place)) for place in places], tally)
        if any(files_below(place, "models", "PROVENANCE.json") != results["new"] for place in places):
            tally.failures.append("one store: a tree is not what it should be")
        if {path.name for path in store.rglob(".*")}:
            tally.failures.append("one store: temporary files were left")

        # A refresh reads the tree while vendor may replace it: edits become patches, or are undone and kept.
        edited = Project(folder / f"edited {number}/project", new.upstream, new.commit, new.store)
        shutil.copytree(new.root, edited.root)
        (edited.tree / NET).write_bytes((edited.tree / NET).read_bytes() + b"# edited\n")
        _all_well("vendor and refresh", [(edited, ("vendor",)), (edited, ("refresh",))] * 4, tally, (0, 2, 3, 4))
        edited.run("vendor")
        edited.run("verify")
        edited.run("lint")
        tally.counts["vendor and refresh: left a tree as locked"] += 1
        say(f"eight at once: {number + 1} of {rounds}")
    return tally


def _named(old: Project, new: Project) -> list[tuple[str, Project]]:
    return [("old", old), ("new", new)]


def _all_well(
    kind: str,
    runs: Sequence[tuple[Project, Sequence[str | Path]]],
    tally: Tally,
    codes: Sequence[int] = (0,),
) -> None:
    with ThreadPoolExecutor(len(runs)) as pool:
        begun = [pool.submit(project.run, *words, code=None) for project, words in runs]
    for run in begun:
        done = run.result()
        tally.counts[f"{kind}: runs"] += 1
        if done.returncode:
            tally.counts[f"{kind}: exit {done.returncode}"] += 1
        # A refresh that meets a tree of before another's says so, rather than undo it.
        refused = done.returncode == 1 and "was not made from the lock as it is" in done.stderr
        if done.returncode not in codes and not (refused and len(codes) > 1):
            tally.failures.append(f"{kind}: exit {done.returncode}\n{done.stderr}")
