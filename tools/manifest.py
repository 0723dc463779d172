"""PROVENANCE.json: the record, inside a component's folder, of what the component is made of.

The same lock gives the same bytes everywhere: it holds no time, no path of a machine, and no source. In somebody's
project it also says which `*.py` files were there before: those that stand beside ours, and those that ours replaced.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from tools.errors import Drift
from tools.lock import Component, Lock, path_fault
from tools.tree import MANIFEST

_KIND = {"schema": 2, "tool": "dsu-patches"}


@attrs.frozen
class Manifest:
    """What a component's manifest says, and its own bytes.

    results, bases: SHA-256, by file name, of what we made and of upstream's. carried: names of others' `*.py` files
    beside ours. replaced: SHA-256, by name, of others' files that ours took the place of.
    """

    results: Mapping[str, str] = attrs.field(factory=dict)
    bases: Mapping[str, str] = attrs.field(factory=dict)
    extras: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    replaced: Mapping[str, str] = attrs.field(factory=dict)
    data: bytes = b""


def render(
    lock: Lock,
    component: Component,
    extras: Iterable[str] = (),
    carried: Iterable[str] = (),
    replaced: Mapping[str, str] | None = None,
) -> bytes:
    """The manifest's bytes for `component` in a tree with `extras`."""
    extras = sorted({file.extra for file in component.files} & set(extras))
    files: dict[str, dict[str, str]] = {}
    for file in component.files:
        entry = file.entry
        patch = {"patch": entry.patch, "patch_sha256": entry.patch_sha256} if file.patched(extras) else {}
        files[file.name] = {"upstream": file.sha256, **patch, "result": file.result(extras)}
    document: dict[str, Any] = {
        **_KIND,
        "component": component.name,
        "path": component.path,
        "upstream": attrs.asdict(lock.pin),
        "baseline": attrs.asdict(lock.baseline),
        "files": files,
    }
    more = {"extras": extras, "carried": sorted(carried), "replaced": dict(sorted((replaced or {}).items()))}
    document |= {key: value for key, value in more.items() if value}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read(folder: Path) -> Manifest | None:
    """The manifest in the folder `folder`, None when there is none. Raises Drift for a file that is no manifest."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        document = json.loads(data)
        files, replaced = document["files"], dict(document.get("replaced", {}))
        carried = tuple(document.get("carried", ()))
        odd = [name for name in (*files, *carried, *replaced) if "/" in name or path_fault(name) or name[-3:] != ".py"]
        if odd or not _KIND.items() <= document.items():
            raise ValueError
        results, bases = ({name: str(it[key]) for name, it in files.items()} for key in ("result", "upstream"))
        return Manifest(results, bases, tuple(document.get("extras", ())), carried, replaced, data)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        step = "move it away, or name another folder with DEST="
        raise Drift(f"{path} is not a manifest that this tool wrote", next_steps=[step]) from error
