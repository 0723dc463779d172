"""What exactly differs: upstream at the pin, the baseline and the vendored tree, file by file.

The core compares values; `gather_sides` is the edge that gets them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tools.apply import apply_patch, joined, read_patch
from tools.ends import Place, find
from tools.errors import NoSource, ToolError, UsageError
from tools.git import Commit, RemoteError, Scratch, remote_commit
from tools.hashes import blob_id, sha256
from tools.history import History
from tools.limits import LARGEST_FILE, Unreadable, read_small
from tools.lock import ABSENT, Lock, PinnedFile
from tools.progress import Progress
from tools.refresh import line_counts
from tools.sources import asked_at, gather, on_this_machine, sources_for
from tools.store import Store

SIDES = ("upstream", "baseline", "vendored")
# Our patch; what the app had changed already; what changes for who moves from the baseline to the vendored tree.
PAIRS = (("upstream", "vendored"), ("upstream", "baseline"), ("baseline", "vendored"))
STATUS_WORDS = {
    "unchanged": "vendored as upstream has it, as the lock says",
    "patched": "vendored with our patch, as the lock says",
    "edited": "vendored, and not what the lock says",
    "not vendored": "not in the tree; what the lock promises stands in for it",
    "upstream unknown": "upstream's bytes could not be had",
    "baseline agrees": "the baseline has upstream's bytes",
    "baseline differs": "the baseline has changed it against upstream",
    "baseline lacks it": "the baseline has no such file",
    "baseline unknown": "the baseline's bytes could not be had",
    "is upstream": "the audited checkout has upstream's bytes",
    "is baseline": "the audited checkout has the baseline's bytes",
    "is vendored": "the audited checkout has the vendored bytes",
    "is upstream but for CRLF": "the audited checkout has upstream's bytes once CRLF is taken for LF",
    "is baseline but for CRLF": "the audited checkout has the baseline's bytes once CRLF is taken for LF",
    "is vendored but for CRLF": "the audited checkout has the vendored bytes once CRLF is taken for LF",
    "is something else": "the audited checkout has what none of the three has, CRLF aside",
    "is missing": "the audited checkout has no such plain file",
}


@dataclass(frozen=True)
class Side:
    """One file in one place: its bytes, or None where it is absent or, when `why` says a reason, could not be had.

    locked: its blob as the lock has it, for bytes that could not be had; ABSENT where the lock says so.
    """

    data: bytes | None
    why: str = ""
    locked: str = ""

    @cached_property
    def blob(self) -> str | None:
        if self.data is None:
            return self.locked if self.locked not in ("", ABSENT) else None
        return blob_id(self.data)

    @property
    def blob_with_lf(self) -> str | None:
        """The same for its bytes with LF for CRLF, as far as they could be had."""
        return self.blob if self.data is None else blob_id(lf(self.data))


@dataclass(frozen=True)
class Comparison:
    """`old` against `new`, by the names of their sides: added and removed lines, the diff (empty when equal).

    crlf_aside: CRLF was taken for LF on both sides.
    """

    old: str
    new: str
    added: int
    removed: int
    diff: str
    crlf_aside: bool = False


@dataclass(frozen=True)
class FileAudit:
    """One file: its status words, its sides by name, and every comparison of two sides that could be made."""

    path: str
    status: tuple[str, ...]
    sides: Mapping[str, Side]
    comparisons: tuple[Comparison, ...]

    def comparison(self, old: str, new: str) -> Comparison | None:
        return next((found for found in self.comparisons if (found.old, found.new) == (old, new)), None)

    @property
    def nearest(self) -> Comparison | None:
        """The checkout against the nearest of the three."""
        return next((found for found in self.comparisons if found.new == "tree"), None)

    def as_json(self) -> dict[str, Any]:
        made = {f"{found.old}_{found.new}": found for found in self.comparisons if found.new != "tree"}
        body: dict[str, Any] = {
            "path": self.path,
            "status": list(self.status),
            "blobs": {name: self.sides[name].blob for name in SIDES},
            "comparisons": {
                f"{old}_{new}": _shown(made[f"{old}_{new}"]) if f"{old}_{new}" in made else None for old, new in PAIRS
            },
        }
        if "tree" in self.sides:
            near = self.nearest
            body["tree"] = {
                "blob": self.sides["tree"].blob,
                "nearest": near and near.old,
                **(_shown(near) if near else {"added": None, "removed": None, "diff": None}),
                "crlf_aside": near and near.crlf_aside,
            }
        return body


def _shown(found: Comparison) -> dict[str, Any]:
    # A diff may hold bytes that are no UTF-8.
    text = found.diff.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return {"added": found.added, "removed": found.removed, "diff": text}


@dataclass(frozen=True)
class Wanted:
    """What an audit is asked for.

    tree: the vendored tree. checkout: any other folder with these files. revision: of the baseline's repository, other
    than the lock's. baseline_from: a copy of that repository to ask instead. upstream: a repository or bundle to ask
    first. anew: read both commits again, whatever the store
    has, and say so where that cannot be done.
    """

    tree: Path
    checkout: Path | None = None
    revision: str | None = None
    baseline_from: str | None = None
    upstream: str | None = None
    offline: bool = False
    anew: bool = False


@dataclass(frozen=True)
class Sides:
    """What was gathered: sides by name and path, the baseline's commit, the paths that the tree lacks.

    read: the commits that were read anew, by the names of their sides. broken: patches that did not give their result.
    """

    by_name: Mapping[str, Mapping[str, Side]]
    baseline: str
    promised: frozenset[str]
    read: Mapping[str, Commit]
    broken: Sequence[ToolError]


def audit(lock: Lock, sides: Sides) -> list[FileAudit]:
    """Each pinned file's sides, compared and named. Raises what broke when a promised result could not be made."""
    if sides.broken:
        raise joined(sides.broken)
    with Scratch() as scratch:
        return [_audit(lock, file, sides, scratch) for file in lock.files]


def _audit(lock: Lock, file: PinnedFile, sides: Sides, scratch: Scratch) -> FileAudit:
    found = {name: of[file.path] for name, of in sides.by_name.items()}

    def compared(old: str, new: str) -> Comparison | None:
        before, after = found[old].data, found[new].data
        if before is None or after is None:
            return None
        # What lies in a checkout may have the line ends that git gave it.
        crlf_aside = new == "tree" and before != after and (b"\r\n" in before or b"\r\n" in after)
        if crlf_aside:
            before, after = lf(before), lf(after)
        diff = scratch.diff(file.path, before, after, 3) if before != after else ""
        return Comparison(old, new, *line_counts(diff), diff, crlf_aside)

    comparisons = [made for old, new in PAIRS if (made := compared(old, new))]
    if "tree" in found:
        near = [made for name in SIDES if (made := compared(name, "tree"))]
        comparisons += sorted(near, key=lambda made: (made.added + made.removed, made.crlf_aside))[:1]
    status = tuple(_status(lock, file, found, file.path in sides.promised))
    return FileAudit(file.path, status, found, tuple(comparisons))


def _status(lock: Lock, file: PinnedFile, sides: Mapping[str, Side], promised: bool) -> Iterator[str]:
    data = sides["vendored"].data
    if data is not None:
        as_locked = sha256(data) == lock.expected_sha256(file)
        yield ("patched" if lock.patch_for(file.path) else "unchanged") if as_locked else "edited"
    if promised:
        yield "not vendored"
    if sides["upstream"].data is None:
        yield "upstream unknown"
    baseline = sides["baseline"]
    # The lock's hashes stand for bytes that could not be had.
    if baseline.blob:
        yield "baseline agrees" if baseline.blob == file.blob else "baseline differs"
    else:
        yield "baseline unknown" if baseline.why and baseline.locked != ABSENT else "baseline lacks it"
    if tree := sides.get("tree"):
        if tree.data is None:
            yield "is missing"
        else:
            same = [f"is {name}" for name in SIDES if sides[name].blob == tree.blob]
            alike = [f"is {name} but for CRLF" for name in SIDES if sides[name].blob_with_lf == tree.blob_with_lf]
            yield from same or alike or ["is something else"]


def lf(data: bytes) -> bytes:
    """`data` with LF for CRLF."""
    return data.replace(b"\r\n", b"\n")


def unknown(files: Iterable[FileAudit], *, bytes_too: bool = True) -> list[str]:
    """One line for each reason why bytes could not be had, with the files it is a reason for.

    bytes_too: also for those that the lock tells the blob of.
    """
    reasons: dict[tuple[str, str], list[str]] = {}
    for file in files:
        for name in SIDES:
            if file.sides[name].why and (bytes_too or not file.sides[name].locked):
                reasons.setdefault((name, file.sides[name].why), []).append(file.path)
    return [f"{name} unknown: {', '.join(paths)}: {why}" for (name, why), paths in reasons.items()]


# Gathering.


def gather_sides(root: Path, lock: Lock, wanted: Wanted, store: Store, progress: Progress) -> Sides:
    """The bytes of every side. What cannot be had is a side that says why.

    Raises UsageError for a checkout that holds none of the files, and for a revision that the baseline's repository
    does not have a name for.
    """
    checkout = _checkout(lock, wanted.checkout) if wanted.checkout else None
    read: dict[str, Commit] = {}
    upstream = _upstream(root, lock, wanted, store, progress, read)
    commit, baseline = _baseline(lock, wanted, store, progress, read)
    for file in lock.files:
        # Any place may serve a pinned file, and one of the baseline's.
        data = baseline[file.path].data
        if upstream[file.path].data is None and data is not None and sha256(data) == file.sha256:
            upstream[file.path] = baseline[file.path]
        if baseline[file.path].locked == file.blob and upstream[file.path].blob == file.blob:
            baseline[file.path] = upstream[file.path]
    vendored = {file.path: _read(wanted.tree / file.path) for file in lock.files}
    promised = frozenset(path for path, side in vendored.items() if side.data is None)
    broken = []
    for path in sorted(promised):
        vendored[path], error = _promised(root, lock, path, upstream[path])
        broken += [error] if error else []
    by_name = {"upstream": upstream, "baseline": baseline, "vendored": vendored}
    if checkout:
        by_name["tree"] = {path: _read(place) for path, place in checkout.items()}
    return Sides(by_name, commit, promised, read, broken)


def _read(path: Path) -> Side:
    """The file at `path`; what is no plain file there is none: a link may lead anywhere, and a pipe has no end."""
    try:
        return Side(None if path.is_symlink() else read_small(path, LARGEST_FILE))
    except (FileNotFoundError, NotADirectoryError, Unreadable):
        return Side(None)


def _checkout(lock: Lock, folder: Path) -> dict[str, Path]:
    """Where in `folder`, which holds `models` or is that folder, each pinned file would be."""
    for skip in (0, 1):
        places = {file.path: folder.joinpath(*file.path.split("/")[skip:]) for file in lock.files}
        if any(place.is_file() and not place.is_symlink() for place in places.values()):
            return places
    tops = sorted({file.path.split("/")[0] for file in lock.files})
    raise UsageError(
        f"{folder} holds none of the {len(lock.files)} files",
        next_steps=[f"name a folder with {', '.join(tops)}/ in it, or that folder itself"],
    )


def _folders(lock: Lock) -> list[str]:
    return [component.path for component in lock.components]


def _upstream(
    root: Path, lock: Lock, wanted: Wanted, store: Store, progress: Progress, read: dict[str, Commit]
) -> dict[str, Side]:
    if wanted.anew and not wanted.offline:
        url = asked_at(wanted.upstream) if wanted.upstream else lock.pin.url
        progress.line(f"git {url}: reading {lock.pin.commit[:12]}")
        try:
            read["upstream"] = found = remote_commit(
                url, lock.pin.commit, _folders(lock), everything=bool(wanted.upstream), lenient=True
            )
            return {
                file.path: Side(found.files[file.path]) if file.path in found.files else Side(None, "not in the commit")
                for file in lock.files
            }
        except RemoteError as error:
            progress.warn(f"the pinned commit could not be read anew: {error}")
    gathered = gather(lock.files, sources_for(root, lock, wanted.upstream), store, progress, offline=wanted.offline)
    why = "; ".join(gathered.said)
    return {
        file.path: Side(gathered.files[file.path]) if file.path in gathered.files else Side(None, why)
        for file in lock.files
    }


def _baseline(
    lock: Lock, wanted: Wanted, store: Store, progress: Progress, read: dict[str, Commit]
) -> tuple[str, dict[str, Side]]:
    """The commit, and its sides: from the store where the lock names their hashes, else from the repository."""
    where = _baseline_place(lock, wanted)
    url = where.asked if where else lock.baseline.url
    sides = {file.path: Side(None, "not asked, offline") for file in lock.files}
    try:
        commit = _resolved(lock, wanted, where, progress)
        if commit == lock.baseline.commit:
            for file in lock.files:
                sides[file.path] = replace(sides[file.path], locked=file.baseline)
                if file.baseline == ABSENT:
                    sides[file.path] = Side(None)
                elif file.baseline_sha256 and (data := store.get(file.baseline_sha256)) is not None:
                    sides[file.path] = Side(data)
        if not where or not (wanted.anew or wanted.baseline_from or any(side.why for side in sides.values())):
            return commit, sides
        progress.line(f"git {url}: reading {commit[:12]}")
        read["baseline"] = found = remote_commit(url, commit, _folders(lock), everything=where.everything, lenient=True)
    except (RemoteError, NoSource) as error:
        why = "; ".join(error.findings) if isinstance(error, NoSource) else f"git {url}: {error}"
        if wanted.anew or wanted.baseline_from:
            progress.warn(f"the baseline could not be read anew: {why}")
        return wanted.revision or lock.baseline.commit, {
            path: replace(side, why=why) if side.why else side for path, side in sides.items()
        }
    for file in lock.files:
        data = found.files.get(file.path)
        if data is not None and store.get(sha256(data)) is None:
            store.put(data, f"git {url}")
        sides[file.path] = Side(data)
    return commit, sides


def _baseline_place(lock: Lock, wanted: Wanted) -> Place | None:
    """Where the baseline's repository may be asked; None for nowhere, offline."""
    if copy := wanted.baseline_from:
        return Place(lock.baseline.url, asked_at(copy), True) if on_this_machine(copy) or not wanted.offline else None
    return None if wanted.offline else Place(lock.baseline.url, lock.baseline.url)


def _resolved(lock: Lock, wanted: Wanted, where: Place | None, progress: Progress) -> str:
    """The commit that is compared with. Raises RemoteError when its name cannot be asked for, and as `find` does."""
    name = (wanted.revision or lock.baseline.commit).lower()
    if re.fullmatch("[0-9a-f]{40}", name):
        return name
    if re.fullmatch("[0-9a-f]{7,39}", name) and lock.baseline.commit.startswith(name):
        return lock.baseline.commit
    if not where:
        raise RemoteError("not asked, offline")
    with History() as history:
        return find(where, wanted.revision or name, lock.baseline.branch, history, progress)[1]


def _promised(root: Path, lock: Lock, path: str, upstream: Side) -> tuple[Side, ToolError | None]:
    """What the lock promises to make of `upstream`, and what went wrong when it could not be made."""
    patch = lock.patch_for(path)
    if upstream.data is None:
        return Side(None, "is not in the tree, and cannot be made without upstream's bytes"), None
    if not patch:
        return upstream, None
    try:
        with Scratch() as scratch:
            return Side(apply_patch(scratch, *read_patch(root, patch), upstream.data)), None
    except ToolError as error:
        return Side(None, error.message), error
