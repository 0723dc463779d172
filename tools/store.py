"""The local content-addressed cache of bytes that passed their hash, and of copies of edits that were replaced.

Entries lie at <root>/sha256/<2 hex>/<62 hex>. Nothing here is trusted: a read goes through the hash again.
"""

import os
from pathlib import Path

from tools.errors import log
from tools.files import sha256, write

ENV = "DSU_PATCHES_STORE"


class Store:
    """A store below `root`; by default below what DSU_PATCHES_STORE names, or the user's cache folder."""

    def __init__(self, root: Path | None = None) -> None:
        if named := root or os.environ.get(ENV):
            self.root = Path(named).expanduser().absolute()
        else:
            from platformdirs import user_cache_path

            self.root = user_cache_path("dsu-patches", appauthor=False)
        self._writable = True

    def path(self, digest: str) -> Path:
        """Where the entry with this SHA-256 lies, or would lie."""
        return self.root / "sha256" / digest[:2] / digest[2:]

    def get(self, digest: str) -> bytes | None:
        """The bytes with this SHA-256, or None. An entry that fails its hash is dropped with a warning."""
        path = self.path(digest)
        try:
            if not path.is_file():
                return None
            if sha256(data := path.read_bytes()) == digest:
                return data
            log.warning(f"store entry dropped, its bytes have another hash: {path}")
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning(f"store entry cannot be read or dropped: {path}: {error.strerror}")
        return None

    def put(self, data: bytes) -> Path | None:
        """Keep `data`; its path, or None (with one warning a run) where the store cannot be written."""
        path = self.path(sha256(data))
        try:
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                # Of this process alone: two runs may put the same bytes at once.
                write(path, data, self.root / f".{os.getpid()}.new")
        except OSError as error:
            if self._writable:
                log.warning(f"the store at {self.root} cannot be written, so nothing is kept: {error}")
            self._writable = False
            return None
        return path
