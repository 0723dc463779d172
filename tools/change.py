"""Writes patches, pyproject.toml, documents and the lock, in this order.

After a kill in between, the lock does not match the patches; running the same verb again completes the change.
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
    """The new lock, changed patches (bytes by file name, None: removed), and pyproject.toml's bytes if they change."""

    lock: Lock
    patches: Mapping[str, bytes | None] = field(default_factory=dict)
    decisions: bytes | None = None


def planned(root: Path, change: Change, verbs: Sequence[tuple[str, str]]) -> dict[str, bytes | None]:
    """The files that `change` writes, documents included, the lock last: bytes by path, None: removed.

    Raises UsageError for a lock that could not be read again, and as `docs.stale` and reading a patch do.
    """
    sealed = dump(change.lock)
    parse(sealed.decode(), change.lock.decisions)
    patches = {}
    for file in change.lock.patched:
        patches[file.path] = parse_patch(file.patch, change.patches.get(file.patch) or read_bytes(root, file))
    plan: dict[str, bytes | None] = {f"{PATCHES}/{name}": data for name, data in change.patches.items()}
    if change.decisions:
        plan[DECISIONS] = change.decisions
    plan |= stale(root, change.lock, patches, verbs)
    plan[NAME] = sealed
    there = {path: (root / path).read_bytes() for path in plan if (root / path).exists()}
    return {path: data for path, data in plan.items() if data != there.get(path)}


def write_all(root: Path, plan: Mapping[str, bytes | None]) -> list[str]:
    """Write what is `planned`; the paths that changed. Raises OSError."""
    # git keeps no empty folder, so a first patch may find none.
    (root / PATCHES).mkdir(exist_ok=True)
    for path, data in plan.items():
        if data is None:
            (root / path).unlink()
        else:
            write(root / path, data)
    return list(plan)
