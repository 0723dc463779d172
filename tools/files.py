"""Single files: hashing one, writing one atomically, and locking one against other runs."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.errors import UsageError, log


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    """The id that git gives a blob with these bytes (SHA-1), in hex."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def digest(path: Path) -> str | None:
    """The SHA-256 of a regular file; None for a link, a folder or nothing."""
    # Another run may remove the file meanwhile.
    with suppress(FileNotFoundError):
        if path.is_file() and not path.is_symlink():
            return sha256(path.read_bytes())
    return None


def write(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Write `data` to `path` atomically: to `temporary`, by default beside `path`, then by a rename. Raises OSError."""
    beside = temporary or path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        # The error of a full disk names no file.
        error.filename = error.filename or str(path)
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock `path` against other runs while the block runs; waits for them. Raises UsageError where that fails."""
    from filelock import FileLock, Timeout

    lock, seconds = FileLock(path), 0
    while not lock.is_locked:
        try:
            lock.acquire(seconds)
        except Timeout:
            log.warning(f"waiting for another run, which holds {path}")
            seconds = -1
        except FileNotFoundError:
            # The first run in this folder, or another run removed it meanwhile. OSError where it cannot be made.
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            step = "use a local, writable disk; DEST= chooses the folder of the tree"
            raise UsageError(f"{path} cannot be locked: {error.strerror}", next_steps=[step]) from error
    try:
        yield
    finally:
        # Another run that waits for this file sees that it is gone, and locks a new one.
        if os.name != "nt":
            path.unlink(missing_ok=True)
        lock.release()
