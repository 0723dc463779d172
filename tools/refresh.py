"""Turns edits in a vendored tree into patches, and drops patches."""

from collections.abc import Mapping, Sequence
from datetime import date

import attrs

from tools.apply import read_bytes
from tools.errors import Drift, Next, UsageError, each, log
from tools.files import blob_id, digest, sha256, write
from tools.lock import PATCHES, REBASE, PinnedFile, load, meant
from tools.patch import compose, new_header, parse
from tools.relock import Files, Plan, planned, refuse_faults, write_all
from tools.sources import Project, pinned
from tools.tree import MANIFEST, Manifest, python_files, read_manifest, render_manifest, reserved
from tools.verify import differences, vendored

Names = Sequence[str]


def refresh(project: Project, adopt: Names, description: str | None, drop: Names) -> tuple[Plan, list[str]]:
    """Turn edits in a tree into patches, and drop patches; what changed, and patches without a Description.

    adopt: paths that get a first patch, with `description`. drop: patches; the tree keeps them until `vendor` runs.
    Raises Drift or UsageError, before it writes, for an edit that no patch can take.
    """
    root, lock, tree = project.root, project.lock, project.tree
    if (root / REBASE).exists():
        raise UsageError("a rebase is under way", (), [Next("rebase-continue"), Next("rebase-abort", "forgets it")])
    patched = {f"{PATCHES}/{file.patch}": file for file in lock.patched}
    dropped = [patched[it] for it in meant("patch", [f"{it.removesuffix('.patch')}.patch" for it in drop], patched)]
    parts = [part for part in lock.components if vendored(tree, part)]
    if not parts and not dropped:
        raise Drift(f"nothing is vendored in {tree}", next_steps=[Next("vendor")])
    files = [file for part in parts for file in part.files if file not in dropped]
    base = pinned(project, lock, lock.files).files
    with reserved(tree):
        records = {part.path: read_manifest(tree / part.path) for part in parts}
        texts = differences(tree, files, base, 0)
        names = _names(project, {file: file.path in texts for file in files}, records, adopt, drop)
        refuse_faults(base, {file.path: (tree / file.path).read_bytes() for file in names})
        made = dict(each(names.items(), lambda it: (it[1], _patch(project, *it, base, texts, description))))
        each((it for it in dropped if (root / PATCHES / it.patch).exists()), lambda it: read_bytes(root, it))
        kept = [file for file in lock.patched if file not in dropped and file.patch not in made]
        patches = dict(each(kept, lambda file: (file.patch, read_bytes(root, file)))) | made
        # Offline: pieces are for `lock` to look for.
        plan = planned(attrs.evolve(project, offline=True), lock, lock.pin, base, patches)
        changed = write_all(root, plan)
        lock = load(root, agreed=False)
        for part in (part for part in lock.components if part.path in records):
            old = records[part.path]
            data = render_manifest(lock, part, old)
            # With a dropped patch the old manifest stays, so that the patched file does not count as edited.
            if data != old.data and not any(file.folder == part.path for file in dropped):
                write(tree / part.path / MANIFEST, data)
            for name in python_files(tree / part.path).keys() - {*old.carried, *(file.name for file in part.files)}:
                log.warning(f"{part.path}/{name} is no pinned file, so it cannot have a patch")
    return changed, [f"{PATCHES}/{name}" for name, data in made.items() if not parse(name, data).described]


def _names(
    project: Project, files: Mapping[PinnedFile, bool], records: Mapping[str, Manifest], adopt: Names, drop: Names
) -> dict[PinnedFile, str]:
    """The patch file of each edited file. files: whether each is edited.

    Raises Drift for edits that no patch can take, and for a tree of another lock: its patches would undo what is new.
    """
    names: dict[PinnedFile, str] = {}
    wrong, found, empty, first = [], [], [], []
    taken = {file.patch for file in project.lock.patched}
    for file, edited in files.items():
        record = records[file.folder]
        patched = file.is_patched(record.extras)
        # The file itself counts too: a killed run may have written the patch of this very edit.
        if file.result(record.extras) not in (record.results.get(file.name), digest(project.tree / file.path)):
            wrong.append(f"made from another pin, or with another patch: {file.path}")
        elif patched and not edited:
            found.append(f"{file.path}: equals upstream's, so {file.patch} would be empty")
            empty.append(file.patch)
        elif edited and file.patch and not patched:
            found.append(f"{file.path}: its patch is of the extra {file.extra}, which this tree does not have")
        elif edited and not file.patch and file.path not in adopt:
            found.append(f"{file.path}: was edited, and has no patch")
            first.append(file.path)
        elif edited:
            short, long = (f"{name}.patch" for name in (file.name[:-3], file.path[:-3].replace("/", "-")))
            names[file] = file.patch or (long if short in taken | {*names.values()} else short)
    if wrong:
        why = "makes it again, and keeps copies of edits; then repeat your edits"
        raise Drift(f"{project.tree} was made from another lock", wrong, [Next("vendor", why)])
    if found:
        steps = [Next("vendor", "undoes edits, and keeps copies of them")]
        if first or empty:
            options = {"adopt": " ".join([*adopt, *first]) or None, "drop": " ".join([*drop, *empty]) or None}
            steps.insert(0, Next("refresh", "makes first patches, and drops those that would be empty", options))
        raise Drift("edits that no patch can take, so nothing was written", found, steps)
    return names


def _patch(
    project: Project, file: PinnedFile, name: str, base: Files, texts: Mapping[str, str], description: str | None
) -> bytes:
    """The patch file of an edited file; one that gives this edit stays. Raises Drift for one that is not as locked."""
    path, header = project.root / PATCHES / name, new_header(description, date.today())
    if not path.exists() and not file.patch:
        return compose(header, texts[file.path])
    # A missing one has an error of its own.
    there = path.read_bytes() if path.exists() else read_bytes(project.root, file)
    old, result = parse(name, there), (project.tree / file.path).read_bytes()
    if (old.target, old.base, old.result) == (file.path, blob_id(base[file.path]), blob_id(result)):
        return there
    if sha256(there) != file.patch_sha256:
        ours = Next("lock", "uses the patch file; vendor then keeps a copy of the tree's edits")
        back = f"{'git checkout' if file.patch else 'rm'} {PATCHES}/{name}  # to use the tree's edits"
        raise Drift(f"{PATCHES}/{name} is not as locked, and is not overwritten", (), [ours, back])
    return compose({**old.header, "Last-Update": header["Last-Update"]}, texts[file.path])
