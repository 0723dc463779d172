"""The main job: pinned bytes, patched, verified, renamed in, and recorded; and taking it back."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os.path import lexists
from pathlib import Path

import attrs

from tools import apply, manifest, tree
from tools.errors import Drift, Next, UsageError, log
from tools.files import digest, sha256
from tools.lock import Component, Lock
from tools.manifest import Manifest
from tools.store import Store
from tools.verify import check


@attrs.frozen
class Order:
    """What to vendor, and where to. force: others' files in the way are replaced, once copies are kept."""

    root: Path
    lock: Lock
    components: Sequence[Component]
    tree: Path
    store: Store
    upstream: str | None = None
    offline: bool = False
    force: bool = False
    extras: tuple[str, ...] = ()


def vendor(order: Order) -> str | None:
    """Make the components of a tree what the lock and the patches say; where the bytes came from, None for no change.

    With nothing to do, no network is asked. Raises, before anything is written, NoSource, Undecided, HashMismatch,
    and Drift or UsageError for what is in the way; OSError from the disk.
    """
    files = [file for part in order.components for file in part.files]
    # A patch file that is not what the lock names is said also where the tree is right.
    patches = apply.read_patches(order.root, files)
    if not _wrong(order):
        return None
    # With nothing to do, what reaches a network is not even loaded.
    from tools import sources

    pinned = sources.pinned(order.lock, order.root, files, order.store, order.upstream, offline=order.offline)
    made = apply.results(files, pinned.files, patches, order.extras)
    with tree.reserved(order.tree):
        _recover(order.tree, order.components)
        wrong = _wrong(order)
        foreign = [line for part in wrong for line in _foreign(order, part)]
        if foreign and not order.force:
            why = "leaves those beside ours as they are, and replaces the others, of which copies are kept in the store"
            text = f"{order.tree} holds Python files that this tool did not make, so nothing was written"
            raise Drift(text, foreign, [Next("vendor", why, {"force": True})])
        for part in wrong:
            _install(order, part, made)
    return pinned.summary


def _wrong(order: Order) -> list[Component]:
    """The components that are not what they are to become."""
    return [part for part in order.components if check(order.tree, order.lock, [part], order.extras)]


def _recover(place: Path, components: Sequence[Component]) -> None:
    for component in components:
        tree.refuse_links(place, component.path)
        tree.recover(place / component.path)


def _known(component: Component) -> set[str]:
    """The SHA-256 of all that can be had again."""
    return {hash_ for file in component.files for hash_ in (file.upstream, file.patched)}


def _foreign(order: Order, component: Component) -> list[str]:
    """The Python files in a component's folder that are not ours, nor recorded. UsageError for what is no file."""
    folder = order.tree / component.path
    old, there = manifest.read(folder), tree.python_files(folder)
    ours = [file.name for file in component.files]
    if odd := [f"{component.path}/{name}" for name in ours if name not in there and lexists(folder / name)]:
        raise UsageError("what is in the way is no regular file", odd, ["move it away"])
    lines = []
    for name in sorted(there.keys() - old.results - {*old.carried}):
        if digest(there[name]) not in _known(component):
            lines.append(f"{'in the place of' if name in ours else 'beside'} ours: {component.path}/{name}")
    return lines


def _install(order: Order, component: Component, made: Mapping[str, bytes]) -> None:
    """Rename the component in, with others' files beside ours; what ours replace is recorded, and kept in the store."""
    folder = order.tree / component.path
    old = manifest.read(folder)
    there = {name: path.read_bytes() for name, path in tree.python_files(folder).items()}
    ours = {file.name: made[file.path] for file in component.files}
    others = {name: data for name, data in there.items() if name not in ours and name not in old.results}
    replaced = {name: sha256(there[name]) for name in there.keys() & ours if name not in old.results}
    for name in sorted(there.keys() - others):
        if sha256(there[name]) not in {old.results.get(name), *_known(component)}:
            _keep(f"{component.path}/{name}", there[name], "replaced", order.store)
    record = Manifest(extras=order.extras, carried=tuple(others), replaced={**old.replaced, **replaced})
    tree.swap(folder, {**others, **ours, tree.MANIFEST: manifest.render(order.lock, component, record)})


def _keep(where: str, data: bytes, what: str, store: Store) -> None:
    """Copy to the store what is to go, and say so. Raises Drift where that cannot be."""
    if (kept := store.put(data)) is None:
        step = "move it away, or name a store that can be written: DSU_PATCHES_STORE=folder"
        raise Drift(f"{where} has other bytes, and the store cannot keep a copy: it was not {what}", (), [step])
    log.warning(f"{where} had other bytes and is {what}; a copy is kept: {kept}")


def clean(lock: Lock, place: Path, store: Store, *, force: bool = False) -> tuple[list[str], list[str]]:
    """Remove what we made from the tree `place`, put back what it had replaced, and leave everything else.

    The paths of files that were removed, and of others' that were put back. Raises Drift for edits, which `force`
    removes once copies are kept.
    """
    removed: list[str] = []
    restored: list[str] = []
    if not place.is_dir():
        return removed, restored
    with tree.reserved(place):
        _recover(place, lock.components)
        records = {part.path: manifest.read(place / part.path) for part in lock.components}
        ours = {f"{path}/{name}": hash_ for path, record in records.items() for name, hash_ in record.results.items()}
        edited = [path for path, hash_ in ours.items() if digest(place / path) not in (None, hash_)]
        if edited and not force:
            steps = [Next("refresh", "turns them into patches")]
            steps.append(Next("clean", "removes them too, and keeps copies in the store", {"force": True}))
            text = f"{place} holds edits, so nothing was removed"
            raise Drift(text, [f"edited: {path}" for path in edited], steps)
        for path in edited:
            _keep(path, (place / path).read_bytes(), "removed", store)
        for path, record in records.items():
            if record.data:
                stays, back = _staying(place / path, record, store)
                removed += [f"{path}/{name}" for name in [*(record.results.keys() - stays), tree.MANIFEST]]
                restored += [f"{path}/{name}" for name in back]
                if not stays:
                    # What Python compiled from our files would keep the folder there.
                    shutil.rmtree(place / path / "__pycache__", ignore_errors=True)
                tree.swap(place / path, stays)
    for component in lock.components:
        for folder in (place / component.path).parents:
            if place.parent in folder.parents:
                with suppress(OSError):
                    folder.rmdir()
    return removed, restored


def _staying(folder: Path, record: Manifest, store: Store) -> tuple[dict[str, bytes], list[str]]:
    """Others' files, bytes by name, that stay in a component's folder; the names of those that come back."""
    there = tree.python_files(folder)
    stays = {name: path.read_bytes() for name, path in there.items() if name not in record.results}
    back = []
    for name, hash_ in record.replaced.items():
        if name not in stays and (before := store.get(hash_)) is not None:
            stays[name] = before
            back.append(name)
        elif name not in stays and name in there:
            stays[name] = there[name].read_bytes()
            log.warning(f"{folder / name} stays as we made it: the store has no copy of what was there before")
    return stays, back
