"""Pin, store, tree and patches at a glance. Offline; reads, never writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.apply import read_patch
from tools.errors import ToolError
from tools.lock import Lock
from tools.store import Store
from tools.verify import check


@dataclass(frozen=True)
class Status:
    """`stored` of `total` pinned files are in the store; `tree` holds a word a component; `patches` a word a patch."""

    pin: str
    date: str
    stored: int
    total: int
    tree: dict[str, str]
    patches: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def status(root: Path, lock: Lock, tree: Path, store: Store) -> Status:
    """How things stand. A component is `absent`, `as locked`, or says how many findings `verify` has."""
    trees = {}
    for component in lock.components:
        if not (tree / component.path).exists():
            trees[component.name] = "absent"
            continue
        found = check(tree, lock, [component], named=True)
        trees[component.name] = f"{len(found)} findings, see make verify" if found else "as locked"
    patches = {}
    for locked in lock.patches:
        try:
            patch, _ = read_patch(root, locked)
            patches[locked.file] = f"as locked, +{patch.added} -{patch.removed}"
        except ToolError as error:
            patches[locked.file] = error.message
    stored = sum(store.get(file.sha256) is not None for file in lock.files)
    return Status(lock.pin.commit, lock.pin.date, stored, len(lock.files), trees, patches)
