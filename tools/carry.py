"""What becomes of patches and pinned files when the pin moves: `outdated` shows it, `rebase` does it.

Here is only what can be said of two commits and the patches; nothing is written.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
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

    @cached_property
    def lost(self) -> tuple[str, ...]:
        """The lines that it added and that are neither added still nor new upstream; none before that is known."""
        return self._accounted[0]

    @cached_property
    def taken_over(self) -> tuple[str, ...]:
        """The lines that it added and that are there because upstream has since added such lines itself."""
        return self._accounted[1]

    @cached_property
    def _accounted(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.outcome in ("gone", "conflict"):
            return (), ()
        return accounted(self.added, self.base, self.old, self.new, self.result)


@dataclass(frozen=True)
class Moved:
    """What became of one pinned file: `same`, `changed`, `renamed` (to `path`, changed perhaps) or `gone` (None)."""

    old: str
    outcome: Literal["same", "changed", "renamed", "gone"]
    path: str | None
    note: str = ""


@dataclass(frozen=True)
class Survey:
    """The move from one commit to another: patches and pinned files in lock order, and new files in our components.

    passed_over: files there that were at the old commit already, and that a person has not taken up.
    """

    patches: tuple[Carried, ...]
    files: tuple[Moved, ...]
    added: tuple[str, ...]
    passed_over: tuple[str, ...] = ()


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
    pinned files.
    """
    folders = {component.path for component in lock.components}
    renames = history.renames(old, new)
    files = []
    for file in lock.files:
        moved = renames.get(file.path, "")
        # A diff names two paths with a blank between them.
        nameless = " " in moved and lock.patch_for(file.path) is not None
        if file.path in new:
            files.append(Moved(file.path, "same" if new[file.path] == file.blob else "changed", file.path))
        elif moved.rpartition("/")[0] in folders and not nameless:
            files.append(Moved(file.path, "renamed", moved))
        else:
            why = "which no patch can name" if nameless else "outside every component"
            note = f"moved to {moved}, {why}" if moved else ""
            files.append(Moved(file.path, "gone", None, note))
    by_path = {moved.old: moved for moved in files}
    carried = []
    for locked in lock.patches:
        added = tuple(line for hunk in patches[locked.target].hunks for line in hunk.added)
        start = Carried(locked.file, locked.target, "gone", None, added, pinned[locked.target], patched[locked.target])
        carried.append(_carried(history, start, by_path[locked.target], new))
    kept = {moved.path for moved in files}
    others = [path for path in sorted(new) if path.rpartition("/")[0] in folders and path not in kept]
    fresh = tuple(path for path in others if path not in old)
    return Survey(tuple(carried), tuple(files), fresh, tuple(path for path in others if path in old))


def _carried(history: History, start: Carried, moved: Moved, new_files: Files) -> Carried:
    if moved.path is None:
        return replace(start, note=moved.note)
    new = history.read(new_files[moved.path])
    if moved.outcome == "same":
        return replace(start, outcome="clean", path=moved.path, new=new, result=start.old)
    # Git takes a missing newline at the end for a part of the last line, and finds a conflict with any change of it.
    base, ours, theirs = (_closed(data) for data in (start.base, new, start.old))
    merged, clean = history.merge(base, ours, theirs, ("upstream", start.file))
    carried = replace(start, path=moved.path, new=new)
    if not clean:
        text = any(line.startswith(b"<<<<<<< ") for line in merged.split(b"\n"))
        return replace(carried, outcome="conflict", result=merged, note="" if text else "git takes it for no text")
    result = _ended(merged, start.base, start.old, new)
    return replace(carried, outcome="already upstream" if result == new else "merged", result=result)


def _closed(data: bytes) -> bytes:
    return data if data.endswith(b"\n") or not data else data + b"\n"


def _ended(merged: bytes, base: bytes, old: bytes, new: bytes) -> bytes:
    """`merged` with its last line ended, or not, as by whoever changed that: the patch, or else upstream."""
    ours = base.rstrip(b"\n").rpartition(b"\n")[2] != old.rstrip(b"\n").rpartition(b"\n")[2]
    ours = ours or base.endswith(b"\n") != old.endswith(b"\n")
    closed = (old if ours else new).endswith(b"\n")
    return merged if closed else merged.removesuffix(b"\n")


def accounted(
    added: Iterable[str], base: bytes, old: bytes, new: bytes, result: bytes
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What became of `added`, the lines that the patch from `base` to `old` adds: those lost, and those taken over.

    As many of a line as the patch brought more of have to be brought by the patch from `new` to `result` as well, or by
    upstream since, which is what "taken over" means. Of one that it only moved there have to be as many as upstream
    has, and one at least. Lines of blanks have nothing to lose.
    """
    before, patched, upstream, after = (
        Counter(data.decode("utf-8", errors="replace").split("\n")) for data in (base, old, new, result)
    )
    lost: list[str] = []
    taken: list[str] = []
    for line in dict.fromkeys(added):
        if not line.strip():
            continue
        brought = patched[line] - before[line]
        if brought > 0:
            wanting = max(0, brought - max(0, after[line] - upstream[line]))
            found = min(wanting, max(0, min(upstream[line], after[line]) - before[line]))
            taken += [line] * found
            lost += [line] * (wanting - found)
        else:
            lost += [line] * (max(1, upstream[line] + brought) - after[line])
    return tuple(lost), tuple(taken)


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
        ast.parse(data)
    except (RecursionError, MemoryError):
        # Too deep for Python's own parser, which says nothing about the text.
        return None
    except (SyntaxError, ValueError) as error:
        if _is_python(upstream):
            return f"{path}:{getattr(error, 'lineno', None) or 1}: {getattr(error, 'msg', error)}"
    return None


def _is_python(data: bytes) -> bool:
    try:
        ast.parse(data)
    except (SyntaxError, ValueError):
        return False
    return True
