"""Several files written as one: after a kill at any moment, all of them are old, or the next run makes all of them new.

What is to come is first written down whole in a journal, `build/journal` below the project. The rename that puts the
journal there is the moment at which the change has happened; what follows are renames of finished files into their
places, and any run that finds a journal does what is left of them.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.errors import UsageError
from tools.hashes import sha256
from tools.store import make_ordinary, write_atomically
from tools.tree import digest, locked

BUILD = "build"
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
            for stray in build.glob(f"{STRAY}*"):
                shutil.rmtree(stray, ignore_errors=True)
            yield
    finally:
        # As long as it is empty.
        with suppress(OSError):
            build.rmdir()


def write_together(root: Path, files: Mapping[Path, bytes | None], remove: Path | None = None) -> None:
    """Write every one of `files` (None: delete it), and then delete the folder `remove`; all of it or nothing.

    files: absolute paths; the folders they lie in exist. To be called while `project_lock` is held. Raises OSError, and
    nothing has changed then, unless the disk fails in the middle of renaming: then the next run goes on.
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
        _write(
            staging / _PLAN, json.dumps({"files": plan, "remove": remove and _named(root, remove)}, indent=2).encode()
        )
        staging.rename(build / _JOURNAL)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _finish(root)


def recover(root: Path) -> list[str]:
    """Finish what a killed run had begun to write below `root`; the paths concerned, none where nothing was begun.

    Raises UsageError when somebody has since changed one of the files, which is then left alone.
    """
    if not (root / BUILD / _JOURNAL).exists():
        return []
    with locked(root / BUILD):
        return _finish(root)


def _finish(root: Path) -> list[str]:
    journal = root / BUILD / _JOURNAL
    try:
        plan = json.loads((journal / _PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    entries = [(root / entry["path"], entry["before"], entry["after"], entry["staged"]) for entry in plan["files"]]
    # A tree that was removed since has no manifest to write.
    entries = [entry for entry in entries if entry[0].parent.is_dir()]
    # A later edit is somebody's work: neither overwritten nor mixed with ours.
    changed = [str(path) for path, before, after, _ in entries if digest(path) not in (before, after)]
    if changed:
        raise UsageError(
            "a killed run left files to write that were changed since",
            [f"changed: {path}" for path in changed],
            [
                f"the new files lie in {journal}, {_PLAN} says which is which: take from them what you want, then",
                f"rm -r {journal}",
            ],
        )
    for path, _, after, staged in entries:
        if after is None:
            path.unlink(missing_ok=True)
        elif digest(path) != after:
            _move(journal / staged, path)
    if plan["remove"]:
        discard(root / plan["remove"])
    discard(journal)
    return [str(path) for path, *_ in entries]


def _named(root: Path, path: Path) -> str:
    # Relative where it can be: the project may be moved before the journal is read.
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_atomically(target, source.read_bytes())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
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
