"""The main job: pinned bytes, patched, verified, swapped in, and recorded."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import manifest, tree
from tools.apply import Built, build, read_patches
from tools.errors import Drift, UsageError
from tools.limits import LARGEST_FILE, Unreadable, read_small
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
    keep: Store | None = None,
) -> Vendored:
    """Make `components` of `place.tree` what `lock` and the patches in `root` say.

    keep: the store for copies of edits that are replaced, where `store` itself is not there to stay.
    Raises NoSource, PatchFails, HashMismatch, MalformedPatch or Drift (files there that are not ours) before anything
    is written, OSError from the disk. Nothing to do costs a read of the tree and no network.
    """
    # Checked even with nothing to do: a patch edited since is worth an error, not "up to date".
    counts = read_patches(root, lock)
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
    folders = [component.path for component in components]
    if tree.interrupted(place.tree, folders) or manifest.pending(place.tree):
        with tree.locked(place.tree):
            _recover(place.tree, folders, progress)
    if (sections := _as_locked(place.tree, lock, components)) is not None:
        return Vendored(False, table(_origins(sections, components)))
    # Foreign files are seen before the network is asked, and again under the lock below.
    _plan(lock, components, place)
    total = sum(len(component.files) for component in components)
    wanted = [file for component in components for file in component.files]
    gathered = gather(wanted, sources, store, progress, offline=offline)
    built = build(root, lock, components, require(gathered, components, total))
    with tree.locked(place.tree):
        _recover(place.tree, folders, progress)
        carried = _plan(lock, components, place)
        _keep_edits(lock, components, place, keep or store, progress)
        made = {part.name: manifest.section(lock, part, gathered.origins) for part in components}
        known = {part.name for part in lock.components}
        sections = {**manifest.read(place.tree), **made}
        data = manifest.render({name: part for name, part in sections.items() if name in known})
        path = place.tree / manifest.NAME
        recorded = path.exists() and path.read_bytes() == data
        if not recorded:
            manifest.announce(place.tree, made)
        try:
            _install(place.tree, lock, built, carried, progress)
            if not recorded:
                write_atomically(path, data)
        finally:
            manifest.settle(place.tree)
    names = [f"{part.path}/{name}" for part in components for name in carried[part.name]]
    return Vendored(True, table(gathered.origins), tuple(names))


def _recover(place: Path, folders: Sequence[str], progress: Progress) -> None:
    for folder in folders:
        for line in tree.recover(place, folder):
            progress.line(line)
    manifest.settle(place)


def _as_locked(place: Path, lock: Lock, components: Sequence[Component]) -> dict[str, Any] | None:
    """The manifest's sections when `components` are exactly what `lock` says, else None."""
    if check(place, lock, components, named=True):
        return None
    sections = manifest.read(place)
    # Another run may have removed it since.
    return sections if all(part.name in sections for part in components) else None


def _origins(sections: Mapping[str, Any], components: Sequence[Component]) -> dict[str, str]:
    found = [manifest.origins(sections[part.name]) for part in components]
    return {path: source for origins in found for path, source in origins.items()}


def _plan(lock: Lock, components: Sequence[Component], place: Place, *, cleaning: bool = False) -> dict[str, list[str]]:
    """The foreign files in each component's folder, by component name, as paths below that folder.

    A file is ours when the manifest lists it with these bytes, or when it is at a pinned path and the manifest lists
    that path, or when it has a pinned or patched file's bytes; the last not for `cleaning`. Raises Drift for any other,
    unless `place.force`, and UsageError for one that could not be carried over.
    """
    made = manifest.ours(place.tree)
    foreign: dict[str, list[str]] = {}
    stops = []
    blocked = []
    for component in components:
        pinned = {
            file.path: {file.sha256, lock.expected_sha256(file)}
            for file in component.files
            if file.path in made or not cleaning
        }
        carried = []
        for name, path in tree.listing(place.tree / component.path).items():
            full = f"{component.path}/{name}"
            if full in pinned:
                if full not in made and tree.digest(path) not in pinned[full]:
                    stops.append(f"not made by us, and in the way: {full}")
            elif tree.digest(path) not in made.get(full, ()):
                carried.append(name)
                stops.append(f"not made by us: {full}")
                if not cleaning and any(full.startswith(f"{file.path}/") for file in component.files):
                    blocked.append(f"in a folder where a file of ours goes: {full}")
        foreign[component.name] = carried
    if stops and not place.force:
        done, step = (
            ("removed", f"FORCE=1 leaves them and removes what {manifest.NAME} lists")
            if cleaning
            else (
                "written",
                "move them away, or use FORCE=1: files beside ours are carried over untouched, "
                "and of those in the way a copy is kept in the store",
            )
        )
        raise Drift(f"{place.tree} holds files that this tool did not make, so nothing was {done}", stops, [step])
    if blocked:
        raise UsageError(
            f"{place.tree} holds files that cannot stay, so nothing was written", blocked, ["move them away"]
        )
    return foreign


def _keep_edits(lock: Lock, components: Sequence[Component], place: Place, store: Store, progress: Progress) -> None:
    """Copy to the store what somebody wrote over our files. Raises Drift where it cannot, unless `place.force`."""
    lost = []
    for path in _edited(lock, components, place.tree):
        kept = None
        with suppress(Unreadable):
            kept = store.put(read_small(place.tree / path, LARGEST_FILE), "edited")
        if kept:
            progress.warn(f"{path} had other bytes and is replaced; a copy is kept: {kept}")
        elif place.force:
            progress.warn(f"{path} had other bytes and is replaced; no copy could be kept")
        else:
            lost.append(f"edited: {path}")
    if lost:
        raise Drift(
            f"{place.tree} has edits that the store cannot keep a copy of, so nothing was written",
            lost,
            ["move them away, name a store that can be written, or lose them with FORCE=1"],
        )


def _edited(lock: Lock, components: Sequence[Component], place: Path) -> list[str]:
    """Pinned paths with bytes that are neither upstream's nor a result of ours, this lock's or an earlier one's."""
    known: set[str | None] = {None}
    known |= {sha256 for file in lock.files for sha256 in (file.sha256, lock.expected_sha256(file))}
    known |= {sha256 for made in manifest.ours(place).values() for sha256 in made}
    paths = [file.path for component in components for file in component.files]
    return [path for path in paths if tree.digest(place / path) not in known]


def _install(
    place: Path, lock: Lock, built: Sequence[Built], carried: Mapping[str, Sequence[str]], progress: Progress
) -> None:
    """Swap in those of `built` whose folder is not right already; in one step where nothing else lies beside them."""
    due = [part for part in built if not _right(place, lock, part, carried[part.component.name])]
    _swap(place, due, carried)
    for part in due:
        progress.line(f"{part.component.path}: {len(part.files)} files swapped in")


def _swap(place: Path, due: Sequence[Built], carried: Mapping[str, Sequence[str]]) -> None:
    if len(due) > 1 and (around := _around(place, due)):
        files = {path: data for part in due for path, data in part.files.items()}
        kept = [f"{Path(part.component.path).name}/{name}" for part in due for name in carried[part.component.name]]
        tree.swap_in(place, around, files, kept)
    else:
        for part in due:
            tree.swap_in(place, part.component.path, part.files, carried[part.component.name])


def _right(place: Path, lock: Lock, part: Built, carried: Sequence[str]) -> bool:
    folder = part.component.path
    present = {f"{folder}/{name}": path for name, path in tree.listing(place / folder).items()}
    expected = {file.path: lock.expected_sha256(file) for file in part.component.files}
    expected_files = {*expected, *(f"{folder}/{name}" for name in carried)}
    return set(present) == expected_files and all(tree.digest(present[path]) == expected[path] for path in expected)


def _around(place: Path, parts: Sequence[Built]) -> str:
    """The folder below `place` that `parts`, and nothing else, lie in; "" where there is none."""
    around, *others = {part.component.path.rpartition("/")[0] for part in parts}
    folder = place / around
    alone = not folder.exists() or {place / part.component.path for part in parts}.issuperset(folder.iterdir())
    return "" if others or not alone or folder.is_mount() else around


def clean(lock: Lock, place: Place) -> list[str]:
    """Remove what we made from `place.tree`, and the tree itself when that leaves it empty; what was removed.

    Raises Drift for files that are not ours or were edited; with `place.force` the former stay and the rest goes.
    """
    removed: list[str] = []
    if not place.tree.is_dir():
        return removed
    with tree.locked(place.tree):
        for component in lock.components:
            tree.refuse_links(place.tree, component.path)
            tree.recover(place.tree, component.path)
        foreign = _plan(lock, lock.components, place, cleaning=True)
        if (edited := _edited(lock, lock.components, place.tree)) and not place.force:
            raise Drift(
                f"{place.tree} holds edits, so nothing was removed",
                [f"edited: {path}" for path in edited],
                ["make refresh turns them into patches; FORCE=1 loses them"],
            )
        due = []
        for component in lock.components:
            folder = place.tree / component.path
            found = [name for name in tree.listing(folder) if name not in foreign[component.name]]
            removed += [f"{component.path}/{name}" for name in found]
            # Without a file of ours it may be an empty one, or hold caches alone.
            if found or (folder.is_dir() and not foreign[component.name]):
                due.append(Built(component, {}))
        _swap(place.tree, due, foreign)
        (place.tree / manifest.PENDING).unlink(missing_ok=True)
        if (place.tree / manifest.NAME).exists():
            (place.tree / manifest.NAME).unlink()
            removed.append(manifest.NAME)
        for component in lock.components:
            tree.prune_upwards((place.tree / component.path).parent, place.tree)
    # As long as it is empty: another run may have begun there.
    with suppress(OSError):
        place.tree.rmdir()
    return removed
