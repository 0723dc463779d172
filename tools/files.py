"""Single files: their names as bytes (hashes), writing one atomically, holding one against other runs."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.errors import UsageError, log


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, 64 lower-case hex digits: it admits bytes."""
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    """The id git gives a blob with these bytes, 40 lower-case hex digits (a SHA-1 repository)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def digest(path: Path) -> str | None:
    """The SHA-256 of a regular file, None for anything else at `path`, a symbolic link included."""
    # Another run may remove it meanwhile.
    with suppress(FileNotFoundError):
        if path.is_file() and not path.is_symlink():
            return sha256(path.read_bytes())
    return None


def write(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Put `data` at `path` so that a reader, or a crash, sees the old bytes or the new ones whole. Raises OSError.

    temporary: where it is written first, beside `path` by default; what a killed run left there is overwritten.
    """
    beside = temporary or path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        # A full disk does not say which file.
        error.filename = error.filename or str(path)
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file `path` against other runs while the block runs; its folder is made.

    Waits as long as it takes, and says so at once. Raises UsageError where `path` cannot be locked.
    """
    from filelock import FileLock, Timeout

    lock, seconds = FileLock(path), 0
    while not lock.is_locked:
        try:
            lock.acquire(seconds)
        except Timeout:
            log.warning(f"waiting for another run, which holds {path}")
            seconds = -1
        except FileNotFoundError:
            # A `clean` has removed the folder meanwhile. Where none can be made, that is an end, not a loop.
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            step = "work on a local disk that can be written; DEST= chooses the tree's place"
            raise UsageError(f"{path} cannot be locked: {error.strerror}", next_steps=[step]) from error
    try:
        yield
    finally:
        # Removed while held: a waiter that had it open sees that its file is gone and starts over.
        if os.name != "nt":
            path.unlink(missing_ok=True)
        lock.release()
