"""Turns edits in a vendored tree into patches, and drops patches."""

from collections.abc import Mapping, Sequence
from datetime import date

import attrs

from tools import manifest, sources
from tools.apply import read_bytes
from tools.change import Change, planned, write_all
from tools.diff import differences
from tools.errors import Drift, Next, UsageError, each, log
from tools.files import digest, sha256, write
from tools.lock import PATCHES, Lock, PinnedFile, is_called
from tools.manifest import Manifest
from tools.patch import Patch, compose, faults, new_header, parse, splice
from tools.tree import MANIFEST, python_files, reserved
from tools.vendor import Order
from tools.verify import REBASE, vendored


@attrs.frozen
class Wish:
    """What to change. adopt: paths that get a first patch, with `description`. drop: patches to remove."""

    adopt: Sequence[str] = ()
    description: str | None = None
    drop: Sequence[str] = ()


def refresh(order: Order, wish: Wish, verbs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Turn edits in a tree into patches, and drop patches; the paths that changed, and patches without a Description.

    The tree keeps the effect of a dropped patch until `vendor` runs. Call it while the project is locked. Raises Drift
    or UsageError, before anything is written, for an edit that cannot become a patch or would overwrite one.
    """
    if (order.root / REBASE).exists():
        raise UsageError("a rebase is under way", (), [Next("rebase-continue"), Next("rebase-abort", "forgets it")])
    lock, tree = order.lock, order.tree
    dropped = _dropped(lock, wish.drop)
    parts = [part for part in order.components if vendored(tree, part)]
    if not parts and not dropped:
        raise Drift(f"nothing is vendored in {tree}", next_steps=[Next("vendor")])
    files = [file for part in parts for file in part.files if file not in dropped]
    pinned = sources.pinned(lock, order.root, files, order.store, order.upstream, offline=order.offline).files
    with reserved(tree):
        records = {part.path: manifest.read(tree / part.path) for part in parts}
        _refuse_another_lock(order, files, records)
        texts = {found.path: found.text for found in differences(tree, files, pinned, 0)}
        names = _names(lock, files, texts, records, wish)
        made = each(names, lambda file: _made(order, file, names[file], pinned[file.path], texts[file.path], wish))
        entries = {file.path: file for _, _, file in made}
        entries |= {it.path: attrs.evolve(it, patch="", patch_sha256="", patched="", extra="") for it in dropped}
        new = attrs.evolve(lock, files=tuple(entries.get(file.path, file) for file in lock.files))
        patches: dict[str, bytes | None] = {patch.name: data for patch, data, _ in made}
        change = Change(new, patches | {file.patch: None for file in dropped})
        changed = write_all(order.root, planned(order.root, change, verbs))
        for part in (part for part in new.components if part.path in records):
            old = records[part.path]
            data = manifest.render(new, part, old)
            # With a dropped patch the old manifest stays, so that the patched file does not count as edited.
            if data != old.data and not any(file.folder == part.path for file in dropped):
                write(tree / part.path / MANIFEST, data)
            for name in python_files(tree / part.path).keys() - {*old.carried, *(file.name for file in part.files)}:
                log.warning(f"{part.path}/{name} is no pinned file, so it cannot have a patch")
    return changed, [f"{PATCHES}/{patch.name}" for patch, *_ in made if not patch.described]


def _dropped(lock: Lock, names: Sequence[str]) -> list[PinnedFile]:
    """The files whose patches `names` mean, with or without the folder and `.patch`."""
    found = []
    for name in (f"{name.removesuffix('.patch')}.patch" for name in names):
        files = [file for file in lock.patched if is_called(f"{PATCHES}/{file.patch}", name)]
        if not files:
            raise UsageError(f"no patch is called {name}", [file.patch for file in lock.patched])
        found += files
    return found


def _refuse_another_lock(order: Order, files: Sequence[PinnedFile], records: Mapping[str, Manifest]) -> None:
    """Raises Drift for a tree made from another lock: a refresh would undo what has changed since."""
    wrong = []
    for file in files:
        made, wanted = records[file.folder].results.get(file.name), file.result(records[file.folder].extras)
        # A killed run may have written the patch of this very edit.
        if made != wanted and digest(order.tree / file.path) != wanted:
            wrong.append(f"made from another pin, or with another patch: {file.path}")
    if wrong:
        why = "makes it again, and keeps copies of edits; then repeat your edits"
        raise Drift(f"{order.tree} was made from another lock", wrong, [Next("vendor", why)])


def _names(
    lock: Lock, files: Sequence[PinnedFile], texts: Mapping[str, str], records: Mapping[str, Manifest], wish: Wish
) -> dict[PinnedFile, str]:
    """The patch file of each edited file. Raises Drift for edits that cannot become patches."""
    names: dict[PinnedFile, str] = {}
    found, empty, first = [], [], []
    taken = {file.patch for file in lock.patched}
    for file in files:
        patched = file.is_patched(records[file.folder].extras)
        if patched and file.path not in texts:
            found.append(f"{file.path}: equals upstream's, so {file.patch} would be empty")
            empty.append(file.patch)
        elif file.path in texts and file.patch and not patched:
            found.append(f"{file.path}: its patch is of the extra {file.extra}, which this tree does not have")
        elif file.path in texts and not file.patch and file.path not in wish.adopt:
            found.append(f"{file.path}: was edited, and has no patch")
            first.append(file.path)
        elif file.path in texts:
            short, long = (f"{name}.patch" for name in (file.name[:-3], file.path[:-3].replace("/", "-")))
            names[file] = file.patch or (long if short in taken else short)
            taken.add(names[file])
    if found:
        steps = [Next("vendor", "undoes edits, and keeps copies of them")]
        if first or empty:
            options = {"adopt": " ".join([*wish.adopt, *first]) or None, "drop": " ".join([*wish.drop, *empty]) or None}
            steps.insert(0, Next("refresh", "makes first patches, and drops those that would be empty", options))
        raise Drift("edits that no patch can take, so nothing was written", found, steps)
    return names


def _made(
    order: Order, file: PinnedFile, name: str, base: bytes, text: str, wish: Wish
) -> tuple[Patch, bytes, PinnedFile]:
    """The patch of an edited file, parsed and as bytes, and the file's new entry in the lock.

    A patch file that already gives this edit stays. Raises Drift for another one that is not as locked.
    """
    if found := faults(file.path, base, (order.tree / file.path).read_bytes()):
        raise UsageError("these edits cannot become a patch", found, ["fix them in the tree, then repeat"])
    path = order.root / PATCHES / name
    if file.patch and not path.exists():
        # Raises the error for a missing patch file.
        read_bytes(order.root, file)
    there = path.read_bytes() if path.exists() else b""
    old = parse(name, there) if there else None
    header = new_header(wish.description, date.today())
    data = compose({**old.header, "Last-Update": header["Last-Update"]} if old else header, text)
    patch = parse(name, data)
    if old and (old.target, old.base, old.result) == (patch.target, patch.base, patch.result):
        patch, data = old, there
    elif there and sha256(there) != file.patch_sha256:
        steps = (
            Next("lock", "uses the patch file; make vendor then keeps a copy of the tree's edits"),
            f"git checkout {PATCHES}/{name}, or move it away, to use the tree's edits",
        )
        raise Drift(f"{PATCHES}/{name} is not as locked, and is not overwritten", next_steps=steps)
    pieces = file.pieces if patch.whole_base is None else ""
    if order.lock.wheels and not pieces and patch.whole_base is None:
        log.warning(f"the lock has no pieces of {file.path}; make lock looks for them")
    hashes = {"patch_sha256": sha256(data), "patched": sha256(splice(patch, base))}
    extra = order.lock.decisions.extra_of(name)
    return patch, data, attrs.evolve(file, patch=name, extra=extra, pieces=pieces, **hashes)
