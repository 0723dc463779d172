"""Carry the patches to another commit of upstream: all of it, or nothing yet.

A rebase that needs a person stops, and stands in `build/rebase` below the project until it is continued or aborted:
files to resolve, and what it takes to go on without asking anybody again. Patches and lock change only at the end, in
one step.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from tools.apply import read_patches
from tools.carry import Carried, Survey, markers, survey, syntax_fault
from tools.change import completed, prove
from tools.ends import find, old_files, patched_bytes, place
from tools.errors import ToolError, Undecided, UsageError
from tools.git import Scratch
from tools.hashes import sha256
from tools.history import History
from tools.lock import LOCK_NAME, Lock, Pin, is_called, words_in
from tools.patchset import blemishes, parse
from tools.progress import Progress
from tools.refresh import bare, rendered
from tools.relock import Move, moved
from tools.sources import on_this_machine
from tools.store import Store
from tools.transaction import REMOVABLE, write_together

FOLDER = REMOVABLE
RESOLVE = "resolve"


@dataclass(frozen=True)
class Choices:
    """What a person decides: new files to take up, patches or files to drop, and whether lines may get lost.

    The last counts for the run that is told so, and is not kept: a run later there may be other lines to lose.
    """

    add: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()
    allow_loss: bool = False

    def more(self, other: "Choices") -> "Choices":
        return Choices(self.add | other.add, self.drop | other.drop, self.allow_loss or other.allow_loss)


@dataclass(frozen=True)
class Rebase:
    """A rebase as far as it has come.

    began: SHA-256 of the lock it began from. files: bytes at the new commit, of all pinned files there and of those
    that could be added. origin: where these came from, for the store.
    """

    began: str
    old: Pin
    new: Pin
    survey: Survey
    files: Mapping[str, bytes]
    origin: str
    choices: Choices = field(default_factory=Choices)

    @property
    def dropped_patches(self) -> frozenset[str]:
        return frozenset(
            patch.file for patch in self.survey.patches if self.choices.drop & {patch.file, patch.target, patch.path}
        )

    @property
    def nothing_to_do(self) -> bool:
        """Whether the pin is there already, and nothing was chosen either."""
        return self.old == self.new and not (self.choices.add or self.choices.drop)

    @property
    def paths(self) -> dict[str, str | None]:
        """Where each file that was pinned is now; None for those that are gone."""
        return {file.old: file.path for file in self.survey.files}


@dataclass(frozen=True)
class Problem:
    """Something that keeps a rebase from its end: what it is, what may be done about it, and what may be dropped."""

    text: str
    way: str
    drop: str = ""


@dataclass(frozen=True)
class Finished:
    """What a rebase wrote, or with `dry_run` would have written, as paths below the project.

    blemishes: what `lint` will not like in what the patches add.
    """

    written: tuple[str, ...]
    removed: tuple[str, ...]
    blemishes: tuple[str, ...]


def begin(
    root: Path,
    lock: Lock,
    name: str,
    url: str | None,
    upstream: str | None,
    pinned: Mapping[str, bytes],
    progress: Progress,
    *,
    offline: bool = False,
) -> Rebase:
    """The rebase of `lock` to `name`, a branch, tag or commit of `url`, by default the pin's.

    upstream: a copy of the repository to ask instead. pinned: bytes of all pinned files. Nothing is written. Raises
    NoSource, UsageError, and for patches that do not stand as they are what `build` raises.
    """
    patches = read_patches(root, lock)
    patched = patched_bytes(root, lock, pinned)
    where = place(url or lock.pin.url, upstream, offline=offline)
    with History() as history:
        branch, commit = find(where, name, lock.pin.branch, history, progress)
        asked = url and (not offline or on_this_machine(lock.pin.url))
        before = place(lock.pin.url, None) if asked else where
        old = old_files(before, lock.pin.commit, pinned, history, progress)
        new = history.files(commit)
        progress.line(f"merging {len(lock.patches)} patches")
        found = survey(history, lock, patches, pinned, patched, old, new)
        paths = [*(file.path for file in found.files if file.path), *found.added, *found.passed_over]
        files = {path: history.read(new[path]) for path in paths}
        pin = Pin(where.url, branch, commit, history.date(commit))
    origin = "UPSTREAM" if upstream else f"git {where.url}"
    return Rebase(sha256((root / LOCK_NAME).read_bytes()), lock.pin, pin, found, files, origin)


def chosen(rebase: Rebase, add: Iterable[str], drop: Iterable[str], allow_loss: bool) -> Rebase:
    """`rebase` with further choices; names may be the ends of paths. Raises UsageError for one that fits nothing."""
    can_drop = {name for patch in rebase.survey.patches for name in (patch.file, patch.target)}
    can_drop |= {file.old for file in rebase.survey.files if file.path is None}
    can_add = [*rebase.survey.added, *rebase.survey.passed_over]
    choices = Choices(_fitting("add", add, can_add), _fitting("drop", drop, sorted(can_drop)), allow_loss)
    return replace(rebase, choices=rebase.choices.more(choices))


def _fitting(what: str, values: Iterable[str], known: Sequence[str]) -> frozenset[str]:
    def fits(name: str) -> list[str]:
        return [path for path in known if is_called(path, name)]

    # A value is one name that may have blanks in it, or several names.
    names = [name for value in values for name in ([value] if fits(value) else words_in(value))]
    found = set()
    for name in names:
        if len(paths := fits(name)) != 1:
            why = f"could be any of {', '.join(paths)}" if paths else f"is nothing to {what}"
            raise UsageError(f"{name} {why}", next_steps=[f"there is to {what}: {', '.join(known) or 'nothing'}"])
        found.add(paths[0])
    return frozenset(found)


def problems(rebase: Rebase) -> list[Problem]:
    """What is left to decide before `rebase` can be finished; nothing when it can."""
    found = []
    dropped = rebase.dropped_patches
    gone = {patch.target for patch in rebase.survey.patches if patch.path is None}
    for patch in rebase.survey.patches:
        if patch.file not in dropped:
            found += _of_patch(patch, rebase.choices)
    for file in rebase.survey.files:
        if file.path is None and file.old not in gone | rebase.choices.drop:
            note = f" ({file.note})" if file.note else ""
            found.append(Problem(f"{file.old}: gone upstream{note}", f"DROP={file.old} does without it", file.old))
    kept = {path.rpartition("/")[0] for path in (*rebase.paths.values(), *rebase.choices.add) if path}
    folders = {path.rpartition("/")[0] for path in (*rebase.paths, *rebase.survey.added, *rebase.survey.passed_over)}
    for folder in sorted(folders - kept):
        way = f"ADD= takes up files, or give up and mend the component's path in {LOCK_NAME}: make rebase-abort"
        found.append(Problem(f"{folder}: none of its files is left", way))
    return found


def _of_patch(patch: Carried, choices: Choices) -> list[Problem]:
    drop = f"DROP={patch.file} does without it"
    if patch.path is None:
        note = f" ({patch.note})" if patch.note else ""
        return [Problem(f"{patch.file}: {patch.target} is gone upstream{note}", f"{drop} and its file", patch.file)]
    if patch.outcome == "conflict" and patch.note:
        return [Problem(f"{patch.file}: {patch.path} cannot be merged, {patch.note}", drop, patch.file)]
    if patch.result == patch.new:
        why = ", upstream has it already" if patch.outcome == "already upstream" else ""
        return [Problem(f"{patch.file}: nothing of it is left to do{why}", drop, patch.file)]
    if left := markers(patch.result, [patch.base, patch.old, patch.new]):
        lines = ", ".join(map(str, left))
        edit = f"edit {FOLDER}/{RESOLVE}/{patch.path}, whose markers are on lines {lines}"
        return [Problem(f"{patch.file}: conflict in {patch.path}", edit)]
    found = []
    edit = f"edit {FOLDER}/{RESOLVE}/{patch.path}"
    try:
        patch.result.decode()
    except UnicodeDecodeError as error:
        return [Problem(f"{patch.file}: the result is not UTF-8: {error}", edit)]
    if fault := syntax_fault(patch.path, patch.result, patch.new):
        found.append(Problem(f"{patch.file}: the result is no Python: {fault}", edit))
    if b"\r\n" in patch.result and not (b"\r\n" in patch.old or b"\r\n" in patch.new):
        text = f"{patch.file}: {patch.path} has Windows line ends now, which upstream's has not"
        # Every line would be a lost one.
        return [*found, Problem(text, edit)]
    if not choices.allow_loss:
        goes_on = f"{edit}, or ALLOW_LOSS=1 goes on without them"
        found += [Problem(f"{patch.file}: lost: {line.strip()}", goes_on) for line in patch.lost]
    return found


def finish(
    root: Path,
    lock: Lock,
    rebase: Rebase,
    verbs: Sequence[tuple[str, str]],
    store: Store,
    progress: Progress,
    today: date,
    *,
    offline: bool = False,
    dry_run: bool = False,
) -> Finished:
    """Write patches, lock and documents for the new pin in one step, once a tree has been built from them and verified.

    offline: no network is asked what the baseline has of new paths. To be called while `project_lock` is held,
    without problems left. Raises what `build` raises, before anything is written.
    """
    dropped = rebase.dropped_patches
    patches: dict[str, bytes] = {}
    changes: dict[str, bytes | None] = {}
    for patch in rebase.survey.patches:
        old = (root / patch.file).read_bytes()
        if patch.file in dropped:
            changes[patch.file] = None
        elif (patch.path, patch.new, patch.result) == (patch.target, patch.base, patch.old):
            patches[patch.file] = old
        else:
            patches[patch.file] = changes[patch.file] = _exported(patch, old, today)
    kept = sorted({*filter(None, rebase.paths.values()), *rebase.choices.add})
    folders = {part.name: part.path for part in lock.components}
    move = Move(
        rebase.new,
        {name: [path for path in kept if path.rpartition("/")[0] == folder] for name, folder in folders.items()},
        {path: rebase.files[path] for path in kept},
    )
    text = (root / LOCK_NAME).read_text(encoding="utf-8")
    changes[LOCK_NAME] = moved(text, lock, move, patches, progress, offline=offline).encode()
    _, plan = completed(root, changes, move.files, verbs)
    prove(root, changes, move.files)
    if not dry_run:
        for data in move.files.values():
            store.put(data, rebase.origin)
        write_together(root, plan, ends_rebase=True)
    names = {path.relative_to(root).as_posix(): data for path, data in plan.items()}
    return Finished(
        tuple(name for name, data in names.items() if data is not None),
        tuple(name for name, data in names.items() if data is None),
        tuple(line for name, data in patches.items() for line in blemishes(parse(name, data, draft=True))),
    )


def _exported(patch: Carried, old: bytes, today: date) -> bytes:
    assert patch.path is not None
    with Scratch() as scratch:
        body = bare(scratch.diff(patch.path, patch.new, patch.result, 0))
    return rendered(old, body, today)


def resolved(rebase: Rebase) -> Rebase:
    """`rebase` with every patch whose markers are gone counted as merged, so that what it lost is looked for."""

    def settled(patch: Carried) -> Carried:
        open_ = patch.note or markers(patch.result, [patch.base, patch.old, patch.new])
        solved = patch.outcome == "conflict" and not open_
        return replace(patch, outcome="merged") if solved else patch

    return replace(rebase, survey=replace(rebase.survey, patches=tuple(map(settled, rebase.survey.patches))))


def listed(found: Sequence[Problem]) -> list[str]:
    """`found` in lines: what each is, and below it what may be done."""
    lines = []
    for problem, following in zip(found, [*found[1:], None], strict=True):
        lines.append(problem.text)
        # Said once for several in a row.
        if following is None or following.way != problem.way:
            lines.append(f"  {problem.way}")
    return lines


def steps(found: Sequence[Problem]) -> list[str]:
    """The commands that go on, or do not, once `found` are seen to."""
    names = [problem.drop for problem in found if problem.drop]
    # One with blanks in it has to be named alone.
    together = " ".join(name for name in names if " " not in name)
    values = [*([together] if together else []), *(name for name in names if " " in name)]
    goes_on = [f'make rebase-continue DROP="{value}"' for value in values] or ["make rebase-continue"]
    return [*goes_on, "make rebase-abort forgets it all"]


def undecided(found: Sequence[Problem], then: Sequence[str]) -> ToolError:
    """The error with which a rebase stops for `found`; `then` are the next steps."""
    return Undecided("the rebase needs a decision; patches and lock are as they were", listed(found), then)
