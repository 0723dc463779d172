"""Computing the lock from decisions and the real things, and checking that lock, patches and documents are in order."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import attrs

from tools import apply, change, docs, git, pieces, sources
from tools.errors import Drift, HashMismatch, MalformedPatch, Next, NoSource, UsageError, each, log
from tools.files import sha256
from tools.lock import ABSENT, NAME, PATCHES, Decisions, Entry, Lock, Pin, decided, grouped, load
from tools.patch import faults, parse, splice
from tools.store import Store


@dataclass(frozen=True)
class Basis:
    """What a lock is computed from: decisions, the pin, its files (bytes by path), all patches (bytes by file name)."""

    decisions: Decisions
    pin: Pin
    files: Mapping[str, bytes]
    patches: Mapping[str, bytes]


def computed(basis: Basis, old: Lock | None, store: Store, *, offline: bool = False) -> Lock:
    """The lock for `basis`; `old`, the one before it, says what is known of the baseline, and of wheels out of reach.

    Warns of files that an index alone does not give. Raises NoSource for a wheel or a baseline that is not known and
    cannot be read, HashMismatch for a wheel that changed, and what is wrong with patches, of all of them at once.
    """
    files = basis.files
    patches = {patch.target: patch for patch in each(basis.patches.items(), lambda item: parse(*item, draft=True))}
    strays = [f"{patch.name}: {path} is no pinned file" for path, patch in patches.items() if path not in files]
    if strays or len(patches) < len(basis.patches):
        raise MalformedPatch(f"each file in {PATCHES}/ is for a pinned file, and the only one for it", strays)
    results = dict(each(patches.items(), lambda item: (item[0], splice(item[1], files[item[0]]))))
    _refuse_faults(files, results)
    baseline, others = _baseline(basis, old, offline=offline)
    whole = {path for path, patch in patches.items() if patch.whole_base is not None}
    wheels, texts = _pieces(basis, files.keys() - whole, old, offline=offline)
    entries = {}
    for path, data in sorted(files.items()):
        store.put(data)
        upstream, pieces = sha256(data), texts.get(path, "")
        entry = Entry(upstream, others[path] if others[path] != upstream else "", pieces=pieces)
        if path in patches:
            name = patches[path].name
            hashes = {"patch_sha256": sha256(basis.patches[name]), "patched": sha256(results[path])}
            entry = attrs.evolve(entry, patch=name, **hashes)
        entries[path] = entry
    return Lock(basis.decisions, basis.pin, baseline, grouped(basis.decisions, entries), wheels)


def _refuse_faults(bases: Mapping[str, bytes], results: Mapping[str, bytes]) -> None:
    if found := [line for path, made in results.items() for line in faults(path, bases[path], made)]:
        raise MalformedPatch("patches make what they may not", found, [Next("refresh", "once mended in the tree")])


def _baseline(basis: Basis, old: Lock | None, *, offline: bool) -> tuple[Pin, Mapping[str, str]]:
    """The baseline's pin, and the SHA-256 or ABSENT of each path there; asked only for what `old` does not say."""
    wanted = basis.decisions.baseline
    if old and (old.baseline.url, old.baseline.commit) == (wanted.url, wanted.commit):
        known = {file.path: file.baseline for file in old.files}
        if known.keys() >= basis.files.keys():
            return old.baseline, known
    try:
        if offline and not wanted.url.startswith("file://"):
            raise git.RemoteError("not asked, offline")
        log.info(f"git {wanted.url}: reading the baseline")
        found = git.commit(wanted.url, wanted.commit, wanted.branch, basis.decisions.components.values())
    except git.RemoteError as error:
        step = f"git config --global url.FOLDER.insteadOf {wanted.url} has git take your clone in FOLDER"
        raise NoSource(f"the baseline {wanted.commit[:12]} could not be read", [str(error)], [step]) from error
    hashes = {path: sha256(found.files[path]) if path in found.files else ABSENT for path in basis.files}
    return Pin(wanted.url, wanted.branch, found.id, found.date), hashes


def _pieces(
    basis: Basis, paths: Collection[str], old: Lock | None, *, offline: bool
) -> tuple[Mapping[str, str], dict[str, str]]:
    """The SHA-256 of each wheel that is decided on, and the pieces of each of `paths` that has any."""
    if not (names := basis.decisions.wheels):
        return {}, {}
    log.info(f"index: reading {', '.join(names)}")
    known = old.wheels if old else {}
    unread: list[str] = []
    wheels: dict[str, str] = {}
    members: dict[str, bytes] = {}
    for wheel, answer in (dict.fromkeys(names, "not asked, offline") if offline else sources.download(names)).items():
        try:
            if isinstance(answer, str):
                raise ValueError(answer)
            wheels[wheel] = sha256(answer)
            members |= pieces.python_members(answer, wheel.partition("==")[0])
        except ValueError as error:
            unread.append(f"{wheel}: {error}")
    if changed := [name for name, actual in wheels.items() if known.get(name, actual) != actual]:
        steps = ["a release never changes: find out why, or take it out of pyproject.toml"]
        raise HashMismatch("wheels are not those that were locked", changed, steps)
    if not unread:
        begun = time.monotonic()
        texts = {path: pieces.find(basis.files[path], members) or "" for path in sorted(paths)}
        log.info(f"looked for pieces of {len(texts)} files: {time.monotonic() - begun:.1f} s")
    elif old and known.keys() >= set(names):
        log.warning(f"wheels, and pieces of files that did not change, stay as they are: {'; '.join(unread)}")
        wheels = {name: known[name] for name in names}
        before = {(file.path, file.sha256): file.entry.pieces for file in old.files}
        texts = {path: before.get((path, sha256(basis.files[path])), "") for path in sorted(paths)}
    else:
        raise NoSource("wheels could not be read", unread, ["take them out of pyproject.toml"])
    if lacking := [path for path, text in texts.items() if not text]:
        log.warning(f"an index alone does not give {', '.join(lacking)}")
    return wheels, texts


# --- The verbs ---


def relock(root: Path, store: Store, upstream: str | None, verbs: Sequence[tuple[str, str]]) -> list[str]:
    """Compute the lock anew, write it and the documents; the paths that changed. Call it while the project is held.

    upstream: another place for the pin. A first lock takes the newest commit of upstream's branch. Raises NoSource,
    MalformedPatch for a patch file that is gone, and what `computed` raises.
    """
    decisions = decided(root)
    old = load(root, agreed=False) if (root / NAME).exists() else None
    patches = {path.name: path.read_bytes() for path in sorted((root / PATCHES).glob("*.patch"))}
    if gone := [file.entry.patch for file in old.patched if file.entry.patch not in patches] if old else []:
        steps = (f"git checkout {PATCHES} gets them back", Next("refresh", "drops them", {"drop": " ".join(gone)}))
        raise MalformedPatch("patches that the lock names are not there", gone, steps)
    pin, files = _at_pin(root, decisions, old, store, upstream)
    return change.write_all(root, change.Change(computed(Basis(decisions, pin, files, patches), old, store)), verbs)


def _at_pin(
    root: Path, decisions: Decisions, old: Lock | None, store: Store, upstream: str | None
) -> tuple[Pin, dict[str, bytes]]:
    """The pin, and the bytes by path of the files that `old` lists there; of a component that it lacks, all."""
    wanted = decisions.upstream
    place = str(sources.local(upstream) or upstream) if upstream else wanted.url
    log.info(f"git {place}: reading the pin")
    try:
        name = old.pin.commit if old else wanted.branch
        found = git.commit(place, name, wanted.branch, decisions.components.values())
    except git.RemoteError as error:
        if not old or old.pin.url != wanted.url or not all(part.files for part in old.components):
            step = "another repository is followed by make rebase URL=... TO=..., which writes its url itself"
            raise NoSource("the pin could not be read", [f"git {place}: {error}"], [step]) from error
        log.warning(f"git {place}: {error}; so the pinned files are taken by their hashes")
        return old.pin, sources.pinned(old, root, old.files, store, upstream).files
    listed = {file.path for file in old.files} if old else set()
    files: dict[str, bytes] = {}
    for folder in decisions.components.values():
        there = {path: data for path, data in found.files.items() if path.rpartition("/")[0] == folder}
        if not there:
            raise UsageError(f"commit {found.id[:12]} has no *.py file in {folder}", (), ["edit pyproject.toml"])
        files |= {path: there[path] for path in there.keys() & listed or there}
    return Pin(wanted.url, wanted.branch, found.id, found.date), files


def lint(root: Path, lock: Lock, store: Store, verbs: Sequence[tuple[str, str]]) -> list[str]:
    """Check `lock`, its patches and the documents, offline; the files whose bytes are not at hand to try a patch on.

    Raises Drift for stale documents and unknown patch files, and what reading and applying a patch raises.
    """
    names = {file.entry.patch for file in lock.patched}
    if strays := [path.name for path in (root / PATCHES).glob("*.patch") if path.name not in names]:
        raise Drift("patch files that the lock does not name", strays, [Next("lock", "takes them up")])
    patches = apply.read_patches(root, lock.files)
    found = {file: patches[file.path].whole_base or store.get(file.sha256) for file in lock.patched}
    bases = {file.path: base for file, base in found.items() if base is not None}
    tried = [file for file in found if file.path in bases]
    _refuse_faults(bases, apply.results(root, tried, bases, [*lock.decisions.extras]))
    if stale := docs.stale(root, lock, patches, verbs):
        raise Drift("documents are stale", [f"stale: {name}" for name in stale], [Next("lock", "writes them")])
    return [file.path for file in found if file not in tried]
