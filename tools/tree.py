"""Replaces a component's folder as a whole, with the manifest in it: builds the new one beside it, and renames both.

Only `*.py` files and the manifest are replaced; all else moves to the new folder. `scnet` is built as `.scnet.new`, and
the old folder becomes `.scnet.old`. After a kill at any moment, the next run finishes or undoes that.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from tools.errors import Drift, HashMismatch, UsageError, log
from tools.files import digest, held, sha256, write
from tools.lock import Component, Lock

MANIFEST = "PROVENANCE.json"
_KIND = {"schema": 2, "tool": "dsu-patches"}


def python_files(folder: Path) -> dict[str, Path]:
    """The regular `*.py` files directly in `folder`, by name; none where there is no folder. Raises OSError."""
    with suppress(FileNotFoundError):
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(".py"))
        return {path.name: path for path in paths if path.is_file() and not path.is_symlink()}
    return {}


@contextmanager
def reserved(tree: Path, paths: Iterable[str] = ()) -> Iterator[None]:
    """Lock `tree`; finish or undo what a killed run left beside its folders `paths`. Raises UsageError for links."""
    with held(tree / ".dsu-vendor.lock"):
        for folder in (tree / path for path in paths):
            for here in (folder, *folder.parents):
                if tree in here.parents and (here.is_symlink() or here.is_file()):
                    raise UsageError(f"{here} is not a plain folder", (), ["replace it, or choose another DEST="])
            _recover(folder)
        yield


def standing(folder: Path) -> Path:
    """The component's folder, or the old one, where a killed run left that alone."""
    old = _beside(folder)[1]
    return old if old.exists() and not folder.exists() else folder


def leftovers(folder: Path) -> list[Path]:
    """The folders that a killed or a running run has beside `folder`."""
    return [path for path in _beside(folder) if path.exists()]


def _recover(folder: Path) -> None:
    old = _beside(folder)[1]
    if old.exists() and not folder.exists():
        old.rename(folder)
        log.info(f"{folder}: restored after a killed run")
    elif old.exists():
        ours = {MANIFEST, *python_files(old)}
        for path in sorted(old.iterdir()):
            if path.name not in ours and not os.path.lexists(folder / path.name):
                path.rename(folder / path.name)
    for path in leftovers(folder):
        shutil.rmtree(path)


def swap(folder: Path, files: Mapping[str, bytes]) -> None:
    """While `reserved`, make `files` the only `*.py` files and manifest in `folder`. Raises HashMismatch, OSError."""
    new, old = _beside(folder)
    try:
        new.mkdir(parents=True)
        if folder.exists():
            shutil.copymode(folder, new)
        for name, data in files.items():
            write(new / name, data)
            if digest(new / name) != sha256(data):
                raise HashMismatch(f"{new / name} reads back different", next_steps=["check the disk"])
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        # Also after an error: this is what the next run would do.
        _recover(folder)
    if not files:
        with suppress(OSError):
            folder.rmdir()


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


@attrs.frozen
class Manifest:
    """A component's manifest, `data`. results, replaced: SHA-256 of our files, and of others' in their place."""

    results: Mapping[str, str] = attrs.field(factory=dict)
    extras: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()  # names of others' `*.py` files beside ours
    replaced: Mapping[str, str] = attrs.field(factory=dict)
    commit: str = ""  # the pin that it was built for
    data: bytes = b""


def render_manifest(lock: Lock, component: Component, record: Manifest) -> bytes:
    """The manifest of `component` as bytes; extras and others' files are those of `record`."""
    files = {}
    for file in component.files:
        patch = {"patch": file.patch, "patch_sha256": file.patch_sha256} if file.is_patched(record.extras) else {}
        files[file.name] = {"upstream": file.upstream, **patch, "result": file.result(record.extras)}
    document = {
        **_KIND,
        "component": component.name,
        "path": component.path,
        "upstream": attrs.asdict(lock.pin),
        "baseline": attrs.asdict(lock.baseline),
        "files": files,
        "extras": sorted({file.extra for file in component.files} & {*record.extras}),
        "carried": sorted(record.carried),
        "replaced": dict(sorted(record.replaced.items())),
    }
    said = {key: value for key, value in document.items() if value}
    return (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`, an empty one for none. Raises Drift for a file that this tool did not write."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        found = json.loads(data)
        results = {name: file["result"] for name, file in found["files"].items()}
        extras, carried = (tuple(found.get(key, ())) for key in ("extras", "carried"))
        replaced, commit = dict(found.get("replaced", {})), str(found["upstream"]["commit"])
        # Others' files may have names that ours may not have, but every file is in this folder.
        plain = all(re.fullmatch(r"[^/\\:\0]*\.py", name) for name in (*results, *carried, *replaced))
        texts = (*results.values(), *replaced.values())
        hashes = all(re.fullmatch("[0-9a-f]{64}", text) for text in texts) and all(type(it) is str for it in extras)
        if not plain or not hashes or not _KIND.items() <= found.items():
            raise ValueError
        return Manifest(results, extras, carried, replaced, commit, data)
    except FileNotFoundError:
        return Manifest()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        step = "move it away, or choose another folder with DEST="
        raise Drift(f"{path} is not a manifest that this tool wrote", next_steps=[step]) from error
