"""What of a tree is not what the lock says, and how things stand at a glance. Offline; reads, never writes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from tools import manifest
from tools.apply import read_patches
from tools.errors import ToolError
from tools.files import digest
from tools.lock import Component, Lock
from tools.store import Store
from tools.tree import MANIFEST, leftovers, python_files

# Where a rebase that waits for a decision stands, below the project.
REBASE = "build/rebase"
_NO_MANIFEST = "is not there"


@attrs.frozen
class Finding:
    """One thing that is off.

    kind: `modified`, `missing`, `extra` (a Python file that is neither pinned nor recorded), or `incomplete` (no
    component, no manifest or one of another lock, remains of a killed run). path is below the tree.
    """

    kind: str
    path: str
    detail: str = ""

    @property
    def foreign(self) -> bool:
        """Whether it may be about somebody's file, which `vendor` stops for."""
        return self.kind == "extra" or self.detail == _NO_MANIFEST

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


def vendored(tree: Path, component: Component) -> bool:
    """Whether `component` was vendored to `tree`, or a run was killed while it was."""
    return (tree / component.path / MANIFEST).exists() or bool(leftovers(tree / component.path))


def expected(tree: Path, components: Iterable[Component], *, named: bool = False) -> list[Component]:
    """What a check of `tree` is about: all `components` when they were named, else those vendored there, if any are."""
    components = list(components)
    here = [part for part in components if vendored(tree, part)]
    return components if named or not here else here


def check(
    tree: Path, lock: Lock, components: Iterable[Component], extras: Sequence[str] | None = None
) -> list[Finding]:
    """Compare `components` of `tree` with `lock`. Raises OSError from the disk.

    extras: those that the tree should have, by default those that its manifests name. Raises Drift for a manifest that
    is not ours.
    """
    return [finding for part in components for finding in _component(tree, lock, part, extras)]


def _component(tree: Path, lock: Lock, component: Component, extras: Sequence[str] | None) -> Iterator[Finding]:
    folder = tree / component.path
    for path in leftovers(folder):
        yield Finding("incomplete", path.relative_to(tree).as_posix(), "left by a killed run, or one is at work")
    if not folder.is_dir():
        yield Finding("incomplete", component.path, "the component is not there")
        return
    made = manifest.read(folder)
    made = made if extras is None else attrs.evolve(made, extras=tuple(extras))
    for file in component.files:
        if not (folder / file.name).exists():
            yield Finding("missing", file.path)
        elif (actual := digest(folder / file.name)) != (wanted := file.result(made.extras)):
            yield Finding("modified", file.path, f"expected SHA-256 {wanted}, actual {actual or 'no regular file'}")
    known = {*made.carried, *(file.name for file in component.files)}
    for name in sorted(python_files(folder).keys() - known):
        yield Finding("extra", f"{component.path}/{name}")
    if made.data != manifest.render(lock, component, made):
        yield Finding("incomplete", f"{component.path}/{MANIFEST}", "is of another lock" if made.data else _NO_MANIFEST)


def status(root: Path, lock: Lock, tree: Path, store: Store) -> dict[str, Any]:
    """How things stand, as --json gives it: pin, store, a word a component and a patch, a rebase under way."""
    trees = dict.fromkeys((part.name for part in lock.components), "not vendored")
    for part in (part for part in lock.components if vendored(tree, part)):
        found = check(tree, lock, [part])
        trees[part.name] = f"{len(found)} findings, see make verify" if found else "as locked"
    patches = {}
    for file in lock.patched:
        try:
            patches[file.patch] = f"as locked, {read_patches(root, [file])[file.path].counts}"
        except ToolError as error:
            patches[file.patch] = error.message
    stored = sum(store.get(file.upstream) is not None for file in lock.files)
    counts = {"pin": lock.pin.commit, "date": lock.pin.date, "stored": stored, "total": len(lock.files)}
    return {**counts, "tree": trees, "patches": patches, "rebase": (root / REBASE).exists()}
