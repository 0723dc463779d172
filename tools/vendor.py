"""Vendors components: gets pinned files, patches them and puts them in place; `clean` takes them back."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os.path import lexists
from pathlib import Path

from tools import apply, manifest, sources, tree
from tools.errors import Drift, Next, UsageError, log
from tools.files import digest, sha256
from tools.lock import Component
from tools.manifest import Manifest
from tools.project import Project
from tools.store import Store
from tools.verify import check


def vendor(
    project: Project, components: Sequence[Component], extras: Sequence[str] = (), *, force: bool = False
) -> str | None:
    """Make components of a tree what the lock says; where the files came from, or None for nothing to do.

    force: replace others' files that are in the way, and keep copies. Raises NoSource, Undecided and HashMismatch,
    Drift or UsageError for files in the way, and OSError. A component stays as it was then.
    """
    files = [file for part in components for file in part.files]
    # A changed patch file is an error even where the tree is right.
    patches = apply.read_patches(project.root, files)
    if not check(project.tree, project.lock, components, extras):
        return None
    pinned = sources.pinned(project, project.lock, files)
    made = apply.results(files, pinned.files, patches, extras)
    with tree.reserved(project.tree):
        tree.recover_all(project.tree, [part.path for part in components])
        wrong = [part for part in components if check(project.tree, project.lock, [part], extras)]
        foreign = [line for part in wrong for line in _foreign(project.tree, part)]
        if foreign and not force:
            why = "leaves those beside ours, and replaces the others; the store keeps copies"
            text = f"{project.tree} holds Python files that this tool did not make, so nothing was written"
            raise Drift(text, foreign, [Next("vendor", why, {"force": True})])
        for part in wrong:
            _install(project, part, made, extras)
    return pinned.summary


def _known(component: Component) -> set[str]:
    """The SHA-256 of upstream's files and ours, which need no copy."""
    return {hash_ for file in component.files for hash_ in (file.upstream, file.patched)}


def _foreign(place: Path, component: Component) -> list[str]:
    """The Python files in a component's folder that are neither ours nor recorded. Raises UsageError for folders."""
    folder = place / component.path
    old, there = manifest.read(folder), tree.python_files(folder)
    ours = [file.name for file in component.files]
    if odd := [f"{component.path}/{name}" for name in ours if name not in there and lexists(folder / name)]:
        raise UsageError("these are in the way, and are no regular files", odd, ["move it away"])
    foreign = there.keys() - old.results - {*old.carried}
    return [
        f"{'in the place of' if name in ours else 'beside'} ours: {component.path}/{name}"
        for name in sorted(foreign)
        if digest(there[name]) not in _known(component)
    ]


def _install(project: Project, component: Component, made: Mapping[str, bytes], extras: Sequence[str]) -> None:
    """Put the component in place; others' files stay beside ours, or are recorded and copied to the store."""
    folder = project.tree / component.path
    old = manifest.read(folder)
    there = {name: path.read_bytes() for name, path in tree.python_files(folder).items()}
    ours = {file.name: made[file.path] for file in component.files}
    others = {name: data for name, data in there.items() if name not in ours and name not in old.results}
    replaced = {name: sha256(there[name]) for name in there.keys() & ours if name not in old.results}
    for name in sorted(there.keys() - others):
        if sha256(there[name]) not in {old.results.get(name), *_known(component)}:
            _keep(f"{component.path}/{name}", there[name], "replaced", project.store)
        elif name in replaced:
            project.store.put(there[name])
    record = Manifest(extras=tuple(extras), carried=tuple(others), replaced={**old.replaced, **replaced})
    tree.swap(folder, {**others, **ours, tree.MANIFEST: manifest.render(project.lock, component, record)})


def _keep(where: str, data: bytes, what: str, store: Store) -> None:
    """Copy a file that goes to the store, with a warning. Raises Drift where the store cannot be written."""
    if (kept := store.put(data)) is None:
        step = "move it away, or choose a writable store with DSU_PATCHES_STORE=folder"
        raise Drift(f"{where} is not {what}, since the store cannot keep a copy of it", (), [step])
    log.warning(f"{where} is {what}; a copy is kept: {kept}")


def clean(project: Project, *, force: bool = False) -> tuple[list[str], list[str]]:
    """Remove our files from the tree, and put back those that they replaced; the paths of both.

    Raises Drift for edits, which `force` removes with copies in the store, and for replaced files that the store lacks;
    with `force`, our files stay in their place.
    """
    removed: list[str] = []
    restored: list[str] = []
    place, store = project.tree, project.store
    if not place.is_dir():
        return removed, restored
    with tree.reserved(place):
        tree.recover_all(place, [part.path for part in project.lock.components])
        records = {part.path: manifest.read(place / part.path) for part in project.lock.components}
        ours = {f"{path}/{name}": hash_ for path, record in records.items() for name, hash_ in record.results.items()}
        edited = [path for path, hash_ in ours.items() if digest(place / path) not in (None, hash_)]
        copies = {hash_: store.get(hash_) for record in records.values() for hash_ in record.replaced.values()}
        replaced = {f"{path}/{name}": hash_ for path, it in records.items() for name, hash_ in it.replaced.items()}
        lost = [path for path, hash_ in replaced.items() if copies[hash_] is None and (place / path).exists()]
        if edited and not force:
            steps = [Next("refresh", "turns them into patches")]
            steps.append(Next("clean", "removes them too; the store keeps copies", {"force": True}))
            text = f"{place} holds edits, so nothing was removed"
            raise Drift(text, [f"edited: {path}" for path in edited], steps)
        if lost and not force:
            leave = Next("clean", "leaves our files there", {"force": True})
            text = f"the store {store.root} has no copies of the replaced files, so nothing was removed"
            raise Drift(text, [f"no copy: {path}" for path in lost], ["git checkout restores tracked ones", leave])
        for path in edited:
            _keep(path, (place / path).read_bytes(), "removed", store)
        for path in lost:
            log.warning(f"{path} stays as it is: the store has no copy of the file that it replaced")
        for path, record in ((path, record) for path, record in records.items() if record.data):
            there = {name: file.read_bytes() for name, file in tree.python_files(place / path).items()}
            stays = {
                name: data for name, data in there.items() if name not in record.results or f"{path}/{name}" in lost
            }
            back = {name: data for name, hash_ in record.replaced.items() if (data := copies[hash_]) is not None}
            back = {name: data for name, data in back.items() if name not in stays}
            gone = [*sorted(record.results.keys() - {*stays, *back}), tree.MANIFEST]
            removed += [f"{path}/{name}" for name in gone]
            restored += [f"{path}/{name}" for name in back]
            if not stays and not back:
                # Python's cache of our files would keep the folder there.
                shutil.rmtree(place / path / "__pycache__", ignore_errors=True)
            tree.swap(place / path, {**stays, **back})
    for component in project.lock.components:
        for folder in (place / component.path).parents:
            if place.parent in folder.parents:
                with suppress(OSError):
                    folder.rmdir()
    return removed, restored
