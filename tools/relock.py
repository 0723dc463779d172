"""Computes upstream.lock (the verb `lock`), and checks lock, patches and documents (the verb `lint`)."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import attrs

from tools import apply, change, docs, git, pieces, sources
from tools.errors import Drift, Next, NoSource, UsageError, each, log
from tools.files import sha256
from tools.lock import ABSENT, PATCHES, Decisions, Lock, Pin, PinnedFile, decided, load
from tools.patch import faults, parse, splice
from tools.store import Store


@attrs.frozen
class Basis:
    """The input of a lock: decisions, the pin, its files (bytes by path), and patches (bytes by file name)."""

    decisions: Decisions
    pin: Pin
    files: Mapping[str, bytes]
    patches: Mapping[str, bytes]


def computed(basis: Basis, old: Lock, store: Store, *, offline: bool = False) -> Lock:
    """The lock for `basis`. `old` has the baseline, and the wheels where they cannot be downloaded.

    Raises NoSource for an unknown baseline or wheel, and UsageError, Undecided or HashMismatch for faulty patches.
    """
    files = basis.files
    patches = {patch.target: patch for patch in each(basis.patches.items(), lambda item: parse(*item))}
    strays = [f"{patch.name}: {path} is no pinned file" for path, patch in patches.items() if path not in files]
    if strays or len(patches) < len(basis.patches):
        raise UsageError(f"each file in {PATCHES}/ must be the only patch of a pinned file", strays)
    results = dict(each(patches.items(), lambda item: (item[0], splice(item[1], files[item[0]]))))
    _refuse_faults(files, results)
    baseline, others = _baseline(basis, old, offline=offline)
    whole = {path for path, patch in patches.items() if patch.whole_base is not None}
    wheels, texts = _pieces(basis, files.keys() - whole, old, offline=offline)
    pinned = []
    for path, data in sorted(files.items()):
        store.put(data)
        hashes = {"upstream": sha256(data), "baseline": others[path]}
        if path in patches:
            name = patches[path].name
            hashes |= {"patch_sha256": sha256(basis.patches[name]), "patched": sha256(results[path]), "patch": name}
            hashes["extra"] = basis.decisions.extra_of(name)
        pinned.append(PinnedFile(path=path, pieces=texts.get(path, ""), **hashes))
    return Lock(basis.decisions, basis.pin, baseline, tuple(pinned), wheels)


def _refuse_faults(bases: Mapping[str, bytes], results: Mapping[str, bytes]) -> None:
    if found := [line for path, made in results.items() for line in faults(path, bases[path], made)]:
        raise UsageError("patches make files that are not allowed", found, [Next("refresh", "once the tree is fixed")])


def _baseline(basis: Basis, old: Lock, *, offline: bool) -> tuple[Pin, Mapping[str, str]]:
    """The baseline's pin, and the SHA-256 or ABSENT of each path; read from its repository only if `old` lacks them."""
    wanted = basis.decisions.baseline
    known = {file.path: file.baseline for file in old.files}
    if (old.baseline.url, old.baseline.commit) == (wanted.url, wanted.commit) and known.keys() >= basis.files.keys():
        return old.baseline, known
    folders = basis.decisions.components.values()
    found = git.commit(wanted.url, wanted.commit, wanted.branch, folders, offline=offline)
    hashes = {path: sha256(found.files[path]) if path in found.files else ABSENT for path in basis.files}
    return Pin(wanted.url, wanted.branch, found.id, found.date), hashes


def _pieces(
    basis: Basis, paths: Collection[str], old: Lock, *, offline: bool
) -> tuple[Mapping[str, str], dict[str, str]]:
    """The SHA-256 of each wheel in pyproject.toml, and the pieces of each of `paths`, "" for none."""
    known = {name: old.wheels.get(name, "") for name in basis.decisions.wheels}
    if not known:
        return {}, {}
    log.info(f"index: reading {', '.join(known)}, and looking for pieces of {len(paths)} files")
    found = sources.Wheels(faults=["not asked, offline"]) if offline else sources.download(known)
    if not found.faults:
        known = found.hashes
        texts = {path: pieces.find(basis.files[path], found.members) or "" for path in sorted(paths)}
    elif all(known.values()):
        log.warning(f"wheels, and pieces of unchanged files, stay as locked: {'; '.join(found.faults)}")
        before = {(file.path, file.upstream): file.pieces for file in old.files}
        texts = {path: before.get((path, sha256(basis.files[path])), "") for path in sorted(paths)}
    else:
        raise NoSource("wheels could not be read", found.faults, ["remove them from pyproject.toml"])
    if lacking := [path for path, text in texts.items() if not text]:
        log.warning(f"the wheels do not have all of {', '.join(lacking)}")
    return known, texts


# --- The verbs ---


def relock(root: Path, store: Store, upstream: str | None, verbs: Sequence[tuple[str, str]]) -> list[str]:
    """Compute and write the lock and the documents; the paths that changed. Call it while the project is locked.

    upstream: another place to read the pin from. Raises UsageError for a missing patch file, and as `computed` does.
    """
    decisions, old = decided(root), load(root, agreed=False)
    patches = {path.name: path.read_bytes() for path in sorted((root / PATCHES).glob("*.patch"))}
    if gone := [file.patch for file in old.patched if file.patch not in patches]:
        steps = (f"git checkout {PATCHES} restores them", Next("refresh", "drops them", {"drop": " ".join(gone)}))
        raise UsageError("patches that the lock names are missing", gone, steps)
    pin, files = _at_pin(root, decisions, old, store, upstream)
    lock = computed(Basis(decisions, pin, files, patches), old, store)
    return change.write_all(root, change.planned(root, change.Change(lock), verbs))


def _at_pin(
    root: Path, decisions: Decisions, old: Lock, store: Store, upstream: str | None
) -> tuple[Pin, dict[str, bytes]]:
    """The pin, and its files that `old` lists (bytes by path); all files of a new component."""
    wanted, folders = decisions.upstream, decisions.components.values()
    try:
        found = git.commit(upstream or wanted.url, old.pin.commit, wanted.branch, folders, offline=False)
    except NoSource as error:
        if old.pin.url != wanted.url or {*folders} - {*old.decisions.components.values()}:
            step = "to follow another repository, run make rebase URL=... TO=...; it writes the url"
            raise attrs.evolve(error, next_steps=(step, *error.next_steps)) from error
        log.warning(f"{error}; the pinned files are found by their hashes instead")
        return old.pin, sources.pinned(old, root, old.files, store, upstream, offline=False).files
    listed = {file.path for file in old.files}
    files: dict[str, bytes] = {}
    for folder in folders:
        there = {path: data for path, data in found.files.items() if path.rpartition("/")[0] == folder}
        if not there:
            raise UsageError(f"commit {found.id[:12]} has no *.py file in {folder}", (), ["edit pyproject.toml"])
        files |= {path: there[path] for path in there.keys() & listed or there}
    return Pin(wanted.url, wanted.branch, found.id, found.date), files


def lint(root: Path, lock: Lock, store: Store, verbs: Sequence[tuple[str, str]]) -> list[str]:
    """Check `lock`, its patches and the documents, offline; the files that are not in the store to try a patch on.

    Raises Drift for stale documents and unknown patch files, UsageError for a patch without a Description, and as
    reading and applying a patch does.
    """
    names = {file.patch for file in lock.patched}
    if strays := [path.name for path in (root / PATCHES).glob("*.patch") if path.name not in names]:
        raise Drift("patch files that the lock does not name", strays, [Next("lock", "adds them")])
    patches = apply.read_patches(root, lock.files)
    if unwritten := [f"{PATCHES}/{patch.name}" for patch in patches.values() if not patch.described]:
        raise UsageError("patches have no Description yet", unwritten, [Next("lock", "once you wrote it")])
    found = {file: patches[file.path].whole_base or store.get(file.upstream) for file in lock.patched}
    bases = {file.path: base for file, base in found.items() if base is not None}
    tried = [file for file in found if file.path in bases]
    _refuse_faults(bases, apply.results(tried, bases, patches, [*lock.decisions.extras]))
    if stale := docs.stale(root, lock, patches, verbs):
        raise Drift("documents are stale", [f"stale: {name}" for name in stale], [Next("lock", "writes them")])
    return [file.path for file in found if file not in tried]
