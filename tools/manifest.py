"""PROVENANCE.json: the record, inside a tree, of what the tree is made of.

Deterministic: it holds no time, no path of this machine and no order but the lock's, so that the same bytes from the
same sources give the same file. Each component has its own section; vendoring one leaves the others' sections alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools import __version__
from tools.errors import Drift
from tools.lock import Component, Lock

NAME = "PROVENANCE.json"
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
    path = tree / NAME
    try:
        document = json.loads(path.read_bytes())
        ours = document["schema"] == SCHEMA and str(document["tool"]).startswith(_TOOL)
        sections = document["components"]
        if ours and all(
            isinstance(entry["path"], str) and isinstance(entry["result"]["sha256"], str)
            for part in sections.values()
            for entry in part["files"]
        ):
            return dict(sections)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise Drift(
        f"{path} is not a manifest that this tool wrote",
        next_steps=["move it away, or name another folder with DEST="],
    )


def agrees(found: Mapping[str, Any] | None, lock: Lock, component: Component) -> bool:
    """Whether the section `found` is what `lock` says of `component`, whatever sources it names."""
    try:
        origins = {entry["path"]: str(entry["source"]) for entry in (found or {})["files"]}
        return found == section(lock, component, origins)
    except (KeyError, TypeError):
        return False


def ours(sections: Mapping[str, Any]) -> dict[str, str]:
    """Result SHA-256 by path, of every file that the manifest says we made."""
    return {entry["path"]: entry["result"]["sha256"] for part in sections.values() for entry in part["files"]}
