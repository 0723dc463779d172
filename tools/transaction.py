"""Several files written as one: after a kill at any moment, all of them are old, or the next run makes all of them new.

What is to come is first written down whole in a journal, `build/journal` below the project. The rename that puts the
journal there is the moment at which the change has happened; what follows are renames of finished files into their
places, and any run that finds a journal does what is left of them.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import manifest
from tools.errors import UsageError
from tools.hashes import sha256
from tools.interrupt import held_back
from tools.limits import LARGEST_FILE, read_small
from tools.lock import path_fault
from tools.store import about, make_ordinary, write_atomically
from tools.tree import digest, locked

BUILD = "build"
# The one folder that may go together with a change of files: a rebase that is done.
REMOVABLE = f"{BUILD}/rebase"
_JOURNAL = "journal"
_PLAN = "plan.json"
# Folders that only a killed run leaves behind.
STRAY = ".dsu-patches-tmp-"


@contextmanager
def project_lock(root: Path) -> Iterator[None]:
    """Hold the project at `root` against other runs that write to it, and first finish what a killed one had begun.

    Raises UsageError when another run holds it for two minutes, and as `recover` does.
    """
    build = root / BUILD
    try:
        with locked(build):
            _finish(root)
            _sweep(build)
            yield
    finally:
        # As long as it is empty.
        with suppress(OSError):
            build.rmdir()


def write_together(root: Path, files: Mapping[Path, bytes | None], *, ends_rebase: bool = False) -> None:
    """Write every one of `files` (None: delete it), and then forget the rebase under way; all of it or nothing.

    files: absolute paths below `root`, or of a tree's manifest; the folders they lie in exist. To be called while
    `project_lock` is held. Raises UsageError for a path that leads out of the project, and OSError; nothing has changed
    then, unless the disk fails in the middle of renaming: then the next run goes on. A Ctrl-C at that time is answered
    when all is done.
    """
    build = root / BUILD
    build.mkdir(exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=STRAY, dir=build))
    try:
        plan = []
        for number, (path, data) in enumerate(files.items()):
            plan.append(
                {
                    "path": _named(root, path),
                    "before": digest(path),
                    "after": None if data is None else sha256(data),
                    "staged": str(number),
                }
            )
            if data is not None:
                _write(staging / str(number), data)
        whole = {"files": plan, "remove": REMOVABLE if ends_rebase else None}
        _write(staging / _PLAN, json.dumps(whole, indent=2).encode())
        try:
            _read(root, staging)
        except _UNREADABLE as error:
            raise UsageError(
                "files cannot be written together, so nothing was written",
                [str(error)],
                ["keep patches and documents in plain folders of the project"],
            ) from error
        with held_back():
            staging.rename(build / _JOURNAL)
            _finish(root)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def recover(root: Path) -> list[str]:
    """Finish what a killed run had begun to write below `root`; the paths concerned, none where nothing was begun.

    Raises UsageError when somebody has since changed one of the files, which is then left alone.
    """
    build = root / BUILD
    # A run may also have been killed while it cleared up; one that is at work has the lock's file there too.
    if not (build / _JOURNAL).exists() and not any(build.glob(f"{STRAY}*")):
        return []
    with locked(build):
        done = _finish(root)
        _sweep(build)
    with suppress(OSError):
        build.rmdir()
    return done


@dataclass(frozen=True)
class _Entry:
    """One file to write: its SHA-256 before and after (None: not there), and the file in the journal it comes from."""

    path: Path
    before: str | None
    after: str | None
    staged: Path


@held_back()
def _finish(root: Path) -> list[str]:
    journal = root / BUILD / _JOURNAL
    if not journal.exists():
        return []
    try:
        entries, remove = _read(root, journal)
        # A tree that was removed since has no manifest to write.
        entries = [entry for entry in entries if entry.path.parent.is_dir()]
        # A later edit is somebody's work: neither overwritten nor mixed with ours.
        changed = [str(entry.path) for entry in entries if digest(entry.path) not in (entry.before, entry.after)]
        changed += [str(entry.staged) for entry in entries if not _at_hand(entry)]
    except _UNREADABLE as error:
        raise UsageError(
            f"{journal} was not written by a run that was killed", [str(error)], [f"look at it, then: rm -r {journal}"]
        ) from error
    if changed:
        raise UsageError(
            "a killed run left files to write that were changed since",
            [f"changed: {path}" for path in changed],
            [f"take what you want from {journal}, whose {_PLAN} says what is what, then: rm -r {journal}"],
        )
    for entry in entries:
        if entry.after is None:
            entry.path.unlink(missing_ok=True)
        elif digest(entry.path) != entry.after:
            _move(entry.staged, entry.path)
    if remove:
        discard(root / remove)
    discard(journal)
    return [str(entry.path) for entry in entries]


_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError)


def _read(root: Path, journal: Path) -> tuple[list[_Entry], str | None]:
    """The entries of the plan in `journal`, and what is to be removed. Raises _UNREADABLE for one of no run's."""
    plan = json.loads(read_small(journal / _PLAN, LARGEST_FILE))
    if (remove := plan["remove"]) not in (None, REMOVABLE):
        raise ValueError(f"it is not for a run to remove {remove!r}")
    return [_entry(root, journal, entry) for entry in plan["files"]], remove


def _entry(root: Path, journal: Path, found: Mapping[str, Any]) -> _Entry:
    """An entry of the plan, which is no more to be trusted than any file. Raises ValueError for one of no run's."""
    name, staged = str(found["path"]), str(found["staged"])
    hashes = [found["before"], found["after"]]
    outside = Path(name).is_absolute()
    if why := "is not the manifest of a tree" if outside and Path(name).name != manifest.NAME else None:
        raise ValueError(f"path {name!r} {why}")
    if not outside and (why := path_fault(name)):
        raise ValueError(f"path {name!r} {why}")
    if not re.fullmatch("[0-9]{1,6}", staged) or not all(
        value is None or (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)) for value in hashes
    ):
        raise ValueError(f"the entry of {name!r} is malformed")
    if not outside and not (root / name).parent.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"path {name!r} leads out of the project")
    return _Entry(root / name, hashes[0], hashes[1], journal / staged)


def _at_hand(entry: _Entry) -> bool:
    return entry.after in (None, digest(entry.path), digest(entry.staged))


def _sweep(build: Path) -> None:
    for stray in build.glob(f"{STRAY}*"):
        shutil.rmtree(stray, ignore_errors=True)


def _named(root: Path, path: Path) -> str:
    # Relative where it can be: the project may be moved before the journal is read. A tree may lie in a folder with a
    # name that no lock may hold, and its manifest is known by its whole path.
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else ""
    return str(path) if path_fault(name) else name


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_atomically(target, source.read_bytes())


def _write(path: Path, data: bytes) -> None:
    with about(path), path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    make_ordinary(path, 0o666)


def discard(folder: Path) -> None:
    """Remove `folder` in one step as far as its name goes: a half-emptied one must not look like a whole one."""
    if folder.exists():
        gone = Path(tempfile.mkdtemp(prefix=STRAY, dir=folder.parent))
        folder.rename(gone / folder.name)
        shutil.rmtree(gone, ignore_errors=True)
