"""Compares a tree with the lock, and computes what `status` shows. Asks no network, and writes nothing."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from tools import manifest
from tools.apply import read_patches
from tools.errors import ToolError
from tools.files import digest
from tools.lock import Component, Lock
from tools.project import Project
from tools.tree import MANIFEST, leftovers, python_files, standing

# The folder of a rebase that waits for a decision.
REBASE = "build/rebase"
_NO_MANIFEST = "missing"


@attrs.frozen
class Finding:
    """A difference between a tree and the lock. path: below the tree.

    kind: `modified`, `missing`, `extra` (a Python file that is neither pinned nor recorded), or `incomplete` (no
    component, a missing or outdated manifest, or leftovers of a killed run).
    """

    kind: str
    path: str
    detail: str = ""

    @property
    def foreign(self) -> bool:
        """Whether `vendor` would stop for it, since the file may be somebody's."""
        return self.kind == "extra" or self.detail == _NO_MANIFEST

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


def vendored(tree: Path, component: Component) -> bool:
    """Whether `tree` has `component`, or leftovers of a killed run."""
    return (tree / component.path / MANIFEST).exists() or bool(leftovers(tree / component.path))


def check(
    tree: Path, lock: Lock, components: Iterable[Component], extras: Sequence[str] | None = None
) -> list[Finding]:
    """Compare `components` of `tree` with `lock`. Raises OSError, and Drift for a manifest that is not ours.

    extras: those that the tree should have, by default those in its manifests.
    """
    return [finding for part in components for finding in _component(tree, lock, part, extras)]


def _component(tree: Path, lock: Lock, component: Component, extras: Sequence[str] | None) -> Iterator[Finding]:
    folder = tree / component.path
    for path in leftovers(folder):
        yield Finding("incomplete", path.relative_to(tree).as_posix(), "left by a killed run, or a run is at work")
    if not folder.is_dir():
        yield Finding("incomplete", component.path, "the component is missing")
        return
    made = manifest.read(folder)
    made = made if extras is None else attrs.evolve(made, extras=tuple(extras))
    for file in component.files:
        if not (folder / file.name).exists():
            yield Finding("missing", file.path)
        elif (actual := digest(folder / file.name)) != (wanted := file.result(made.extras)):
            here = actual[:12] if actual else "no regular file"
            yield Finding("modified", file.path, f"is {here}, not {wanted[:12]}")
    known = {*made.carried, *(file.name for file in component.files)}
    for name in sorted(python_files(folder).keys() - known):
        yield Finding("extra", f"{component.path}/{name}")
    if made.data != manifest.render(lock, component, made):
        why = f"built for {made.commit[:7]}, the lock now says {lock.pin.commit[:7]}"
        if made.commit == lock.pin.commit:
            why = "built with other patches than the lock now has"
        yield Finding("incomplete", f"{component.path}/{MANIFEST}", why if made.data else _NO_MANIFEST)


def extras_in(tree: Path, lock: Lock) -> dict[str, list[str]]:
    """The components of `tree` that have each extra, by its name. Raises Drift for a manifest that is not ours."""
    found = {part.name: manifest.read(standing(tree / part.path)).extras for part in lock.components}
    return {name: [part for part in found if name in found[part]] for name in lock.decisions.extras}


def status(project: Project) -> dict[str, Any]:
    """The report of `status` for --json."""
    lock, tree = project.lock, project.tree
    trees = dict.fromkeys((part.name for part in lock.components), "not vendored")
    for part in (part for part in lock.components if vendored(tree, part)):
        found = check(tree, lock, [part])
        trees[part.name] = f"has {len(found)} findings, see verify" if found else "as locked"
    patches = {}
    for file in lock.patched:
        try:
            patches[file.patch] = read_patches(project.root, [file])[file.path].counts
        except ToolError as error:
            patches[file.patch] = error.message
    extras = {
        name: f"in {', '.join(parts)}" if parts else "in no component" for name, parts in extras_in(tree, lock).items()
    }
    stored = sum(project.store.get(file.upstream) is not None for file in lock.files)
    counts = {"pin": lock.pin.commit, "date": lock.pin.date, "stored": stored, "total": len(lock.files)}
    return {**counts, "tree": trees, "patches": patches, "extras": extras, "rebase": (project.root / REBASE).exists()}
