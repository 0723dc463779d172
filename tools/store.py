"""The local content-addressed cache of bytes that passed their hash.

Entries live at <root>/sha256/<2 hex>/<62 hex>; beside an entry, `.origin` says which source it came from. Nothing here
is trusted: a read goes through the hash again.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.hashes import sha256
from tools.limits import LARGEST_FILE, read_small
from tools.temporary import hold, sweep_files

ENV = "DSU_PATCHES_STORE"


def default_root() -> Path:
    """The user's cache folder, or what the environment variable DSU_PATCHES_STORE names."""
    if override := os.environ.get(ENV):
        return Path(override)
    from platformdirs import user_cache_path

    return user_cache_path("dsu-patches", appauthor=False)


def make_ordinary(path: Path, mode: int) -> None:
    """Give `path`, made private by `tempfile`, the mode that a plain `open` or `mkdir` gives: `mode` less the umask."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a crash, sees the old bytes or the new ones whole. Raises OSError."""
    sweep_files(path)
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            if not hold(handle, Path(name)):
                continue
            try:
                with about(path):
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                    make_ordinary(Path(name), 0o666)
                    if os.name == "nt":
                        # No open file can be renamed there; elsewhere it is held until it is in its place.
                        stream.close()
                    Path(name).replace(path)
                return
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Have an OSError of the block name `path`, where it names none: a write to a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class Store:
    """A content-addressed store below `root`; `warn` is told, in one line, of anything dropped or not kept."""

    def __init__(self, root: Path, warn: Callable[[str], None]) -> None:
        self.root = root
        self._warn = warn
        self._writable = True

    def path(self, digest: str) -> Path:
        """Where the entry with this SHA-256 lies, or would lie."""
        return self.root / "sha256" / digest[:2] / digest[2:]

    def get(self, digest: str) -> bytes | None:
        """The bytes with this SHA-256, or None. An entry that fails its hash is dropped with a warning."""
        path = self.path(digest)
        try:
            data = read_small(path, LARGEST_FILE)
        except (FileNotFoundError, NotADirectoryError):
            # The second is a file in the way of the store, which `put` warns of, once.
            return None
        except OSError as error:
            self._warn(f"store entry cannot be read: {path}: {error.strerror or 'no regular file, or too large'}")
            return None
        if (actual := sha256(data)) == digest:
            return data
        self._warn(f"store entry dropped, its bytes have SHA-256 {actual}: {path}")
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"and it could not be removed: {error.strerror}")
        return None

    def origin(self, digest: str) -> str:
        """Which source the entry came from, as recorded when it was admitted."""
        try:
            return read_small(self.path(digest).with_suffix(".origin"), LARGEST_FILE).decode().strip()
        except (OSError, UnicodeDecodeError):
            return "store"

    def put(self, data: bytes, origin: str) -> Path | None:
        """Keep `data`; its path, or None (with one warning a run) where the store cannot be written."""
        path = self.path(sha256(data))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path.with_suffix(".origin"), origin.encode())
            write_atomically(path, data)
        except OSError as error:
            if self._writable:
                self._warn(f"the store at {self.root} cannot be written, so nothing is kept: {error}")
            self._writable = False
            return None
        return path
