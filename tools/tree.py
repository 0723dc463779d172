"""Folders on disk: what lies in one, and swapping a complete new one in.

A folder, of one component or of all, is built in a sibling, verified there, and exchanged with the old one in a single
system call where there is one (Linux, macOS). Elsewhere it takes two renames; a run killed between them is finished by
the next.
"""

import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from tools.errors import HashMismatch, UsageError
from tools.hashes import sha256
from tools.store import about, make_ordinary

_STAGING = ".dsu-staging-"
_RETIRED = ".dsu-retired"
LOCK_NAME = ".dsu-vendor.lock"
_LOCK_SECONDS = 120


def listing(folder: Path) -> dict[str, Path]:
    """Every file below `folder` by its posix path relative to it; {} when it is not there.

    Symbolic links count as files and are not followed. Python's own `__pycache__/*.pyc` are left out: using the models
    makes them, and Python holds them against their source, without which it does not run them either. Raises OSError
    for a folder that cannot be read.
    """
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder, onerror=_unless_absent):
        base = Path(place)
        links = [name for name in folders if (base / name).is_symlink()]
        for name in [*names, *links]:
            if not (base.name == "__pycache__" and name.endswith(".pyc") and _is_checked(base / name)):
                found[(base / name).relative_to(folder).as_posix()] = base / name
    return dict(sorted(found.items()))


def _is_checked(cache: Path) -> bool:
    """Whether the .pyc file `cache` is none that Python runs without a look at its source: PEP 552's unchecked hash."""
    try:
        if not cache.is_file():
            return False
        with cache.open("rb") as stream:
            return stream.read(8)[4:] != b"\1\0\0\0"
    except FileNotFoundError:
        # Another run has removed it since.
        return True
    except PermissionError:
        return False


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def digest(path: Path) -> str | None:
    """The SHA-256 of a regular file, None for anything else at `path`, a symbolic link included."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        found = hashlib.sha256()
        with path.open("rb") as stream:
            # Python 3.10, on which the model tests run too, has no hashlib.file_digest.
            while part := stream.read(1 << 20):
                found.update(part)
        return found.hexdigest()
    except FileNotFoundError:
        # Another run has removed it since.
        return None


def refuse_links(tree: Path, path: str) -> None:
    """UsageError when a folder on the way from `tree` to `path` is a symbolic link: what lies behind is not ours."""
    here = tree
    for part in path.split("/"):
        here = here / part
        try:
            plain = stat.S_ISDIR(here.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return
        if not plain:
            raise UsageError(
                f"{here} is not a plain folder",
                ["a component is written only where its own path leads"],
                ["replace it by a folder, or name another DEST="],
            )


@contextmanager
def locked(tree: Path) -> Iterator[None]:
    """Hold `tree` against other runs. Raises UsageError when another holds it for two minutes."""
    from filelock import FileLock, Timeout

    path = tree / LOCK_NAME
    lock = FileLock(path)
    for turn in count(1):
        try:
            tree.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_LOCK_SECONDS)
            break
        except (FileNotFoundError, FileExistsError):
            # A `clean` may have removed the tree that was just made, or just seen.
            if turn == 20:
                raise
        except Timeout as error:
            raise UsageError(f"another run holds {path}", next_steps=["wait for it, or end it"]) from error
    try:
        yield
    finally:
        # Removed while held: a waiter that had it open sees that its file is gone and starts over.
        if os.name != "nt":
            path.unlink(missing_ok=True)
        lock.release()


def leftovers(tree: Path, folder: str) -> list[Path]:
    """What killed runs left beside component folder `folder` of `tree`, and beside the folder that it lies in."""
    found = []
    for final in _swapped(tree, folder):
        ours = (f".{final.name}{_STAGING}", f".{final.name}{_RETIRED}")
        if final.parent.is_dir():
            found += sorted(path for path in final.parent.iterdir() if path.name.startswith(ours))
    return found


def _swapped(tree: Path, folder: str) -> list[Path]:
    """What `swap_in` may have been at when it wrote component folder `folder`: the folder around it, and itself."""
    return [path for path in ((tree / folder).parent, tree / folder) if path != tree]


def interrupted(tree: Path, folders: Iterable[str]) -> bool:
    """Whether a run was killed in `tree`, at one of its component `folders`, or is still at work there."""
    return (tree / LOCK_NAME).exists() or any(leftovers(tree, folder) for folder in folders)


def recover(tree: Path, folder: str) -> list[str]:
    """Finish or undo what killed runs left beside `folder`; one line for each thing done. Call it while `locked`."""
    done = []
    for final in _swapped(tree, folder):
        retired = final.with_name(f".{final.name}{_RETIRED}")
        if retired.is_dir() and not retired.is_symlink() and not final.exists():
            retired.rename(final)
            done.append(f"{final.relative_to(tree).as_posix()}: put back, a killed run had moved it aside")
    for path in leftovers(tree, folder):
        if path.is_dir() and not path.is_symlink():
            _remove(path)
        else:
            path.unlink()
        done.append(f"{path.relative_to(tree).as_posix()}: removed, a killed run had left it")
    for path in tree.glob(".*PROVENANCE.json.*.tmp"):
        path.unlink(missing_ok=True)
    return done


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        # It names what is in the folder by that name alone.
        error.filename = str(folder)
        raise


def swap_in(tree: Path, folder: str, files: Mapping[str, bytes], carried: Iterable[str]) -> None:
    """Make `folder` of `tree` hold exactly `files` (bytes by path below `tree`) and its own old files `carried`.

    carried: paths below `folder`, copied over as they are; with neither, the folder goes. What somebody puts there
    meanwhile is moved over. Raises HashMismatch when what was written does not read back, UsageError for a mount in it,
    OSError from the disk; in all cases the old folder stands untouched.
    """
    final = tree / folder
    if mounted := mounts(final):
        raise UsageError(
            f"{final} cannot be replaced", [f"is a mount: {path}" for path in mounted], ["unmount it, or move it away"]
        )
    seen = set(listing(final))
    for place, _, _ in os.walk(final):
        # The old folder could be exchanged, but not removed then, by this run or any later one.
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}{_STAGING}", dir=final.parent))
    try:
        make_ordinary(staging, 0o777)
        for path, data in files.items():
            target = staging / Path(path).relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            with about(target), target.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for name in carried:
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(final / name, target, follow_symlinks=False)
        for path, data in files.items():
            if digest(staging / Path(path).relative_to(folder)) != sha256(data):
                raise HashMismatch(f"{path} does not read back as it was written", next_steps=["check the disk"])
        _sync_folder(staging)
        _like(staging, final)
        _put(staging, final, seen)
        _sync_folder(final.parent)
    finally:
        # The old folder after the exchange, or an unfinished new one.
        shutil.rmtree(staging, ignore_errors=True)


def mounts(folder: Path) -> list[Path]:
    """What is mounted at `folder` or below: exchanged with its folder, it would be emptied with it."""
    try:
        # A mount of the same file system, or of a single file, is told nowhere else.
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        named = [re.sub(r"\\([0-7]{3})", lambda at: chr(int(at[1], 8)), line.split()[4]) for line in lines]
    except (OSError, IndexError):
        named = []
    real = folder.resolve()
    found = {Path(name) for name in named if Path(name).is_relative_to(real)}
    return sorted(found | {Path(place) for place, _, _ in os.walk(folder) if os.path.ismount(place)})


def _like(staging: Path, final: Path) -> None:
    """Give the folders of `staging` the modes and owners that they have in `final`."""
    for place, _, _ in os.walk(staging):
        old = final / Path(place).relative_to(staging)
        if old.is_dir() and not old.is_symlink():
            about_old = old.stat()
            # Only the owner of both, or root, can give a folder away.
            with suppress(OSError, AttributeError):
                os.chown(place, about_old.st_uid, about_old.st_gid)
            shutil.copymode(old, place)


def _rescue(old: Path, final: Path, seen: Set[str]) -> None:
    """Move over to `final` what somebody has put into `old` since it was `seen`, unless it is in our place."""
    for name, path in listing(old).items():
        target = final / name
        if name not in seen and not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)


def prune_upwards(folder: Path, stop: Path) -> None:
    """Remove `folder` and then its parents below `stop`, as far as they are empty."""
    while folder != stop and folder.is_relative_to(stop):
        with suppress(OSError):
            folder.rmdir()
        folder = folder.parent


def _put(staging: Path, final: Path, seen: Set[str]) -> None:
    if not any(staging.iterdir()):
        gone = staging / final.name
        final.rename(gone)
        _rescue(gone, final, seen)
    elif not final.exists():
        staging.rename(final)
    elif _exchange(staging, final):
        _rescue(staging, final, seen)
    else:
        retired = final.with_name(f".{final.name}{_RETIRED}")
        try:
            final.rename(retired)
            staging.rename(final)
        finally:
            # An error or an interruption in between.
            if not final.exists():
                retired.rename(final)
        _rescue(retired, final, seen)
        # Windows keeps files that are open; the next run removes them.
        shutil.rmtree(retired, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system has no such call."""
    calls = {
        # renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
        "linux": ("renameat2", (-100, os.fsencode(one), -100, os.fsencode(other), 2)),
        # renamex_np(one, other, RENAME_SWAP)
        "darwin": ("renamex_np", (os.fsencode(one), os.fsencode(other), 2)),
    }
    if sys.platform not in calls:
        return False
    name, arguments = calls[sys.platform]
    try:
        call = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return False
    return bool(call(*arguments) == 0)


def _sync_folder(path: Path) -> None:
    # Not every system opens a folder (Windows) or syncs one (some network file systems).
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
