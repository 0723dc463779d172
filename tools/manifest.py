"""PROVENANCE.json: the record, inside a tree, of what the tree is made of.

Deterministic: it holds no time, no path of this machine and no order but the lock's, so that the same bytes from the
same sources give the same file. Each component has its own section; vendoring one leaves the others' sections alone.

While components are being swapped in, a second file says what is coming, so that whatever a killed run leaves is known
to be ours.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools import __version__
from tools.errors import Drift
from tools.limits import LARGEST_FILE, Unreadable, read_small
from tools.lock import Component, Lock, path_fault
from tools.store import write_atomically
from tools.tree import digest

NAME = "PROVENANCE.json"
PENDING = f".{NAME}.next"
SCHEMA = 1
_TOOL = "dsu-patches"


def section(lock: Lock, component: Component, origins: Mapping[str, str]) -> dict[str, Any]:
    """The manifest's section for `component`: pin, baseline, and for each file its source, base, result and patch."""
    files = []
    for file in component.files:
        patch = lock.patch_for(file.path)
        entry: dict[str, Any] = {
            "path": file.path,
            "status": "patched" if patch else "unchanged",
            "source": origins[file.path],
            "base": {"sha256": file.sha256, "blob": file.blob},
            "result": {
                "sha256": lock.expected_sha256(file),
                "blob": patch.result if patch else file.blob,
            },
        }
        if patch:
            entry["patch"] = {"file": patch.file, "sha256": patch.sha256}
        files.append(entry)
    return {"path": component.path, "pin": asdict(lock.pin), "baseline": asdict(lock.baseline), "files": files}


def render(sections: Mapping[str, Any]) -> bytes:
    """The manifest's bytes for `sections` (component name to `section`)."""
    document = {
        "schema": SCHEMA,
        "tool": f"{_TOOL} {__version__}",
        "components": {name: sections[name] for name in sorted(sections)},
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read(tree: Path) -> dict[str, Any]:
    """The sections of `tree`'s manifest; {} when there is none.

    Raises Drift when a file of that name is there and is not a manifest of ours.
    """
    if (found := _sections(tree / NAME)) is None:
        raise Drift(
            f"{tree / NAME} is not a manifest that this tool wrote",
            next_steps=["move it away, or name another folder with DEST="],
        )
    return found


def _sections(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(read_small(path, LARGEST_FILE))
        # A letter that no file can hold (half a surrogate pair) is none of ours.
        json.dumps(document, ensure_ascii=False).encode()
        ours = document["schema"] == SCHEMA and str(document["tool"]).startswith(_TOOL)
        sections = document["components"]
        entries = [entry for part in sections.values() for entry in part["files"]]
        texts = [text for entry in entries for text in (entry["source"], *_hashes(entry))]
        if ours and not any(path_fault(entry["path"]) for entry in entries) and all(isinstance(x, str) for x in texts):
            return dict(sections)
    except FileNotFoundError:
        return {}
    except (Unreadable, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None


def pending(tree: Path) -> dict[str, Any]:
    """The sections that a run had announced and, if it is not still at work, was killed before it recorded them."""
    return _sections(tree / PENDING) or {}


def announce(tree: Path, sections: Mapping[str, Any]) -> None:
    """Say that `sections` are coming. Raises OSError."""
    write_atomically(tree / PENDING, render({**pending(tree), **sections}))


def settle(tree: Path) -> None:
    """Forget what was announced, unless the tree holds a file that only the announcement explains. Raises OSError."""
    unrecorded = set(_entries(pending(tree))) - set(_entries(read(tree)))
    if not any(digest(tree / path) == sha256 for path, sha256 in unrecorded):
        (tree / PENDING).unlink(missing_ok=True)


def origins(found: Mapping[str, Any]) -> dict[str, str]:
    """The source of each file of the section `found`, by path."""
    return {entry["path"]: entry["source"] for entry in found["files"]}


def hashes(found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The SHA-256s of base and result of each file of the section `found`, by path."""
    return {entry["path"]: _hashes(entry) for entry in found["files"]}


def _hashes(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry["base"]["sha256"], entry["result"]["sha256"]


def agrees(found: Mapping[str, Any], lock: Lock, component: Component) -> bool:
    """Whether the section `found` is what `lock` says of `component`, whatever sources it names."""
    named = origins(found)
    return all(file.path in named for file in component.files) and found == section(lock, component, named)


def ours(tree: Path) -> dict[str, set[str]]:
    """Result SHA-256s by path, of every file that we made in `tree`, or were about to. Raises Drift as `read` does."""
    found: dict[str, set[str]] = {}
    for path, sha256 in [*_entries(read(tree)), *_entries(pending(tree))]:
        found.setdefault(path, set()).add(sha256)
    return found


def _entries(sections: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(path, result) for part in sections.values() for path, (_, result) in hashes(part).items()]
