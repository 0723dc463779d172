"""Edited tree to patches, and patches to something a person reads: both directions of `git diff`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import tomlkit
from tomlkit.items import AoT

from tools.apply import read_patch
from tools.errors import Drift, MalformedPatch, UsageError
from tools.git import Scratch
from tools.lock import LOCK_NAME, PATCH_DIR, Component, Lock, PinnedFile
from tools.lock import parse as parse_lock
from tools.patchset import HEADER_FIELDS, TO_WRITE, Patch, parse
from tools.relock import lock_patch
from tools.store import write_atomically

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
    missing = [file.path for file in files if not (tree / file.path).is_file()]
    if missing:
        raise Drift(f"{tree} lacks files to compare", [f"missing: {path}" for path in missing], ["make vendor"])
    with Scratch() as scratch:
        for file in files:
            data = (tree / file.path).read_bytes()
            text = scratch.diff(file.path, pinned[file.path], data, context) if data != pinned[file.path] else ""
            body = text.split("\n@@", 1)[-1].split("\n")[1:] if text else []
            found.append(
                Difference(
                    file.path,
                    sum(line.startswith("+") for line in body),
                    sum(line.startswith("-") for line in body),
                    text,
                )
            )
    return found


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


def refresh(
    root: Path, lock: Lock, components: Iterable[Component], tree: Path, pinned: Mapping[str, bytes], today: date
) -> list[Patch]:
    """Turn what was edited in `tree` into patch files and lock entries; the patches that changed.

    A pinned file that had no patch gets one, with a Description left to write. Raises before anything is written:
    MalformedPatch for an edit that no patch may hold (trailing whitespace) and for a patch file that is malformed
    already, Drift when an edit undid a patch altogether.
    """
    document = tomlkit.parse((root / LOCK_NAME).read_text(encoding="utf-8"))
    entries = document.setdefault("patches", tomlkit.aot())
    files = [file for component in components for file in component.files]
    changed: dict[str, bytes] = {}
    undone = []
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
            fields = parse(name, old, draft=True).header
            if old.endswith(_encoded(f"\n{body}")):
                continue
        else:
            name = _new_name(difference.path, [*changed, *(patch.file for patch in lock.patches)])
            fields = _NEW_HEADER
            entry = tomlkit.table() if isinstance(entries, AoT) else tomlkit.inline_table()
            entry.update({"file": name, "target": difference.path})
            entries.append(entry)
        changed[name] = _encoded(_header({**fields, "Last-Update": today.isoformat()}) + body)
    if undone:
        raise Drift(
            "a patch came out empty", undone, ["make vendor applies it again; to drop it, remove it from the lock"]
        )
    patches = _parsed(changed)
    with Scratch() as scratch:
        for patch in patches:
            entry = next(entry for entry in entries if entry["file"] == patch.name)
            lock_patch(entry, patch, changed[patch.name], pinned, scratch)
    if changed:
        text = tomlkit.dumps(document)
        parse_lock(text)
        for name, data in changed.items():
            write_atomically(root / name, data)
        write_atomically(root / LOCK_NAME, text.encode())
    return patches


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


def _header(fields: Mapping[str, str]) -> str:
    lines = [f"{name}: {fields[name]}".replace("\n", "\n ") for name in HEADER_FIELDS]
    return "\n".join(lines) + "\n\n"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")
