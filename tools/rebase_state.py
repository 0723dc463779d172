"""The rebase that stands unfinished in a project: `build/rebase`, kept until it is continued or aborted.

resolve/   the patched files at the new commit, with conflict markers where there are any: to be edited
upstream/  the new commit's files
before/    upstream/ and patched/: the patches' files at the old commit
state.json all the rest
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from tools.carry import Carried, Moved, Outcome, Survey
from tools.errors import UsageError
from tools.hashes import blob_id, sha256
from tools.lock import LOCK_NAME, Lock, Pin, path_fault
from tools.rebase import FOLDER, RESOLVE, Choices, Rebase, resolved
from tools.store import write_atomically
from tools.transaction import BUILD, STRAY, discard

_STATE = "state.json"
_SCHEMA = 2


def under_way(root: Path) -> bool:
    """Whether an unfinished rebase stands in the project."""
    return (root / FOLDER).exists()


def refuse_second(root: Path) -> None:
    """UsageError when an unfinished rebase stands in the project."""
    if under_way(root):
        raise UsageError(
            "a rebase is under way",
            [f"it stands in {root / FOLDER}"],
            ["make rebase-status, to see how it stands", "make rebase-continue or make rebase-abort, to end it"],
        )


def save(root: Path, rebase: Rebase) -> Path:
    """Put `rebase` into the project, to be continued from any later shell; the folder with the files to resolve."""
    build = root / BUILD
    staging = Path(tempfile.mkdtemp(prefix=STRAY, dir=build))
    try:
        for path, data in rebase.files.items():
            _put(staging / "upstream" / path, data)
        for patch in rebase.survey.patches:
            _put(staging / "before" / "upstream" / patch.target, patch.base)
            _put(staging / "before" / "patched" / patch.target, patch.old)
            if patch.path:
                _put(staging / RESOLVE / patch.path, patch.result)
                _put(staging / "before" / "merged" / patch.path, patch.result)
        _put(staging / _STATE, _rendered_state(rebase))
        staging.rename(root / FOLDER)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return root / FOLDER / RESOLVE


def remember(root: Path, rebase: Rebase) -> None:
    """Keep the choices of a rebase that stands in the project already."""
    write_atomically(root / FOLDER / _STATE, _rendered_state(rebase))


def resume(root: Path, lock: Lock) -> Rebase:
    """The rebase of `lock` that stands in the project, with the files as they have been resolved by now.

    Raises UsageError when there is none, when the lock changed since it began, and when what it needs was edited.
    """
    folder = root / FOLDER
    if not under_way(root):
        raise UsageError("no rebase is under way", next_steps=["make rebase TO=<branch, tag or commit>"])
    try:
        if links := [path for path in (folder, *folder.rglob("*")) if path.is_symlink()]:
            raise ValueError(f"{links[0]} is a link")
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if state["schema"] != _SCHEMA:
            raise ValueError(f"schema should be {_SCHEMA}, is {state['schema']!r}")
        if sha256((root / LOCK_NAME).read_bytes()) != state["began"]:
            raise UsageError(
                f"{LOCK_NAME} was changed since the rebase began",
                next_steps=["get the old one back, or make rebase-abort and begin again"],
            )
        _insist_on_paths(state, lock)
        files = {path: _read(folder / "upstream" / path, blob) for path, blob in state["files"].items()}
        patches = tuple(_resumed(folder, entry, files) for entry in state["patches"])
        found = Survey(patches, tuple(Moved(**entry) for entry in state["moved"]), *map(tuple, state["added"]))
        choices = state["choices"]
        texts = [*state["old"].values(), *state["new"].values(), state["origin"]]
        texts += [entry["note"] for entry in state["patches"]]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a text is none")
        rebase = Rebase(
            state["began"],
            Pin(**state["old"]),
            Pin(**state["new"]),
            found,
            files,
            state["origin"],
            Choices(frozenset(choices["add"]), frozenset(choices["drop"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"the rebase in {folder} cannot be read", [str(error)], ["make rebase-abort, and begin again"]
        ) from error
    return resolved(rebase)


def _insist_on_paths(state: dict[str, Any], lock: Lock) -> None:
    """ValueError unless the paths in `state` are those of `lock`, or could be in one."""
    ours = [(patch.file, patch.target) for patch in lock.patches]
    if [(entry["file"], entry["target"]) for entry in state["patches"]] != ours:
        raise ValueError(f"its patches are not those of {LOCK_NAME}")
    if [entry["old"] for entry in state["moved"]] != [file.path for file in lock.files]:
        raise ValueError(f"its files are not those of {LOCK_NAME}")
    new = [*state["files"], *(path for paths in state["added"] for path in paths)]
    new += [entry["path"] for entry in (*state["patches"], *state["moved"]) if entry["path"] is not None]
    for path in new:
        if why := path_fault(path):
            raise ValueError(f"{path!r} {why}")
    if not {*state["choices"]["add"], *new} <= {*state["files"]}:
        raise ValueError("it names files of which it has no bytes")


def _resumed(folder: Path, entry: dict[str, Any], files: Mapping[str, bytes]) -> Carried:
    path = entry["path"]
    if entry["outcome"] not in get_args(Outcome):
        raise ValueError(f"there is no outcome {entry['outcome']!r}")
    return Carried(
        entry["file"],
        entry["target"],
        entry["outcome"],
        path,
        tuple(entry["added"]),
        _read(folder / "before" / "upstream" / entry["target"], entry["base"]),
        _read(folder / "before" / "patched" / entry["target"], entry["old"]),
        files[path] if path else b"",
        _to_resolve(folder, path) if path else b"",
        entry["note"],
    )


def _to_resolve(folder: Path, path: str) -> bytes:
    try:
        return (folder / RESOLVE / path).read_bytes()
    except FileNotFoundError:
        # Lost by accident: it begins anew.
        data = (folder / "before" / "merged" / path).read_bytes()
        _put(folder / RESOLVE / path, data)
        return data


def abort(root: Path) -> None:
    """Forget the rebase that stands in the project. Raises UsageError when there is none."""
    if not (root / FOLDER).exists():
        raise UsageError("no rebase is under way, so there is nothing to abort")
    discard(root / FOLDER)


def _rendered_state(rebase: Rebase) -> bytes:
    patches = [
        {
            "file": patch.file,
            "target": patch.target,
            "outcome": patch.outcome,
            "path": patch.path,
            "added": list(patch.added),
            "base": blob_id(patch.base),
            "old": blob_id(patch.old),
            "note": patch.note,
        }
        for patch in rebase.survey.patches
    ]
    choices = rebase.choices
    document = {
        "schema": _SCHEMA,
        "began": rebase.began,
        "old": asdict(rebase.old),
        "new": asdict(rebase.new),
        "patches": patches,
        "moved": [asdict(file) for file in rebase.survey.files],
        "added": [list(rebase.survey.added), list(rebase.survey.passed_over)],
        "files": {path: blob_id(data) for path, data in rebase.files.items()},
        "origin": rebase.origin,
        "choices": {"add": sorted(choices.add), "drop": sorted(choices.drop)},
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _read(path: Path, blob: str) -> bytes:
    data = path.read_bytes()
    if blob_id(data) != blob:
        raise ValueError(f"{path} was changed; only what is in {RESOLVE} is for editing")
    return data
