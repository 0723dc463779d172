"""What a verb works on: the project's folder, the store, the tree, and where upstream's files may come from."""

from functools import cached_property
from pathlib import Path

import attrs

from tools.lock import Lock, load
from tools.store import Store


@attrs.frozen
class Project:
    """root: the folder with upstream.lock and patches/. tree: the folder with models/ in it.

    upstream: a place to ask first, "" for none. offline: ask no network.
    """

    root: Path
    store: Store
    tree: Path
    upstream: str = ""
    offline: bool = False

    @cached_property
    def lock(self) -> Lock:
        """The lock, read on first use. Raises UsageError as `lock.load` does."""
        return load(self.root)
