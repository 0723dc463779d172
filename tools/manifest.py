"""PROVENANCE.json, the manifest: the record in a component's folder of what it is made of.

It holds no time, machine or source, so the same lock gives the same bytes everywhere.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import attrs

from tools.errors import Drift
from tools.lock import Component, Lock
from tools.tree import MANIFEST

_KIND = {"schema": 2, "tool": "dsu-patches"}


@attrs.frozen
class Manifest:
    """A component's manifest, and its bytes. commit: the pin that the component was built for.

    results: SHA-256 of our files by name. carried: names of others' `*.py` files beside ours. replaced: SHA-256 of
    others' files that ours replaced, by name.
    """

    results: Mapping[str, str] = attrs.field(factory=dict)
    extras: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    replaced: Mapping[str, str] = attrs.field(factory=dict)
    commit: str = ""
    data: bytes = b""


def render(lock: Lock, component: Component, record: Manifest) -> bytes:
    """The manifest of `component` as bytes; extras and others' files are those of `record`."""
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
    """The manifest in `folder`, an empty one for none. Raises Drift for a file that this tool did not write."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        document = json.loads(data)
        results = {name: str(file["result"]) for name, file in document["files"].items()}
        carried, replaced = tuple(document.get("carried", ())), dict(document.get("replaced", {}))
        extras, commit = tuple(document.get("extras", ())), document["upstream"]["commit"]
        # Others' files may have names that ours may not have, but every file is in this folder.
        plain = all(name.endswith(".py") and not {*name} & {*"/\\:\0"} for name in (*results, *carried, *replaced))
        texts = (*results.values(), *replaced.values())
        hashes = all(re.fullmatch("[0-9a-f]{64}", text) for text in texts) and all(type(it) is str for it in extras)
        if not plain or not hashes or not _KIND.items() <= document.items():
            raise ValueError
        return Manifest(results, extras, carried, replaced, str(commit), data)
    except FileNotFoundError:
        return Manifest()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        step = "move it away, or choose another folder with DEST="
        raise Drift(f"{path} is not a manifest that this tool wrote", next_steps=[step]) from error
