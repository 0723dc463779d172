"""The two ends of a move of the pin: where the new one is, and the files of both, fetched."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tools.errors import NoSource, UsageError
from tools.git import RemoteError, remote_tip
from tools.hashes import blob_id
from tools.history import History
from tools.lock import Lock, Pin
from tools.progress import Progress
from tools.sources import existing

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")


@dataclass(frozen=True)
class Place:
    """A repository: `url` is what a lock says of it, `asked` what git is given in its stead.

    everything: it may be a bundle or a dumb host, of which all refs may be fetched.
    """

    url: str
    asked: str
    everything: bool = False


def place(url: str, upstream: str | None) -> Place:
    """The repository `url`, asked at `upstream`, a path or URL of a copy, where that is given."""
    return Place(url, str(existing(upstream) or upstream), True) if upstream else Place(url, url)


def find(where: Place, name: str, branch: str, history: History, progress: Progress) -> tuple[str, str]:
    """(branch, commit id) for `name`, a branch, a tag or a commit id, perhaps shortened; fetched into `history`.

    branch: the one to look for a shortened id in, and to keep unless `name` is another. Raises NoSource, UsageError for
    a name that is not there or could never be one.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name!r} is no name of a branch, tag or commit", next_steps=["make rebase TO=<branch, tag or commit>"]
        )
    try:
        if re.fullmatch("[0-9a-f]{40}", name):
            progress.line(f"git {where.asked}: fetching {name[:12]}")
            history.fetch(where.asked, name, everything=where.everything)
            if history.resolve(name):
                return branch, name
        elif tip := remote_tip(where.asked, name):
            kind, commit = tip
            progress.line(f"git {where.asked}: fetching {kind} {name}, at {commit[:12]}")
            history.fetch(where.asked, commit, everything=where.everything)
            return (name if kind == "branch" else branch), commit
        elif re.fullmatch("[0-9a-f]{7,39}", name) and (tip := remote_tip(where.asked, branch)):
            progress.line(f"git {where.asked}: looking for {name} in {branch}")
            history.fetch(where.asked, tip[1], everything=where.everything, past=True)
            if commit := history.resolve(name) or "":
                return branch, commit
    except RemoteError as error:
        raise NoSource(
            f"{name} could not be had", [f"git {where.asked}: {error}"], ["name a copy of it with UPSTREAM="]
        ) from error
    raise UsageError(
        f"{where.asked} has no branch, tag or commit {name!r}",
        next_steps=[
            f"git ls-remote {where.asked}, to see what there is; a commit needs its full id, or seven digits of it"
        ],
    )


def old_files(
    lock: Lock, upstream: str | None, pinned: Mapping[str, bytes], history: History, progress: Progress
) -> dict[str, str]:
    """The Python files of the pinned commit, fetched into `history`; only the pinned ones where it cannot be had.

    pinned: bytes by path of every file of the lock, which are written into `history` in any case.
    """
    where = place(lock.pin.url, upstream)
    commit = lock.pin.commit
    found: dict[str, str] = {}
    try:
        if not history.resolve(commit):
            progress.line(f"git {where.asked}: fetching {commit[:12]}")
            history.fetch(where.asked, commit, everything=where.everything)
        found = history.files(commit) if history.resolve(commit) else {}
    except RemoteError as error:
        progress.warn(f"the pinned commit itself could not be had, so renames are harder to tell: {error}")
    for data in pinned.values():
        history.write(data)
    return {**found, **{path: blob_id(data) for path, data in pinned.items()}}


def moved_pin(lock: Lock, url: str, branch: str, commit: str, date: str) -> Pin:
    """The lock's pin at another commit."""
    return replace(lock.pin, url=url, branch=branch, commit=commit, date=date)
