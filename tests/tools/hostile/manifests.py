"""Hostile manifests, in a tree that somebody else hands over."""

import json
from collections.abc import Iterator
from typing import Any

from tests.tools.hostile.cases import PATHS, Case


def manifest(path: str = "models/alpha/core.py", **more: Any) -> dict[str, Any]:
    some = {"sha256": "0" * 64, "blob": "0" * 40}
    files = [{"path": path, "source": "git", "base": some, "result": some, **more}]
    return {"schema": 1, "tool": "dsu-patches 0.1.0", "components": {"alpha": {"path": "models/alpha", "files": files}}}


def cases() -> Iterator[Case]:
    for path in PATHS:
        yield _case(f"path {path!r}", json.dumps(manifest(path)).encode())
    for name, data in {
        "half a surrogate pair": json.dumps(manifest(note="\ud800")).encode(),
        "brackets": b"[" * 100_000,
        "a number of many digits": b'{"schema": ' + b"9" * 10_000 + b"}",
        "a newer schema": json.dumps(manifest() | {"schema": 2}).encode(),
        "another tool": json.dumps(manifest() | {"tool": "rm -rf"}).encode(),
        "invalid UTF-8": b'{"schema": 1, "tool": "\xff"}',
        "five megabytes": b" " * (5 << 20),
        "a list": b"[]",
        "components in a list": json.dumps(manifest() | {"components": [1]}).encode(),
        "a path that is none": json.dumps(manifest(path=None)).encode(),  # type: ignore[arg-type]
        "a hash that is none": json.dumps(manifest(result=3)).encode(),
        "a base without a hash": json.dumps(manifest(base={})).encode(),
        "a source that is none": json.dumps(manifest(source=["git"])).encode(),
        "nothing": b"",
    }.items():
        yield _case(name, data)


def _case(name: str, data: bytes) -> Case:
    says = ("PROVENANCE.json is not a manifest that this tool wrote",)
    return Case("manifest", name, says, code=1, files={"vendor/PROVENANCE.json": data})
