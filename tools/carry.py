"""What becomes of patches and pinned files when the pin moves: `outdated` shows it, `rebase` does it.

Here is only what can be said of two commits and the patches; nothing is written.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tools.history import Files, History
from tools.lock import Lock
from tools.patchset import Patch

Outcome = Literal["clean", "merged", "conflict", "already upstream", "gone"]


@dataclass(frozen=True)
class Carried:
    """What became of one patch.

    outcome: `clean` (its file did not change), `merged` (it did, and git merged both), `conflict` (`result` has
    markers), `already upstream` (nothing of it is left to do), `gone` (its file is not there any more). path: where its
    file is now, None when gone. added: the lines that it adds. base, old: its file upstream and patched, at the old
    pin; new: upstream at the new one; result: patched there.
    """

    file: str
    target: str
    outcome: Outcome
    path: str | None
    added: tuple[str, ...]
    base: bytes
    old: bytes
    new: bytes = b""
    result: bytes = b""
    note: str = ""

    @property
    def lost(self) -> tuple[str, ...]:
        """The lines that it added and that are neither added still nor new upstream; none before that is known."""
        if self.outcome in ("gone", "conflict"):
            return ()
        return lost_lines(self.added, self.base, self.old, self.new, self.result)


@dataclass(frozen=True)
class Moved:
    """What became of one pinned file: `same`, `changed`, `renamed` (to `path`, changed perhaps) or `gone` (None)."""

    old: str
    outcome: Literal["same", "changed", "renamed", "gone"]
    path: str | None
    note: str = ""


@dataclass(frozen=True)
class Survey:
    """The move from one commit to another: patches and pinned files in lock order, and new files in our components."""

    patches: tuple[Carried, ...]
    files: tuple[Moved, ...]
    added: tuple[str, ...]


def survey(
    history: History,
    lock: Lock,
    patches: Mapping[str, Patch],
    pinned: Mapping[str, bytes],
    patched: Mapping[str, bytes],
    old: Files,
    new: Files,
) -> Survey:
    """What the move of the pin from the commit with files `old` to the one with `new` does to `lock`.

    patches: by target. pinned, patched: bytes by path of every file of the lock, upstream and vendored. `old` has all
    pinned files. Raises ToolError where git is too old to merge.
    """
    folders = {component.path for component in lock.components}
    renames = history.renames(old, new)
    files = []
    for file in lock.files:
        moved = renames.get(file.path, "")
        if file.path in new:
            files.append(Moved(file.path, "same" if new[file.path] == file.blob else "changed", file.path))
        elif moved.rpartition("/")[0] in folders:
            files.append(Moved(file.path, "renamed", moved))
        else:
            note = f"moved to {moved}, outside every component" if moved else ""
            files.append(Moved(file.path, "gone", None, note))
    by_path = {moved.old: moved for moved in files}
    carried = []
    for locked in lock.patches:
        added = tuple(line for hunk in patches[locked.target].hunks for line in hunk.added)
        start = Carried(locked.file, locked.target, "gone", None, added, pinned[locked.target], patched[locked.target])
        carried.append(_carried(history, start, by_path[locked.target], old, new))
    kept = {moved.path for moved in files}
    fresh = [path for path in sorted(new) if path.rpartition("/")[0] in folders and path not in kept]
    # What was there at the old pin and is in no component was left out by a person.
    return Survey(tuple(carried), tuple(files), tuple(path for path in fresh if path not in old))


def _carried(history: History, start: Carried, moved: Moved, old_files: Files, new_files: Files) -> Carried:
    if moved.path is None:
        return replace(start, note=moved.note)
    new = history.read(new_files[moved.path])
    if moved.outcome == "same":
        return replace(start, outcome="clean", path=moved.path, new=new, result=start.old)
    # Git takes a missing newline at the end for a part of the last line, and finds a conflict with any change of it.
    base, ours, theirs = (history.write(_closed(data)) for data in (start.base, new, start.old))
    merge = history.merge(
        {**old_files, moved.old: base},
        {**new_files, moved.path: ours},
        {**old_files, moved.old: theirs},
        ("upstream", start.file),
    )
    merged = history.read(merge.changed[moved.path]) if moved.path in merge.changed else _closed(new)
    if merge.conflicts:
        return replace(start, outcome="conflict", path=moved.path, new=new, result=merged)
    result = _ended(merged, start.base, start.old, new)
    outcome: Outcome = "already upstream" if result == new else "merged"
    return replace(start, outcome=outcome, path=moved.path, new=new, result=result)


def _closed(data: bytes) -> bytes:
    return data if data.endswith(b"\n") or not data else data + b"\n"


def _ended(merged: bytes, base: bytes, old: bytes, new: bytes) -> bytes:
    """`merged` with its last line ended, or not, as by whoever changed that: the patch, or else upstream."""
    ours = base.rstrip(b"\n").rpartition(b"\n")[2] != old.rstrip(b"\n").rpartition(b"\n")[2]
    ours = ours or base.endswith(b"\n") != old.endswith(b"\n")
    closed = (old if ours else new).endswith(b"\n")
    return merged if closed else merged.removesuffix(b"\n")


def lost_lines(added: Iterable[str], base: bytes, old: bytes, new: bytes, result: bytes) -> tuple[str, ...]:
    """Those of `added`, the lines that the patch from `base` to `old` adds, that nothing in `result` accounts for.

    As many of a line as the patch brought more of have to be brought by the patch from `new` to `result` as well, or by
    upstream since; one that it only moved has to be there. Lines of blanks have nothing to lose.
    """
    before, patched, upstream, after = (
        Counter(data.decode("utf-8", errors="replace").split("\n")) for data in (base, old, new, result)
    )
    lost = []
    for line in dict.fromkeys(added):
        brought = patched[line] - before[line]
        if brought > 0:
            missing = brought - (after[line] - upstream[line]) - max(0, upstream[line] - before[line])
        else:
            missing = int(not after[line])
        if line.strip():
            lost += [line] * missing
    return tuple(lost)


def markers(data: bytes, inputs: Iterable[bytes]) -> list[int]:
    """The lines of `data`, from 1, that are conflict markers left over. inputs: what was merged, where a row of equal
    signs may be meant."""
    meant = {line for text in inputs for line in text.split(b"\n")}
    heads = (b"<<<<<<< ", b"||||||| ", b">>>>>>> ")
    return [
        number
        for number, line in enumerate(data.split(b"\n"), 1)
        if (line.startswith(heads) or line.rstrip(b"\r") == b"=======") and line not in meant
    ]


def syntax_fault(path: str, data: bytes, upstream: bytes) -> str | None:
    """Why `data` is no Python, or None; None also where `upstream` is none either."""
    try:
        ast.parse(upstream)
    except (SyntaxError, ValueError):
        return None
    try:
        ast.parse(data)
    except (SyntaxError, ValueError) as error:
        return f"{path}:{getattr(error, 'lineno', 1)}: {getattr(error, 'msg', error)}"
    return None
