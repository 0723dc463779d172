"""Edited tree to patches, and patches to something a person reads: both directions of `git diff`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import tomlkit
from tomlkit.items import AoT

from tools import manifest
from tools.apply import read_patch
from tools.change import completed
from tools.docs import DOCUMENTS
from tools.errors import Drift, MalformedPatch, UsageError
from tools.git import Scratch
from tools.limits import LARGEST_FILE, read_small
from tools.lock import LOCK_NAME, PATCH_DIR, Component, IndexSpec, Lock, PinnedFile
from tools.patchset import HEADER_FIELDS, TO_WRITE, Patch, blemishes, held_base, parse
from tools.relock import lock_patch
from tools.store import write_atomically
from tools.transaction import write_together
from tools.tree import digest, listing, refuse_links

_NEW_HEADER = {"Description": f"{TO_WRITE}: say what this changes and why", "Origin": "other", "Forwarded": "no"}


@dataclass(frozen=True)
class Difference:
    """One file, upstream against a tree: added and removed lines and the diff's text (empty when equal)."""

    path: str
    added: int
    removed: int
    text: str


def differences(tree: Path, files: Iterable[PinnedFile], pinned: Mapping[str, bytes], context: int) -> list[Difference]:
    """`files` upstream (`pinned`, bytes by path) against `tree`, with `context` lines around each change.

    Raises Drift when `tree` lacks one of them.
    """
    found = []
    files = list(files)
    for folder in dict.fromkeys(file.path.rpartition("/")[0] for file in files):
        refuse_links(tree, folder)
    missing = [file.path for file in files if digest(tree / file.path) is None]
    if missing:
        kinds = {path: "no plain file" if (tree / path).exists() else "missing" for path in missing}
        raise Drift(
            f"{tree} lacks files to compare", [f"{kind}: {path}" for path, kind in kinds.items()], ["make vendor"]
        )
    with Scratch() as scratch:
        for file in files:
            data = read_small(tree / file.path, LARGEST_FILE)
            text = scratch.diff(file.path, pinned[file.path], data, context) if data != pinned[file.path] else ""
            found.append(Difference(file.path, *line_counts(text), text))
    return found


def line_counts(diff: str) -> tuple[int, int]:
    """Lines that a diff of one file adds and removes, as `git diff --numstat` counts them."""
    body = diff.split("\n@@", 1)[-1].split("\n")[1:] if diff else []
    return sum(line.startswith("+") for line in body), sum(line.startswith("-") for line in body)


def export(root: Path, lock: Lock, found: Iterable[Difference], folder: Path) -> list[Path]:
    """Write each non-empty difference below `folder` as a conventional patch with our header; the files written.

    Raises UsageError rather than replace a file that is there and differs.
    """
    plan = {}
    for difference in found:
        if difference.text:
            locked = lock.patch_for(difference.path)
            header = _header(read_patch(root, locked)[0].header) if locked else ""
            name = Path(locked.file).name if locked else difference.path.replace("/", "-") + ".patch"
            plan[folder / name] = _encoded(header + difference.text)
    taken = [path for path, data in plan.items() if path.exists() and path.read_bytes() != data]
    if taken:
        raise UsageError("files are in the way of the export", map(str, taken), ["name an empty folder with EXPORT="])
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in plan.items():
        write_atomically(path, data)
    return list(plan)


@dataclass(frozen=True)
class Refreshed:
    """The patches that changed, the documents that follow, and what `lint` will not like in what was added.

    extra: files in the components that are no pinned ones. to_find: files that an index alone no longer gives, before
    `lock` has looked for their pieces.
    """

    patches: tuple[Patch, ...] = ()
    documents: tuple[str, ...] = ()
    blemishes: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    to_find: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adopt:
    """Paths of pinned files that may get a first patch, and the Description that it gets; to be written when None."""

    paths: Sequence[str] = ()
    description: str | None = None


def refresh(
    root: Path,
    lock: Lock,
    components: Iterable[Component],
    tree: Path,
    pinned: Mapping[str, bytes],
    adopt: Adopt,
    verbs: Sequence[tuple[str, str]],
    today: date,
) -> Refreshed:
    """Turn what was edited in `tree` into patch files, lock entries, the tree's manifest and documents, together.

    pinned: upstream's bytes of `components` by path. To be called while `project_lock` is held. Raises before anything
    is written: Drift for an edited file that has no patch and is not to be adopted, and for an edit that undid a patch
    altogether; MalformedPatch for an edit that no patch may hold (bytes that are no UTF-8) and for a patch file that is
    malformed already; UsageError for a path to adopt that was not edited.
    """
    document = tomlkit.parse((root / LOCK_NAME).read_text(encoding="utf-8"))
    entries = document.setdefault("patches", tomlkit.aot())
    components = list(components)
    _refuse_other_base(tree, lock, components)
    files = [file for component in components for file in component.files]
    changed: dict[str, bytes] = {}
    undone = []
    unlisted = []
    adopted = set()
    for difference in differences(tree, files, pinned, 0):
        locked = lock.patch_for(difference.path)
        if not difference.text:
            if locked:
                undone.append(f"{difference.path}: as upstream has it, so {locked.file} would be empty")
            continue
        body = bare(difference.text)
        if locked:
            name = locked.file
            old = (root / name).read_bytes()
            parse(name, old, draft=True)
            if not old.endswith(_encoded(f"\n{body}")):
                changed[name] = rendered(old, body, today)
        elif difference.path in adopt.paths:
            name = _new_name(difference.path, [*changed, *(patch.file for patch in lock.patches)])
            fields = {**_NEW_HEADER, **({"Description": adopt.description} if adopt.description else {})}
            entry = tomlkit.table() if isinstance(entries, AoT) else tomlkit.inline_table()
            entry.update({"file": name, "target": difference.path})
            entries.append(entry)
            adopted.add(difference.path)
            changed[name] = _encoded(_header({**fields, "Last-Update": today.isoformat()}) + body)
        else:
            unlisted.append(difference.path)
    _refuse(undone, unlisted, [path for path in adopt.paths if path not in adopted and not lock.patch_for(path)])
    pinned_paths = {file.path for file in files}
    here = [f"{part.path}/{name}" for part in components for name in listing(tree / part.path)]
    extra = tuple(path for path in here if path not in pinned_paths)
    if not changed:
        return Refreshed(extra=extra)
    patches = _parsed(changed)
    with Scratch() as scratch:
        for patch in patches:
            entry = next(entry for entry in entries if entry["file"] == patch.name)
            lock_patch(entry, patch, changed[patch.name], pinned, scratch)
    tables = {str(table["path"]): table for table in document["files"]}
    held = [patch.target for patch in patches if held_base(patch) is not None]
    for path in held:
        tables[path].pop("pieces", None)
    wheels = any(isinstance(spec, IndexSpec) and spec.wheels for spec in lock.sources)
    bare_ones = (patch.target for patch in patches if "pieces" not in tables[patch.target])
    to_find = tuple(path for path in bare_ones if wheels and path not in held)
    new_lock, plan = completed(
        root, {**changed, LOCK_NAME: tomlkit.dumps(document).encode()}, pinned, verbs, draft=True
    )
    documents = tuple(name for name in DOCUMENTS if root / name in plan)
    write_together(root, {**plan, **_manifest(tree, new_lock, components)})
    said = tuple(line for patch in patches for line in blemishes(patch))
    return Refreshed(tuple(patches), documents, said, extra, to_find)


def _refuse_other_base(tree: Path, lock: Lock, components: Iterable[Component]) -> None:
    """Drift when `tree` is not known to be made from this lock: a refresh would undo what has changed in it since."""
    sections = manifest.read(tree)
    wrong = []
    for part in components:
        if part.name not in sections:
            wrong.append(f"{part.path}: {manifest.NAME} says nothing of it")
            continue
        made = manifest.hashes(sections[part.name])
        for file in part.files:
            base, result = made.get(file.path, ("", ""))
            if base != file.sha256:
                wrong.append(f"{file.path}: made of another version of upstream's")
            elif result != lock.expected_sha256(file):
                wrong.append(f"{file.path}: made with another version of its patch")
    if wrong:
        raise Drift(
            f"{tree} was not made from the lock as it is, so a refresh would undo what has changed since",
            wrong,
            ["make vendor, which keeps copies of edits; then edit again"],
        )


def _refuse(undone: Sequence[str], unlisted: Sequence[str], unedited: Sequence[str]) -> None:
    if undone or unlisted:
        steps = []
        if unlisted:
            steps.append(f'make refresh ADOPT="{" ".join(unlisted)}" makes a first patch of these edits')
        if undone:
            steps.append("to drop a patch, remove it and its entry in the lock")
        raise Drift(
            "edits that no patch can take, so nothing was written",
            [*(f"{path}: was edited, and has no patch" for path in unlisted), *undone],
            [*steps, "make vendor undoes edits, and keeps a copy of them"],
        )
    if unedited:
        raise UsageError(
            "there is nothing to adopt", [f"{path}: is as upstream has it" for path in unedited], ["edit it first"]
        )


def _manifest(tree: Path, lock: Lock, components: Iterable[Component]) -> dict[Path, bytes | None]:
    """The manifest of `tree` with the sections of `components` as `lock` has them now; {} where it has none."""
    sections = manifest.read(tree)
    for part in lock.select(component.name for component in components):
        if part.name in sections:
            origins = manifest.origins(sections[part.name])
            if all(file.path in origins for file in part.files):
                sections[part.name] = manifest.section(lock, part, origins)
    return {(tree / manifest.NAME).resolve(): manifest.render(sections)} if sections else {}


def bare(diff: str) -> str:
    """`diff` without the function names that git writes behind `@@`: those are upstream's lines."""
    return re.sub(r"^(@@ [^@]+ @@).*$", r"\1", diff, flags=re.MULTILINE)


def _parsed(changed: Mapping[str, bytes]) -> list[Patch]:
    """The patches in `changed` (bytes by name). Raises MalformedPatch with what is wrong with the edits in all."""
    found: list[Patch] = []
    faults: list[str] = []
    for name, data in changed.items():
        try:
            found.append(parse(name, data, draft=True))
        except MalformedPatch as error:
            faults += error.findings
    if faults:
        raise MalformedPatch(
            "what was edited cannot be a patch, so nothing was written",
            faults,
            ["mend it in the tree, then: make refresh"],
        )
    return found


def _new_name(path: str, taken: Iterable[str]) -> str:
    """A patch file for `path`: called as the file is, or with its folders too when that is `taken`."""
    stem = path.removesuffix(".py")
    names = [f"{PATCH_DIR}/{name}.patch" for name in (stem.rsplit("/", 1)[-1], stem.replace("/", "-"))]
    for name in names:
        if name not in taken:
            return name
    raise UsageError(f"every name for a patch of {path} is taken", names, ["rename one of them, in the lock too"])


def rendered(old: bytes, body: str, today: date) -> bytes:
    """The patch file that holds `old` with another diff, and with Last-Update moved; all else of its header stays."""
    header = old.decode().partition("\ndiff --git ")[0]
    header = re.sub(r"^Last-Update: .*$", f"Last-Update: {today.isoformat()}", header, flags=re.MULTILINE)
    return _encoded(f"{header}\n{body}")


def _header(fields: Mapping[str, str]) -> str:
    lines = [f"{name}: {fields[name]}".replace("\n", "\n ") for name in HEADER_FIELDS]
    return "\n".join(lines) + "\n\n"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")
