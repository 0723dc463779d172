"""Turns edits in a vendored tree into patches, and drops patches."""

from collections.abc import Mapping, Sequence
from datetime import date

from tools import manifest
from tools.apply import read_bytes
from tools.diff import differences
from tools.errors import Drift, Next, UsageError, each, log
from tools.files import digest, sha256, write
from tools.lock import PATCHES, Lock, PinnedFile, meant
from tools.manifest import Manifest
from tools.patch import compose, faults, new_header, parse
from tools.project import Project
from tools.relock import computed, planned, write_all
from tools.sources import pinned
from tools.tree import MANIFEST, python_files, reserved
from tools.verify import REBASE, vendored


def refresh(
    project: Project, adopt: Sequence[str], description: str | None, drop: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Turn edits in a tree into patches, and drop patches; the paths that changed, and patches without a Description.

    adopt: paths that get a first patch, with `description`. drop: names of patches to remove.
    The tree keeps the effect of a dropped patch until `vendor` runs. Call it while the project is locked. Raises Drift
    or UsageError, before anything is written, for an edit that cannot become a patch or would overwrite one.
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
        records = {part.path: manifest.read(tree / part.path) for part in parts}
        _refuse_another_lock(project, files, records)
        texts = differences(tree, files, base, 0)
        names = _names(lock, files, texts, records, adopt, drop)
        datas = each(names, lambda it: _patch(project, it, names[it], base[it.path], texts[it.path], description))
        made = dict(zip(names.values(), datas, strict=True))
        kept = [file for file in lock.patched if file not in dropped and file.patch not in made]
        patches: dict[str, bytes | None] = {file.patch: read_bytes(root, file) for file in kept}
        patches |= {**made, **{file.patch: None for file in dropped}}
        new = computed(project, lock, lock.pin, base, patches)
        changed = write_all(root, planned(root, new, patches))
        for part in (part for part in new.components if part.path in records):
            old = records[part.path]
            data = manifest.render(new, part, old)
            # With a dropped patch the old manifest stays, so that the patched file does not count as edited.
            if data != old.data and not any(file.folder == part.path for file in dropped):
                write(tree / part.path / MANIFEST, data)
            for name in python_files(tree / part.path).keys() - {*old.carried, *(file.name for file in part.files)}:
                log.warning(f"{part.path}/{name} is no pinned file, so it cannot have a patch")
    return changed, [f"{PATCHES}/{name}" for name, data in made.items() if not parse(name, data).described]


def _refuse_another_lock(project: Project, files: Sequence[PinnedFile], records: Mapping[str, Manifest]) -> None:
    """Raises Drift for a tree made from another lock: a refresh would undo what has changed since."""
    wrong = []
    for file in files:
        wanted = file.result(records[file.folder].extras)
        # The file itself counts too: a killed run may have written the patch of this very edit.
        if wanted not in (records[file.folder].results.get(file.name), digest(project.tree / file.path)):
            wrong.append(f"made from another pin, or with another patch: {file.path}")
    if wrong:
        why = "makes it again, and keeps copies of edits; then repeat your edits"
        raise Drift(f"{project.tree} was made from another lock", wrong, [Next("vendor", why)])


def _names(
    lock: Lock,
    files: Sequence[PinnedFile],
    texts: Mapping[str, str],
    records: Mapping[str, Manifest],
    adopt: Sequence[str],
    drop: Sequence[str],
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
        elif file.path in texts and not file.patch and file.path not in adopt:
            found.append(f"{file.path}: was edited, and has no patch")
            first.append(file.path)
        elif file.path in texts:
            short, long = (f"{name}.patch" for name in (file.name[:-3], file.path[:-3].replace("/", "-")))
            names[file] = file.patch or (long if short in taken else short)
            taken.add(names[file])
    if found:
        steps = [Next("vendor", "undoes edits, and keeps copies of them")]
        if first or empty:
            options = {"adopt": " ".join([*adopt, *first]) or None, "drop": " ".join([*drop, *empty]) or None}
            steps.insert(0, Next("refresh", "makes first patches, and drops those that would be empty", options))
        raise Drift("edits that no patch can take, so nothing was written", found, steps)
    return names


def _patch(project: Project, file: PinnedFile, name: str, base: bytes, text: str, description: str | None) -> bytes:
    """The patch file of an edited file; one that already gives this edit stays.

    Raises UsageError for an edit that no patch may have, and Drift for a patch file that is not as locked.
    """
    if found := faults(file.path, base, (project.tree / file.path).read_bytes()):
        raise UsageError("these edits cannot become a patch", found, ["fix them in the tree, then repeat"])
    path = project.root / PATCHES / name
    if file.patch and not path.exists():
        # Raises the error for a missing patch file.
        read_bytes(project.root, file)
    there = path.read_bytes() if path.exists() else b""
    header = new_header(description, date.today())
    if not there:
        return compose(header, text)
    old = parse(name, there)
    data = compose({**old.header, "Last-Update": header["Last-Update"]}, text)
    new = parse(name, data)
    if (old.target, old.base, old.result) == (new.target, new.base, new.result):
        return there
    if sha256(there) != file.patch_sha256:
        steps = (
            Next("lock", "uses the patch file; make vendor then keeps a copy of the tree's edits"),
            f"git checkout {PATCHES}/{name}, or move it away, to use the tree's edits",
        )
        raise Drift(f"{PATCHES}/{name} is not as locked, and is not overwritten", next_steps=steps)
    return data
