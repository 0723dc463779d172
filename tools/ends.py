"""The two ends of a move of the pin: where the new one is, and the files of both, fetched."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.apply import build
from tools.errors import NoSource, UsageError
from tools.git import RemoteError, remote_tip
from tools.hashes import blob_id
from tools.history import History
from tools.lock import Lock
from tools.progress import Progress
from tools.sources import asked_at, on_this_machine

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")


@dataclass(frozen=True)
class Place:
    """A repository: `url` is what a lock says of it, `asked` what git is given in its stead.

    everything: it may be a bundle or a dumb host, of which all refs may be fetched.
    """

    url: str
    asked: str
    everything: bool = False


def place(url: str, upstream: str | None, *, offline: bool = False) -> Place:
    """The repository `url`, asked at `upstream`, a path or URL of a copy, where that is given.

    Raises NoSource when it may not be asked since it is not on this machine and the run is `offline`.
    """
    found = Place(url, asked_at(upstream), True) if upstream else Place(url, url)
    if offline and not on_this_machine(found.asked):
        raise NoSource(
            f"{found.asked} is not asked, offline", next_steps=["name a copy on this machine with UPSTREAM="]
        )
    return found


def find(where: Place, name: str, branch: str, history: History, progress: Progress) -> tuple[str, str]:
    """(branch, commit id) for `name`, a branch, a tag or a commit id, perhaps shortened; fetched into `history`.

    branch: the one to look for a shortened id in, and to keep unless `name` is another. Raises NoSource, UsageError for
    a name that is not there or could never be one.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name!r} is no name of a branch, tag or commit",
            next_steps=[f"git ls-remote {where.asked}, to see what there is"],
        )
    id_ = name.lower()
    try:
        if re.fullmatch("[0-9a-f]{40}", id_):
            progress.line(f"git {where.asked}: fetching {name[:12]}")
            history.fetch(where.asked, id_, everything=where.everything)
            # An id may be that of an annotated tag.
            if commit := history.resolve(id_) or "":
                return branch, commit
        elif tip := remote_tip(where.asked, name):
            kind, commit = tip
            progress.line(f"git {where.asked}: fetching {kind} {name}, at {commit[:12]}")
            history.fetch(where.asked, commit, everything=where.everything)
            return (name.removeprefix("refs/heads/") if kind == "branch" else branch), commit
        elif re.fullmatch("[0-9a-f]{7,39}", id_) and (tip := remote_tip(where.asked, branch)):
            progress.line(f"git {where.asked}: looking for {name} in {branch}")
            history.fetch(where.asked, tip[1], everything=where.everything, past=True)
            if commit := history.resolve(id_) or "":
                return branch, commit
    except RemoteError as error:
        raise NoSource(
            f"{name} could not be had", [f"git {where.asked}: {error}"], ["name a copy of it with UPSTREAM="]
        ) from error
    raise UsageError(
        f"{where.asked} has no branch, tag or commit {name!r}",
        [f"a shortened id is looked for in {branch} alone"] if re.fullmatch("[0-9a-f]{7,39}", id_) else [],
        [f"git ls-remote {where.asked}, to see what there is; a commit of another branch needs its full id"],
    )


def old_files(
    where: Place, commit: str, pinned: Mapping[str, bytes], history: History, progress: Progress, *, past: bool = False
) -> dict[str, str]:
    """The Python files of the pinned `commit`, fetched into `history`; only the pinned ones where it cannot be had.

    pinned: bytes by path of every file of the lock, which are written into `history` in any case. past: as for `fetch`.
    """
    found: dict[str, str] = {}
    try:
        if not history.resolve(commit):
            progress.line(f"git {where.asked}: fetching {commit[:12]}")
            history.fetch(where.asked, commit, everything=where.everything, past=past)
        if not history.resolve(commit):
            raise RemoteError("it is not there")
        found = history.files(commit)
    except RemoteError as error:
        progress.warn(f"git {where.asked}: without the pinned commit renames and new files are harder to tell: {error}")
    for data in pinned.values():
        history.write(data)
    return {**found, **{path: blob_id(data) for path, data in pinned.items()}}


def patched_bytes(root: Path, lock: Lock, pinned: Mapping[str, bytes]) -> dict[str, bytes]:
    """The bytes of every file of the lock as vendored, made of `pinned`, by path. Raises what `build` raises."""
    return {path: data for part in build(root, lock, lock.components, pinned) for path, data in part.files.items()}
