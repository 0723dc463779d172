"""Computes upstream.lock (the verb `lock`), writes it with patches and documents, and checks all three (`lint`)."""

from collections.abc import Collection, Mapping
from pathlib import Path

import attrs

from tools import apply, docs, git, pieces, sources
from tools.errors import Drift, Next, NoSource, UsageError, each, log
from tools.files import sha256, write
from tools.lock import ABSENT, NAME, PATCHES, Lock, Pin, PinnedFile, dump, load
from tools.patch import faults, parse, splice
from tools.project import Project

# Bytes by path, None: to be removed.
Plan = Mapping[str, bytes | None]


def relock(project: Project) -> list[str]:
    """Compute and write the lock and the documents; the paths that changed. Call it while the project is locked.

    Raises UsageError for a missing patch file, and as `computed` does.
    """
    root, old = project.root, load(project.root, agreed=False)
    patches = {path.name: path.read_bytes() for path in sorted((root / PATCHES).glob("*.patch"))}
    if gone := [file.patch for file in old.patched if file.patch not in patches]:
        steps = (f"git checkout {PATCHES} restores them", Next("refresh", "drops them", {"drop": " ".join(gone)}))
        raise UsageError("patches that the lock names are missing", gone, steps)
    pin, files = _at_pin(project, old)
    return write_all(root, planned(root, computed(project, old, pin, files, patches), patches))


def computed(
    project: Project, old: Lock, pin: Pin, files: Mapping[str, bytes], patches: Mapping[str, bytes | None]
) -> Lock:
    """The lock for `pin`, its `files` (bytes by path) and `patches` (bytes by file name, None: to be removed).

    `old` gives what has not changed. Raises NoSource for an unknown baseline or wheel, and UsageError, Undecided or
    HashMismatch for faulty patches.
    """
    kept = {name: data for name, data in patches.items() if data is not None}
    parsed = {patch.target: patch for patch in each(kept.items(), lambda item: parse(*item))}
    strays = [f"{patch.name}: {path} is no pinned file" for path, patch in parsed.items() if path not in files]
    if strays or len(parsed) < len(kept):
        raise UsageError(f"each file in {PATCHES}/ must be the only patch of a pinned file", strays)
    results = dict(each(parsed.items(), lambda item: (item[0], splice(item[1], files[item[0]]))))
    _refuse_faults(files, results)
    baseline, others = _baseline(project, old, files)
    whole = {path for path, patch in parsed.items() if patch.whole_base is not None}
    wheels, texts = _pieces(project, old, {path: data for path, data in files.items() if path not in whole})
    pinned = []
    for path, data in sorted(files.items()):
        project.store.put(data)
        file = PinnedFile(path=path, upstream=sha256(data), baseline=others[path], pieces=texts.get(path, ""))
        if path in parsed:
            name = parsed[path].name
            hashes = {"patch_sha256": sha256(kept[name]), "patched": sha256(results[path])}
            file = attrs.evolve(file, patch=name, extra=old.decisions.extra_of(name), **hashes)
        pinned.append(file)
    return Lock(old.decisions, pin, baseline, tuple(pinned), wheels)


def planned(root: Path, lock: Lock, patches: Mapping[str, bytes | None]) -> Plan:
    """What has to be written: `patches`, the documents, and the lock last. Raises UsageError as `docs.stale` does.

    After a kill in between, the lock does not match the patches; running the same verb again completes the change.
    """
    parsed = {file.path: parse(file.patch, patches[file.patch] or b"") for file in lock.patched}
    plan: dict[str, bytes | None] = {f"{PATCHES}/{name}": data for name, data in patches.items()}
    plan |= {**docs.stale(root, lock, parsed), NAME: dump(lock)}
    there = {path: (root / path).read_bytes() for path in plan if (root / path).exists()}
    return {path: data for path, data in plan.items() if data != there.get(path)}


def write_all(root: Path, plan: Plan) -> list[str]:
    """Write what is `planned`; the paths that changed. Raises OSError."""
    # git keeps no empty folder, so a first patch may find none.
    (root / PATCHES).mkdir(exist_ok=True)
    for path, data in plan.items():
        if data is None:
            (root / path).unlink()
        else:
            write(root / path, data)
    return list(plan)


def lint(project: Project, pinned: Mapping[str, bytes] | None = None) -> list[str]:
    """Check lock, patches and documents, offline; the files that no patch could be tried on, for want of their bytes.

    pinned: upstream's files; without it, those in the store. Raises Drift for stale documents and unknown patch files,
    UsageError for a patch without a Description, and as reading and applying a patch does.
    """
    root, lock = project.root, project.lock
    names = {file.patch for file in lock.patched}
    if strays := [path.name for path in (root / PATCHES).glob("*.patch") if path.name not in names]:
        raise Drift("patch files that the lock does not name", strays, [Next("lock", "adds them")])
    patches = apply.read_patches(root, lock.files)
    if unwritten := [f"{PATCHES}/{patch.name}" for patch in patches.values() if not patch.described]:
        raise UsageError("patches have no Description yet", unwritten, [Next("lock", "once you wrote it")])
    get = project.store.get
    found = {
        it.path: (pinned or {}).get(it.path) or patches[it.path].whole_base or get(it.upstream) for it in lock.patched
    }
    bases = {path: base for path, base in found.items() if base is not None}
    tried = [file for file in lock.patched if file.path in bases]
    _refuse_faults(bases, apply.results(tried, bases, patches, [*lock.decisions.extras]))
    if stale := docs.stale(root, lock, patches):
        raise Drift("documents are stale", [f"stale: {name}" for name in stale], [Next("lock", "writes them")])
    return [path for path in found if path not in bases]


def _refuse_faults(bases: Mapping[str, bytes], results: Mapping[str, bytes]) -> None:
    if found := [line for path, made in results.items() for line in faults(path, bases[path], made)]:
        raise UsageError("patches make files that are not allowed", found, [Next("refresh", "once the tree is fixed")])


def _at_pin(project: Project, old: Lock) -> tuple[Pin, dict[str, bytes]]:
    """The pin, and its files (bytes by path): those that `old` lists, and all files of a new component."""
    wanted, folders = old.decisions.upstream, old.decisions.components.values()
    listed = [file for file in old.files if file.folder in folders]
    if old.pin.url == wanted.url and {file.folder for file in listed} == {*folders}:
        return attrs.evolve(old.pin, branch=wanted.branch), sources.pinned(project, old, listed).files
    try:
        found = git.commit(project.upstream or wanted.url, old.pin.commit, wanted.branch, folders, offline=False)
    except NoSource as error:
        step = Next("rebase", "follows the repository in pyproject.toml", {"to": wanted.branch})
        raise attrs.evolve(error, next_steps=(step, *error.next_steps)) from error
    files: dict[str, bytes] = {}
    for folder in folders:
        there = {path: data for path, data in found.files.items() if path.rpartition("/")[0] == folder}
        if not there:
            raise UsageError(f"commit {found.id[:12]} has no *.py file in {folder}", (), ["edit pyproject.toml"])
        files |= {path: there[path] for path in there.keys() & {file.path for file in listed} or there}
    return Pin(wanted.url, wanted.branch, found.id, found.date), files


def _baseline(project: Project, old: Lock, paths: Collection[str]) -> tuple[Pin, Mapping[str, str]]:
    """The baseline's pin, and the SHA-256 or ABSENT of each path; read from its repository only if `old` lacks them."""
    wanted = old.decisions.baseline
    known = {file.path: file.baseline for file in old.files}
    if (old.baseline.url, old.baseline.commit) == (wanted.url, wanted.commit) and known.keys() >= {*paths}:
        return old.baseline, known
    folders = old.decisions.components.values()
    found = git.commit(wanted.url, wanted.commit, wanted.branch, folders, offline=project.offline)
    hashes = {path: sha256(found.files[path]) if path in found.files else ABSENT for path in paths}
    return Pin(wanted.url, wanted.branch, found.id, found.date), hashes


def _pieces(project: Project, old: Lock, files: Mapping[str, bytes]) -> tuple[Mapping[str, str], dict[str, str]]:
    """The SHA-256 of each wheel in pyproject.toml, and the pieces of each of `files`, "" for none.

    The wheels are read only if `old` lacks a wheel, or the pieces of a file.
    """
    wheels = {name: old.wheels.get(name, "") for name in old.decisions.wheels}
    before = {(file.path, file.upstream): file.pieces for file in old.files}
    texts = {path: before.get((path, sha256(data)), "") for path, data in sorted(files.items())}
    if not wheels or (wheels == old.wheels and all(texts.values())):
        return wheels, texts if wheels else {}
    log.info(f"index: reading {', '.join(wheels)}, and looking for pieces of {len(texts)} files")
    found = sources.Wheels({}, {}, ["not asked, offline"]) if project.offline else sources.download(wheels)
    if not found.faults:
        wheels = found.hashes
        texts = {path: pieces.find(files[path], found.members) or "" for path in texts}
    elif not all(wheels.values()):
        raise NoSource("wheels could not be read", found.faults, ["remove them from pyproject.toml"])
    if lacking := [path for path, text in texts.items() if not text]:
        why = "".join(f"; {fault}" for fault in found.faults)
        log.warning(f"the wheels do not have all of {', '.join(lacking)}{why}")
    return wheels, texts
