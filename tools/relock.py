"""Computes upstream.lock (the verb `lock`), writes it with patches and documents, and checks all three (`lint`)."""

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path

import attrs

from tools import apply, docs, git, pieces, sources
from tools.errors import Drift, Next, NoSource, UsageError, each, log
from tools.files import sha256, write
from tools.lock import ABSENT, NAME, PATCHES, Lock, Pin, PinnedFile, dump, load, read
from tools.patch import faults, parse, splice
from tools.sources import Project

# Bytes by path or name; None in a plan: to be removed.
Files = Mapping[str, bytes]
Plan = Mapping[str, bytes | None]


def relock(project: Project) -> Plan:
    """Compute and write lock and documents; what changed. Raises UsageError for a missing patch, and as `planned`."""
    root, old = project.root, load(project.root, agreed=False)
    patches = {path.name: path.read_bytes() for path in sorted((root / PATCHES).glob("*.patch"))}
    listed = [file for file in old.patched if file.folder in old.decisions.components.values()]
    if gone := [file.patch for file in listed if file.patch not in patches]:
        steps = (f"git checkout {PATCHES}  # restores them", Next("refresh", "drops them", {"drop": " ".join(gone)}))
        raise UsageError("patches that the lock names are missing", gone, steps)
    return write_all(root, planned(project, old, *_at_pin(project, old), patches))


def planned(project: Project, old: Lock, pin: Pin, files: Files, patches: Files) -> Plan:
    """What to write: `patches` (by file name), documents, and last the lock for `pin` and its `files` (by path).

    Patches that only `old` names are removed; what has not changed is copied from it. Raises NoSource for an unknown
    baseline or wheel, and UsageError, Undecided or HashMismatch for faulty patches, documents or decisions.
    """
    known = {file.patch for file in old.patched}
    found = sorted(each(patches.items(), lambda item: parse(*item)), key=lambda patch: patch.name not in known)
    parsed = {patch.target: patch for patch in reversed(found)}
    if strays := [patch for patch in found if patch.target not in files or parsed[patch.target] != patch]:
        text = f"each file in {PATCHES}/ must be the only patch of a pinned file"
        step = f"rm {' '.join(f'{PATCHES}/{patch.name}' for patch in strays)}  # or correct the path in it"
        raise UsageError(text, [f"{patch.name}: {patch.target}" for patch in strays], [step])
    results = dict(each(parsed.values(), lambda patch: (patch.target, splice(patch, files[patch.target]))))
    refuse_faults(files, results)
    baseline, others = _baseline(project, old, files)
    whole = {path for path, patch in parsed.items() if patch.whole_base is not None}
    wheels, texts = _pieces(project, old, {path: files[path] for path in files.keys() - whole})
    entries = []
    for path, data in sorted(files.items()):
        project.store.put(data)
        entry = PinnedFile(path=path, upstream=sha256(data), baseline=others[path], pieces=texts.get(path, ""))
        if patch := parsed.get(path):
            hashes = {"patch_sha256": sha256(patches[patch.name]), "patched": sha256(results[path])}
            entry = attrs.evolve(entry, patch=patch.name, extra=old.decisions.extra_of(patch.name), **hashes)
        entries.append(entry)
    lock = Lock(old.decisions, pin, baseline, tuple(entries), wheels)
    root, sealed = project.root, dump(lock)
    # A lock that no verb could read is not written.
    read(tomllib.loads(sealed.decode()), lock.decisions)
    plan: dict[str, bytes | None] = {f"{PATCHES}/{name}": patches.get(name) for name in (*patches, *sorted(known))}
    plan |= {**docs.stale(root, lock, parsed), NAME: sealed}
    there = {path: (root / path).read_bytes() for path in plan if (root / path).exists()}
    return {path: data for path, data in plan.items() if data != there.get(path)}


def write_all(root: Path, plan: Plan) -> Plan:
    """Write a plan while the project is locked, and return it. After a kill the same verb goes on."""
    for path, new in plan.items():
        # git keeps no empty folder, so a first patch may find none.
        (root / path).parent.mkdir(exist_ok=True)
        if new is None:
            (root / path).unlink()
        else:
            write(root / path, new)
    return plan


def lint(project: Project) -> list[str]:
    """Check lock, patches and documents, offline; the files that no patch was tried on. Raises for what is wrong."""
    root, lock = project.root, project.lock
    if strays := {path.name for path in (root / PATCHES).glob("*.patch")} - {file.patch for file in lock.patched}:
        raise Drift("patch files that the lock does not name", sorted(strays), [Next("lock", "adds them")])
    patches = apply.read_patches(root, lock.files)
    if unwritten := [f"{PATCHES}/{patch.name}" for patch in patches.values() if not patch.described]:
        raise UsageError("patches have no Description yet", unwritten, [Next("lock", "once you wrote it")])
    get = project.store.get
    found = {file.path: patches[file.path].whole_base or get(file.upstream) for file in lock.patched}
    bases = {path: base for path, base in found.items() if base is not None}
    tried = [file for file in lock.patched if file.path in bases]
    refuse_faults(bases, apply.results(tried, bases, patches, [*lock.decisions.extras]))
    if stale := docs.stale(root, lock, patches):
        raise Drift("documents are stale", [f"stale: {name}" for name in stale], [Next("lock", "writes them")])
    return [path for path in found if path not in bases]


def refuse_faults(bases: Files, results: Files) -> None:
    """Raises UsageError for `results` that no patch may make of `bases`; bytes by path."""
    if found := [line for path, made in results.items() for line in faults(path, bases[path], made)]:
        raise UsageError("patches make files that are not allowed", found, [Next("refresh", "once the tree is fixed")])


def _at_pin(project: Project, old: Lock) -> tuple[Pin, dict[str, bytes]]:
    """The pin, and its files (bytes by path): those that `old` lists, and all files of a new component."""
    wanted, folders = old.decisions.upstream, old.decisions.components.values()
    listed = [file for file in old.files if file.folder in folders]
    new = {*folders} - {file.folder for file in listed}
    if old.pin.url == wanted.url and not new:
        return attrs.evolve(old.pin, branch=wanted.branch), sources.pinned(project, old, listed).files
    try:
        found = git.commit(project.upstream or wanted.url, old.pin.commit, wanted.branch, folders, offline=False)
    except NoSource as error:
        step = Next("lock", "uses your own copy of upstream", {"upstream": "PATH"})
        if old.pin.url != wanted.url:
            step = Next("rebase", "follows the repository in pyproject.toml", {"to": wanted.branch})
        raise attrs.evolve(error, next_steps=(step, *error.next_steps)) from error
    known = {file.path for file in listed}
    files = {path: data for path, data in found.files.items() if path in known or path.rpartition("/")[0] in new}
    if empty := new - {path.rpartition("/")[0] for path in files}:
        raise UsageError(f"commit {found.id[:12]} has no *.py file in {', '.join(empty)}", (), ["edit pyproject.toml"])
    return Pin(wanted.url, wanted.branch, found.id, found.date), files


def _baseline(project: Project, old: Lock, paths: Collection[str]) -> tuple[Pin, Mapping[str, str]]:
    """The baseline's pin, and the SHA-256 or ABSENT of each path; read from its repository only if `old` lacks them."""
    wanted = old.decisions.baseline
    known = {file.path: file.baseline for file in old.files}
    if (old.baseline.url, old.baseline.commit) == (wanted.url, wanted.commit) and known.keys() >= {*paths}:
        return attrs.evolve(old.baseline, branch=wanted.branch), known
    folders = old.decisions.components.values()
    found = git.commit(wanted.url, wanted.commit, wanted.branch, folders, offline=project.offline)
    hashes = {path: sha256(found.files[path]) if path in found.files else ABSENT for path in paths}
    return Pin(wanted.url, wanted.branch, found.id, found.date), hashes


def _pieces(project: Project, old: Lock, files: Files) -> tuple[Mapping[str, str], dict[str, str]]:
    """The SHA-256 of each wheel, and the pieces of each of `files`, "" for none; read only where `old` lacks one."""
    wheels = {name: old.wheels.get(name, "") for name in old.decisions.wheels}
    # Pieces of a wheel that is gone are of no use.
    before = {(file.path, file.upstream): file.pieces for file in old.files if old.wheels.keys() <= wheels.keys()}
    texts = {path: before.get((path, sha256(data)), "") for path, data in sorted(files.items())}
    if not wheels or (wheels == old.wheels and all(texts.values())):
        return wheels, (texts if wheels else {})
    if not project.offline:
        log.info(f"index: reading {', '.join(wheels)}, and looking for pieces of {len(texts)} files")
    found = sources.Wheels({}, {}, ["index not asked"]) if project.offline else sources.download(wheels)
    if not found.faults:
        wheels = found.hashes
        texts = {path: pieces.find(files[path], found.members) or "" for path in texts}
    elif not all(wheels.values()):
        raise NoSource("wheels could not be read", found.faults, ["remove them from pyproject.toml"])
    if lacking := [path for path, text in texts.items() if not text]:
        log.warning("; ".join([f"the wheels do not have all of {', '.join(lacking)}", *found.faults]))
    return wheels, texts
