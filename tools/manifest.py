"""PROVENANCE.json: the record, inside a component's folder, of what the component is made of.

The same lock gives the same bytes everywhere: it holds no time, no path of a machine, and no source. In somebody's
project it also says which `*.py` files were there before: those that stand beside ours, and those that ours replaced.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import attrs

from tools.errors import Drift
from tools.lock import Component, Lock, is_path
from tools.tree import MANIFEST

_KIND = {"schema": 2, "tool": "dsu-patches"}


@attrs.frozen
class Manifest:
    """What a component's manifest says, and its own bytes.

    results: SHA-256, by file name, of what we made. carried: names of others' `*.py` files beside ours. replaced:
    SHA-256, by name, of others' files that ours took the place of.
    """

    results: Mapping[str, str] = attrs.field(factory=dict)
    extras: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    replaced: Mapping[str, str] = attrs.field(factory=dict)
    data: bytes = b""


def render(lock: Lock, component: Component, record: Manifest) -> bytes:
    """The manifest's bytes for `component`, with the extras of `record` and what it says of others' files."""
    files = {}
    for file in component.files:
        patch = {"patch": file.patch, "patch_sha256": file.patch_sha256} if file.is_patched(record.extras) else {}
        files[file.name] = {"upstream": file.upstream, **patch, "result": file.result(record.extras)}
    more = {
        "extras": sorted({file.extra for file in component.files} & {*record.extras}),
        "carried": sorted(record.carried),
        "replaced": dict(sorted(record.replaced.items())),
    }
    document = {
        **_KIND,
        "component": component.name,
        "path": component.path,
        "upstream": attrs.asdict(lock.pin),
        "baseline": attrs.asdict(lock.baseline),
        "files": files,
        **{key: value for key, value in more.items() if value},
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read(folder: Path) -> Manifest:
    """The manifest in the folder `folder`, an empty one when there is none. Raises Drift for one that is not ours."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        document = json.loads(data)
        results = {name: str(file["result"]) for name, file in document["files"].items()}
        carried, replaced = tuple(document.get("carried", ())), dict(document.get("replaced", {}))
        names = (*results, *carried, *replaced)
        plain = all(is_path(name) and "/" not in name and name.endswith(".py") for name in names)
        if not plain or not _KIND.items() <= document.items():
            raise ValueError
        return Manifest(results, tuple(document.get("extras", ())), carried, replaced, data)
    except FileNotFoundError:
        return Manifest()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        step = "move it away, or name another folder with DEST="
        raise Drift(f"{path} is not a manifest that this tool wrote", next_steps=[step]) from error
