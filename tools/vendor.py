"""Vendors components: gets pinned files, patches them and puts them in place; `clean` takes them back."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os.path import lexists
from pathlib import Path

from tools import apply, sources, tree
from tools.errors import Drift, Next, UsageError, log
from tools.files import digest, sha256
from tools.lock import Component
from tools.sources import Project
from tools.verify import check


def vendor(project: Project, components: Sequence[Component], extras: Sequence[str], *, force: bool) -> str | None:
    """Make components of a tree what the lock says; where the files came from, or None for nothing to do.

    force: replace others' files in the way, and keep copies. After an error a component is as it was: NoSource,
    Undecided, HashMismatch, OSError, and Drift or UsageError for files in the way.
    """
    files = [file for part in components for file in part.files]
    # A changed patch file is an error even where the tree is right.
    patches = apply.read_patches(project.root, files)
    if not any(any(check(project.tree, project.lock, part, extras)) for part in components):
        return None
    pinned = sources.pinned(project, project.lock, files)
    made = apply.results(files, pinned.files, patches, extras)
    with tree.reserved(project.tree, [part.path for part in components]):
        wrong = [part for part in components if any(check(project.tree, project.lock, part, extras))]
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
    old, there = tree.read_manifest(folder), tree.python_files(folder)
    ours = [file.name for file in component.files]
    if odd := [f"{component.path}/{name}" for name in ours if name not in there and lexists(folder / name)]:
        raise UsageError("these are in the way, and are no regular files", odd, ["move it away"])
    foreign, known = there.keys() - old.results - {*old.carried}, _known(component)
    strange = [name for name in sorted(foreign) if digest(there[name]) not in known]
    return [f"{'in the place of' if name in ours else 'beside'} ours: {component.path}/{name}" for name in strange]


def _install(project: Project, component: Component, made: Mapping[str, bytes], extras: Sequence[str]) -> None:
    """Put the component in place; others' files stay beside ours, or are recorded and copied to the store."""
    folder = project.tree / component.path
    old, known = tree.read_manifest(folder), _known(component)
    there = {name: path.read_bytes() for name, path in tree.python_files(folder).items()}
    ours = {file.name: made[file.path] for file in component.files}
    others = {name: data for name, data in there.items() if name not in ours and name not in old.results}
    replaced = {name: sha256(there[name]) for name in there.keys() & ours if name not in old.results}
    for name in sorted(there.keys() - others):
        if sha256(there[name]) not in {old.results.get(name), *known}:
            _keep(project, f"{component.path}/{name}", there[name], "replaced")
        elif name in replaced:
            project.store.put(there[name])
    record = tree.Manifest(extras=tuple(extras), carried=tuple(others), replaced={**old.replaced, **replaced})
    tree.swap(folder, {**others, **ours, tree.MANIFEST: tree.render_manifest(project.lock, component, record)})


def _keep(project: Project, where: str, data: bytes, what: str) -> None:
    """Copy a file that goes to the store, with a warning. Raises Drift where the store cannot be written."""
    if (kept := project.store.put(data)) is None:
        step = "move it away, or choose a writable store with DSU_PATCHES_STORE=folder"
        raise Drift(f"{where} is not {what}, since the store cannot keep a copy of it", (), [step])
    log.warning(f"{where} is {what}; a copy is kept: {kept}")


def clean(project: Project, *, force: bool = False) -> tuple[list[str], list[str]]:
    """Remove our files, and put back what they replaced; the paths of both. Raises Drift for edits and lost copies."""
    place, store, parts = project.tree, project.store, [part.path for part in project.lock.components]
    if not place.is_dir():
        return [], []
    removed, restored = [], []
    with tree.reserved(place, parts):
        records = {part: tree.read_manifest(place / part) for part in parts}
        made = {f"{part}/{name}": hash_ for part in parts for name, hash_ in records[part].results.items()}
        replaced = {f"{part}/{name}": hash_ for part in parts for name, hash_ in records[part].replaced.items()}
        now = {it: digest(place / it) for it in made | replaced}
        # What somebody put back by hand is no edit.
        edited = [it for it in made if now[it] not in (None, made[it], replaced.get(it))]
        copies = {it: (place / it).read_bytes() if now[it] == old else store.get(old) for it, old in replaced.items()}
        lost = [it for it, data in copies.items() if data is None and (place / it).exists()]
        if edited and not force:
            also = Next("clean", "removes them too; the store keeps copies", {"force": True})
            steps = [Next("refresh", "turns them into patches"), also]
            raise Drift(f"{place} holds edits, so nothing was removed", [f"edited: {path}" for path in edited], steps)
        if lost and not force:
            ways = ("put them back, as by git checkout", Next("clean", "leaves our files there", {"force": True}))
            text = f"the store {store.root} has no copies of the replaced files, so nothing was removed"
            raise Drift(text, [f"no copy: {path}" for path in lost], ways)
        for path in (path for path in edited if path not in lost):
            _keep(project, path, (place / path).read_bytes(), "removed")
        for path in lost:
            log.warning(f"{path} stays as it is: the store has no copy of the file that it replaced")
        for part in (part for part in parts if records[part].data):
            ours = {name for name in records[part].results if f"{part}/{name}" not in lost}
            files = {name: it.read_bytes() for name, it in tree.python_files(place / part).items() if name not in ours}
            back = [name for name in records[part].replaced if name not in files]
            files |= {name: data for name in back if (data := copies[f"{part}/{name}"]) is not None}
            removed += [f"{part}/{name}" for name in (*sorted(ours - files.keys()), tree.MANIFEST)]
            restored += [f"{part}/{name}" for name in back if name in files]
            if not files:
                # Python's cache of our files would keep the folder there.
                shutil.rmtree(place / part / "__pycache__", ignore_errors=True)
            tree.swap(place / part, files)
    for folder in (folder for part in parts for folder in (place / part).parents if folder.is_relative_to(place)):
        with suppress(OSError):
            folder.rmdir()
    return removed, restored
