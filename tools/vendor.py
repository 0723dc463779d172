"""The main job: pinned bytes, patched, verified, swapped in, and recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import manifest, tree
from tools.apply import Built, build, read_patch
from tools.errors import Drift
from tools.lock import Component, Lock
from tools.progress import Progress
from tools.sources import Source, gather, require
from tools.store import Store, write_atomically
from tools.verify import check


@dataclass(frozen=True)
class Row:
    """One vendored file as the closing table shows it."""

    path: str
    status: str
    added: int
    removed: int
    source: str


@dataclass(frozen=True)
class Vendored:
    """The outcome: whether anything had to change, a row a file, and foreign files carried over (below the tree)."""

    changed: bool
    rows: tuple[Row, ...]
    carried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where to vendor to. force: foreign files do not stop the run."""

    tree: Path
    force: bool = False


def vendor(
    root: Path,
    lock: Lock,
    components: Sequence[Component],
    place: Place,
    sources: Sequence[Source],
    store: Store,
    progress: Progress,
    *,
    offline: bool = False,
) -> Vendored:
    """Make `components` of `place.tree` what `lock` and the patches in `root` say.

    Raises NoSource, PatchFails, HashMismatch, MalformedPatch or Drift (files there that are not ours) before anything
    is written, OSError from the disk. Nothing to do costs a read of the tree and no network.
    """
    # Checked even with nothing to do: a patch edited since is worth an error, not "up to date".
    counts = {patch.target: read_patch(root, patch)[0] for patch in lock.patches}
    rows = [
        (file, (counts[file.path].added, counts[file.path].removed) if lock.patch_for(file.path) else (0, 0))
        for component in components
        for file in component.files
    ]

    def table(origins: Mapping[str, str]) -> tuple[Row, ...]:
        return tuple(
            Row(file.path, "patched" if lock.patch_for(file.path) else "unchanged", *lines, origins[file.path])
            for file, lines in rows
        )

    for component in components:
        tree.refuse_links(place.tree, component.path)
    if (sections := _as_locked(place.tree, lock, components)) is not None:
        return Vendored(False, table(_origins(sections)))
    # Foreign files are seen before the network is asked, and again under the lock below.
    _plan(lock, components, place)
    total = sum(len(component.files) for component in components)
    wanted = [file for component in components for file in component.files]
    gathered = gather(wanted, sources, store, progress, offline=offline)
    built = build(root, lock, components, require(gathered, lock.components, total))
    with tree.locked(place.tree):
        for component in components:
            for line in tree.recover(place.tree, component.path):
                progress.line(line)
        carried = _plan(lock, components, place)
        for part in built:
            _install(place.tree, lock, part, carried[part.component.name], store, progress)
        sections = dict(manifest.read(place.tree))
        for component in components:
            sections[component.name] = manifest.section(lock, component, gathered.origins)
        known = {component.name for component in lock.components}
        data = manifest.render({name: part for name, part in sections.items() if name in known})
        path = place.tree / manifest.NAME
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data)
    names = [f"{part.path}/{name}" for part in components for name in carried[part.name]]
    return Vendored(True, table(gathered.origins), tuple(names))


def _as_locked(place: Path, lock: Lock, components: Sequence[Component]) -> dict[str, Any] | None:
    """The manifest's sections when `components` are exactly what `lock` says, else None."""
    if check(place, lock, components, named=True):
        return None
    return dict(manifest.read(place))


def _origins(sections: Mapping[str, Any]) -> dict[str, str]:
    return {entry["path"]: entry["source"] for part in sections.values() for entry in part["files"]}


def _plan(lock: Lock, components: Sequence[Component], place: Place) -> dict[str, list[str]]:
    """The foreign files in each component's folder, by component name, as paths below that folder.

    A file is ours when the manifest lists it with these bytes, or when it is at a pinned path and the manifest lists
    that path, or when it has a pinned or patched file's bytes. Raises Drift for any other, unless `place.force`.
    """
    made = manifest.ours(manifest.read(place.tree))
    foreign: dict[str, list[str]] = {}
    stops = []
    for component in components:
        pinned = {file.path: {file.sha256, lock.expected_sha256(file)} for file in component.files}
        carried = []
        for name, path in tree.listing(place.tree / component.path).items():
            full = f"{component.path}/{name}"
            if full in pinned:
                if full not in made and tree.digest(path) not in pinned[full]:
                    stops.append(f"not made by us, and in the way: {full}")
            elif full not in made or tree.digest(path) != made[full]:
                carried.append(name)
                stops.append(f"not made by us: {full}")
        foreign[component.name] = carried
    if stops and not place.force:
        raise Drift(
            f"{place.tree} holds files that this tool did not make, so nothing was written",
            stops,
            [
                "move them away, or use FORCE=1: files beside ours are carried over untouched, "
                "and of those in the way a copy is kept in the store"
            ],
        )
    return foreign


def _install(place: Path, lock: Lock, part: Built, carried: Sequence[str], store: Store, progress: Progress) -> None:
    """Swap `part` in unless its folder is right already; keep in the store what somebody had edited."""
    folder = part.component.path
    present = {f"{folder}/{name}": path for name, path in tree.listing(place / folder).items()}
    expected = {file.path: lock.expected_sha256(file) for file in part.component.files}
    expected_files = {*expected, *(f"{folder}/{name}" for name in carried)}
    if set(present) == expected_files and all(tree.digest(present[path]) == expected[path] for path in expected):
        return
    known = {file.sha256 for file in lock.files} | {lock.expected_sha256(file) for file in lock.files}
    known |= set(manifest.ours(manifest.read(place)).values())
    for path in sorted(set(present) & set(expected)):
        actual = tree.digest(present[path])
        if actual is not None and actual not in known and (kept := store.put(present[path].read_bytes(), "edited")):
            progress.warn(f"{path} had other bytes and is replaced; a copy is kept: {kept}")
    tree.swap_in(place, folder, part.files, carried)
    progress.line(f"{folder}: {len(part.files)} files swapped in")


def clean(lock: Lock, place: Place) -> list[str]:
    """Remove what we made from `place.tree`, and the tree itself when that leaves it empty; what was removed.

    Raises Drift for files that are not ours; with `place.force` those stay and the rest goes.
    """
    removed: list[str] = []
    if not place.tree.is_dir():
        return removed
    with tree.locked(place.tree):
        for component in lock.components:
            tree.refuse_links(place.tree, component.path)
            tree.recover(place.tree, component.path)
        foreign = _plan(lock, lock.components, place)
        for component in lock.components:
            folder = place.tree / component.path
            for name, path in tree.listing(folder).items():
                if name not in foreign[component.name]:
                    path.unlink()
                    removed.append(f"{component.path}/{name}")
            tree.prune(folder)
        if (place.tree / manifest.NAME).exists():
            (place.tree / manifest.NAME).unlink()
            removed.append(manifest.NAME)
        for component in lock.components:
            tree.prune_upwards((place.tree / component.path).parent, place.tree)
    with_nothing_left = not any(place.tree.iterdir())
    if with_nothing_left:
        place.tree.rmdir()
    return removed
