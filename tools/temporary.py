"""Temporary files and folders that killed runs do not leave behind for good.

Each is held, by a lock that the system drops with the process, while it is in use; whoever makes another removes those
that nobody holds. Windows has no such lock on a folder: what a killed run leaves there stays.
"""

import errno
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

if sys.platform != "win32":
    import fcntl

# No folder that is not held may have it.
_PREFIX = "dsu-patches."


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A folder in the system's place for temporary ones, as its base is; the first of a process removes abandoned ones.

    Raises OSError.
    """

    def __init__(self) -> None:
        place = _place()
        _sweep_folders(Path(place))
        while True:
            super().__init__(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True)
            self._handle: int | None = None
            with suppress(FileNotFoundError):
                if sys.platform != "win32":
                    self._handle = os.open(self.name, os.O_RDONLY)
                if hold(self._handle, Path(self.name)):
                    return
            # Another run took it for abandoned, in the moment before it was held.
            self.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A write to a full disk names no file.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG):
            error.filename = error.filename or self.name
        super().__exit__(kind, error, trace)

    def cleanup(self) -> None:
        super().cleanup()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _place() -> str:
    # Python finds out by a file that it writes and removes, and that a kill in between leaves behind.
    for name in (os.environ.get("TMPDIR"), "/tmp"):
        if name and Path(name).is_dir() and os.access(name, os.W_OK | os.X_OK):
            return str(Path(name).absolute())
    return tempfile.gettempdir()


@cache
def _sweep_folders(place: Path) -> None:
    with suppress(OSError):
        for path in place.glob(f"{_PREFIX}*"):
            _remove_unless_held(path)


def hold(handle: int | None, path: Path) -> bool:
    """Hold `path`, just made and open as `handle`, until that is closed; False when a sweep came first."""
    if sys.platform != "win32" and handle is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # A file system without locks, where no sweep gets one either.
            return True
    return path.exists()


def sweep_files(target: Path) -> None:
    """Remove what killed runs left of writing `target`."""
    with suppress(OSError):
        for path in target.parent.glob(f".{target.name}.*.tmp"):
            _remove_unless_held(path)


def _remove_unless_held(path: Path) -> None:
    if sys.platform == "win32":
        return
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(handle)
