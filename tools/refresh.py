"""Edited tree to patches, and patches to something a person reads: both directions of `git diff`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import tomlkit

from tools.apply import read_patch
from tools.errors import Drift, UsageError
from tools.git import Scratch
from tools.lock import LOCK_NAME, PATCH_DIR, Component, Lock, PinnedFile
from tools.patchset import HEADER_FIELDS
from tools.relock import lock_patch
from tools.store import write_atomically

_NEW_HEADER = {"Description": "TODO: say what this changes and why", "Origin": "other", "Forwarded": "no"}


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
            body = text.split("\n@@", 1)[-1].splitlines()[1:] if text else []
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
            plan[folder / name] = (header + difference.text).encode()
    taken = [path for path, data in plan.items() if path.exists() and path.read_bytes() != data]
    if taken:
        raise UsageError("files are in the way of the export", map(str, taken), ["name an empty folder with EXPORT="])
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in plan.items():
        write_atomically(path, data)
    return list(plan)


def refresh(
    root: Path, lock: Lock, components: Iterable[Component], tree: Path, pinned: Mapping[str, bytes], today: date
) -> list[str]:
    """Turn what was edited in `tree` into patch files and lock entries; the patch files that changed.

    A pinned file that had no patch gets one, with a Description left to write. Raises MalformedPatch (the fault is in
    the edit, as trailing whitespace) before anything is written, Drift when an edit undid a patch altogether.
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
        name = locked.file if locked else f"{PATCH_DIR}/{Path(difference.path).stem}.patch"
        body = bare(difference.text)
        path = root / name
        if locked:
            old = path.read_text(encoding="utf-8")
            if old[old.index("diff --git ") :] == body:
                continue
            header = _header({**read_header(old), "Last-Update": today.isoformat()})
        else:
            if path.exists():
                raise UsageError(f"{name} exists already and patches another file")
            header = _header({**_NEW_HEADER, "Last-Update": today.isoformat()})
            entries.append(tomlkit.item({"file": name, "target": difference.path}))
        changed[name] = (header + body).encode()
    if undone:
        raise Drift(
            "a patch came out empty", undone, ["make vendor applies it again; to drop it, remove it from the lock"]
        )
    if not changed:
        return []
    for name, data in changed.items():
        write_atomically(root / name, data)
    with Scratch() as scratch:
        for entry in entries:
            if str(entry["file"]) in changed and "TODO" not in changed[str(entry["file"])].decode():
                lock_patch(entry, root, pinned, scratch)
    write_atomically(root / LOCK_NAME, tomlkit.dumps(document).encode())
    return list(changed)


def bare(diff: str) -> str:
    """`diff` without the function names that git writes behind `@@`: those are upstream's lines."""
    return re.sub(r"^(@@ [^@]+ @@).*$", r"\1", diff, flags=re.MULTILINE)


def read_header(text: str) -> dict[str, str]:
    """The DEP-3 fields before the diff in a patch file's `text`, continuation lines joined by newlines."""
    fields: dict[str, str] = {}
    last = ""
    for line in text[: text.index("diff --git ")].splitlines():
        if line.startswith(" ") and last:
            fields[last] += "\n" + line[1:]
        elif ": " in line:
            last, value = line.split(": ", 1)
            fields[last] = value
    return fields


def _header(fields: Mapping[str, str]) -> str:
    lines = [f"{name}: {fields[name]}".replace("\n", "\n ") for name in HEADER_FIELDS]
    return "\n".join(lines) + "\n\n"
