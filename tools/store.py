"""The store: a local cache of files, and of copies of replaced edits, by SHA-256. Every read checks the hash."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from tools.errors import log
from tools.files import sha256, write


class Store:
    """The store at `root`, by default at DSU_PATCHES_STORE or in the user's cache folder."""

    def __init__(self, root: Path | None = None) -> None:
        named = root or os.environ.get("DSU_PATCHES_STORE") or user_cache_path("dsu-patches", appauthor=False)
        self.root = Path(named).expanduser().absolute()
        self._writable = True

    def path(self, digest: str) -> Path:
        """The place of the file with this SHA-256, by its first two and the other hex digits."""
        return self.root / "sha256" / digest[:2] / digest[2:]

    def get(self, digest: str) -> bytes | None:
        """The bytes with this SHA-256, or None. A damaged file is removed with a warning."""
        path = self.path(digest)
        try:
            if not path.is_file():
                return None
            if sha256(data := path.read_bytes()) == digest:
                return data
            log.warning(f"damaged file removed from the store: {path}")
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning(f"file in the store cannot be read or removed: {path}: {error.strerror}")
        return None

    def put(self, data: bytes) -> Path | None:
        """Keep `data`; its path, or None (with one warning) where the store cannot be written."""
        path = self.path(digest := sha256(data))
        try:
            if self.get(digest) is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                # Another run may put the same bytes at the same time.
                write(path, data, self.root / f".{os.getpid()}.new")
            return path
        except OSError as error:
            if self._writable:
                log.warning(f"the store at {self.root} cannot be written, so nothing is kept: {error}")
            self._writable = False
            return None
