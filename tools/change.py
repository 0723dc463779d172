"""A change to patches, decisions, documents and lock: what follows is computed first, then written, the lock last.

A run that is killed in between leaves a lock that does not name the patches which are there; the same verb, run again,
puts that right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.apply import read_bytes
from tools.docs import stale
from tools.files import write
from tools.lock import DECISIONS, NAME, PATCHES, Lock, dump, parse
from tools.patch import parse as parse_patch


@dataclass(frozen=True)
class Change:
    """The lock to be, the patches' new bytes by file name (None for one that goes), and pyproject's, None as it is."""

    lock: Lock
    patches: Mapping[str, bytes | None] = field(default_factory=dict)
    decisions: bytes | None = None


def planned(root: Path, change: Change, verbs: Sequence[tuple[str, str]]) -> dict[str, bytes | None]:
    """What `change` and the documents that follow from it make new, bytes by path below `root`, the lock last.

    Raises UsageError for a lock that could not be read back and a document that cannot be computed, and what reading a
    patch raises.
    """
    sealed = dump(change.lock)
    parse(sealed.decode(), change.lock.decisions)
    patches = {}
    for file in change.lock.patched:
        data = change.patches.get(file.patch) or read_bytes(root, file)
        patches[file.path] = parse_patch(file.patch, data)
    plan: dict[str, bytes | None] = {f"{PATCHES}/{name}": data for name, data in change.patches.items()}
    if change.decisions:
        plan[DECISIONS] = change.decisions
    plan |= stale(root, change.lock, patches, verbs)
    plan[NAME] = sealed
    there = {path: (root / path).read_bytes() for path in plan if (root / path).exists()}
    return {path: data for path, data in plan.items() if data != there.get(path)}


def write_all(root: Path, change: Change, verbs: Sequence[tuple[str, str]]) -> list[str]:
    """Write what is `planned`, the lock last; the paths that changed. Call it while the project is held.

    Raises what `planned` does before anything is written; OSError from the disk.
    """
    plan = planned(root, change, verbs)
    # git keeps no empty folder: a first patch may find none.
    (root / PATCHES).mkdir(exist_ok=True)
    for path, data in plan.items():
        if data is None:
            (root / path).unlink()
        else:
            write(root / path, data)
    return list(plan)
