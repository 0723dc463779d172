"""Vendors components: gets pinned files, patches them and puts them in place; `clean` takes them back."""

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
    """What to vendor, and where. force: replace others' files that are in the way, and keep copies."""

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
    """Make components of a tree what the lock says; where the files came from, or None for nothing to do.

    Raises NoSource, Undecided and HashMismatch, Drift or UsageError for files in the way, and OSError. A component
    stays as it was then.
    """
    files = [file for part in order.components for file in part.files]
    # A changed patch file is an error even where the tree is right.
    patches = apply.read_patches(order.root, files)
    if not _wrong(order):
        return None
    # Loading this takes time, so not with nothing to do.
    from tools import sources

    pinned = sources.pinned(order.lock, order.root, files, order.store, order.upstream, offline=order.offline)
    made = apply.results(files, pinned.files, patches, order.extras)
    with tree.reserved(order.tree):
        _recover(order.tree, order.components)
        wrong = _wrong(order)
        foreign = [line for part in wrong for line in _foreign(order, part)]
        if foreign and not order.force:
            why = "leaves those beside ours, and replaces the others; the store keeps copies"
            text = f"{order.tree} holds Python files that this tool did not make, so nothing was written"
            raise Drift(text, foreign, [Next("vendor", why, {"force": True})])
        for part in wrong:
            _install(order, part, made)
    return pinned.summary


def _wrong(order: Order) -> list[Component]:
    """The components that are not as locked."""
    return [part for part in order.components if check(order.tree, order.lock, [part], order.extras)]


def _recover(place: Path, components: Sequence[Component]) -> None:
    for component in components:
        tree.refuse_links(place, component.path)
        tree.recover(place / component.path)


def _known(component: Component) -> set[str]:
    """The SHA-256 of upstream's files and ours, which need no copy."""
    return {hash_ for file in component.files for hash_ in (file.upstream, file.patched)}


def _foreign(order: Order, component: Component) -> list[str]:
    """The Python files in a component's folder that are neither ours nor recorded. Raises UsageError for folders."""
    folder = order.tree / component.path
    old, there = manifest.read(folder), tree.python_files(folder)
    ours = [file.name for file in component.files]
    if odd := [f"{component.path}/{name}" for name in ours if name not in there and lexists(folder / name)]:
        raise UsageError("these are in the way, and are no regular files", odd, ["move it away"])
    lines = []
    for name in sorted(there.keys() - old.results - {*old.carried}):
        if digest(there[name]) not in _known(component):
            lines.append(f"{'in the place of' if name in ours else 'beside'} ours: {component.path}/{name}")
    return lines


def _install(order: Order, component: Component, made: Mapping[str, bytes]) -> None:
    """Put the component in place; others' files stay beside ours, or are recorded and copied to the store."""
    folder = order.tree / component.path
    old = manifest.read(folder)
    there = {name: path.read_bytes() for name, path in tree.python_files(folder).items()}
    ours = {file.name: made[file.path] for file in component.files}
    others = {name: data for name, data in there.items() if name not in ours and name not in old.results}
    replaced = {name: sha256(there[name]) for name in there.keys() & ours if name not in old.results}
    for name in sorted(there.keys() - others):
        if sha256(there[name]) not in {old.results.get(name), *_known(component)}:
            _keep(f"{component.path}/{name}", there[name], "replaced", order.store)
        elif name in replaced:
            order.store.put(there[name])
    record = Manifest(extras=order.extras, carried=tuple(others), replaced={**old.replaced, **replaced})
    tree.swap(folder, {**others, **ours, tree.MANIFEST: manifest.render(order.lock, component, record)})


def _keep(where: str, data: bytes, what: str, store: Store) -> None:
    """Copy a file that goes to the store, with a warning. Raises Drift where the store cannot be written."""
    if (kept := store.put(data)) is None:
        step = "move it away, or choose a writable store with DSU_PATCHES_STORE=folder"
        raise Drift(f"{where} is not {what}, since the store cannot keep a copy of it", (), [step])
    log.warning(f"{where} is {what}; a copy is kept: {kept}")


def clean(lock: Lock, place: Path, store: Store, *, force: bool = False) -> tuple[list[str], list[str]]:
    """Remove our files from the tree `place`, and put back those that they replaced; the paths of both.

    Raises Drift for edits, which `force` removes with copies in the store, and for replaced files that the store lacks;
    with `force`, our files stay in their place.
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
            steps.append(Next("clean", "removes them too; the store keeps copies", {"force": True}))
            text = f"{place} holds edits, so nothing was removed"
            raise Drift(text, [f"edited: {path}" for path in edited], steps)
        replaced = {f"{path}/{name}": hash_ for path, it in records.items() for name, hash_ in it.replaced.items()}
        lost = [path for path, hash_ in replaced.items() if (place / path).exists() and store.get(hash_) is None]
        if lost and not force:
            leave = Next("clean", "leaves our files there", {"force": True})
            text = f"the store {store.root} has no copies of the replaced files, so nothing was removed"
            raise Drift(text, [f"no copy: {path}" for path in lost], ["git checkout restores tracked ones", leave])
        for path in edited:
            _keep(path, (place / path).read_bytes(), "removed", store)
        for path, record in records.items():
            if record.data:
                stays, back = _staying(place / path, record, store)
                removed += [f"{path}/{name}" for name in [*sorted(record.results.keys() - stays), tree.MANIFEST]]
                restored += [f"{path}/{name}" for name in back]
                if not stays:
                    # Python's cache of our files would keep the folder there.
                    shutil.rmtree(place / path / "__pycache__", ignore_errors=True)
                tree.swap(place / path, stays)
    for component in lock.components:
        for folder in (place / component.path).parents:
            if place.parent in folder.parents:
                with suppress(OSError):
                    folder.rmdir()
    return removed, restored


def _staying(folder: Path, record: Manifest, store: Store) -> tuple[dict[str, bytes], list[str]]:
    """Others' files in a component's folder (bytes by name), and the names of those that are put back."""
    there = tree.python_files(folder)
    stays = {name: path.read_bytes() for name, path in there.items() if name not in record.results}
    back = []
    for name, hash_ in record.replaced.items():
        if name not in stays and (before := store.get(hash_)) is not None:
            stays[name] = before
            back.append(name)
        elif name not in stays and name in there:
            stays[name] = there[name].read_bytes()
            log.warning(f"{folder / name} stays as it is: the store has no copy of the file that it replaced")
    return stays, back
