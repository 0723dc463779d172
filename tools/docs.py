"""Computes tables in the documents: each stands between `<!-- computed: NAME -->` and `<!-- end -->`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tools.errors import EXIT_CODES, UsageError
from tools.lock import ABSENT, PATCHES, Lock
from tools.patch import Patch

DOCUMENTS = ("README.md", "MODEL_CHANGES.md", "docs/json.md")
_START = "<!-- computed:"
_PART = re.compile(rf"(^{_START} ([a-z-]+) -->\n)(.*?)(^<!-- end -->$)", re.MULTILINE | re.DOTALL)


def stale(root: Path, lock: Lock, patches: Mapping[str, Patch]) -> dict[str, bytes]:
    """The right bytes of stale documents, by name. patches: by path. Raises UsageError for an unknown or open part."""
    pins = {"upstream": lock.pin, "baseline": lock.baseline}
    dated = ((what, pin.url, f"`{pin.commit}`", pin.date[:10]) for what, pin in pins.items())
    known = {
        "exit-codes": _table("code | meaning", EXIT_CODES.items()),
        "pins": _table("what | repository | commit | date", dated),
        "files": _files(lock, patches),
        "patches": _patches(lock, patches),
    }
    found = {}
    for name in (name for name in DOCUMENTS if (root / name).exists()):
        text = (root / name).read_text(encoding="utf-8", errors="surrogateescape")
        parts = [part[2] for part in _PART.finditer(text)]
        if text.count(_START) != len(parts) or not known.keys() >= set(parts):
            why = "has a computed part with an unknown name, or with no <!-- end --> on its own line"
            raise UsageError(f"{name} {why}", [f"known names: {', '.join(known)}"])
        if (fresh := _PART.sub(lambda part: part[1] + known[part[2]] + part[4], text)) != text:
            found[name] = fresh.encode(errors="surrogateescape")
    return found


def _table(head: str, rows: Iterable[Sequence[object]]) -> str:
    lines = [head, " | ".join("---" for _ in head.split("|"))]
    lines += [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def _files(lock: Lock, patches: Mapping[str, Patch]) -> str:
    rows = []
    for file in lock.files:
        extra = f", with the extra {file.extra}" if file.extra else ""
        vendored = f"patched: `{file.patched[:12]}`{extra}" if file.patch else "unchanged"
        words = {file.upstream: "agrees", ABSENT: "absent"}
        baseline = words.get(file.baseline, f"differs: `{file.baseline[:12]}`")
        index = str(len(file.pieces.rpartition("|")[2].split())) if file.pieces else "none"
        if file.path in patches and patches[file.path].whole_base is not None:
            index = "its patch has it"
        rows.append((f"`{file.path}`", f"`{file.upstream[:12]}`", vendored, baseline, index))
    return _table("file | upstream SHA-256 | vendored | baseline | pieces in wheels", rows)


def _patches(lock: Lock, patches: Mapping[str, Patch]) -> str:
    rows = []
    for file in lock.patched:
        patch = patches[file.path]
        what = patch.header["Description"].split("\n")[0]
        name, result = f"`{PATCHES}/{patch.name}`", f"`{file.patched[:16]}`"
        rows.append((name, file.extra or "no", len(patch.hunks), patch.counts, result, what))
    return _table("patch | extra | hunks | lines | result SHA-256 | description", rows)
