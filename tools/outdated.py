"""How far upstream has moved on from the pin, and what that would do to us. Reads, never writes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.apply import read_patches
from tools.carry import Survey, survey
from tools.ends import old_files, patched_bytes, place
from tools.errors import NoSource
from tools.git import RemoteError, remote_tip
from tools.history import History, Step
from tools.lock import Lock
from tools.progress import Progress


@dataclass(frozen=True)
class Outdated:
    """The newest commit on the pinned branch, the commits since the pin, and what a rebase would meet.

    current: nothing is newer; the rest is empty then. ahead: the pin is newer than the branch. diverged: it is not part
    of the branch's history, None when a copy has too little of that to tell; steps is None then, too, and when the copy
    lacks the pin.
    """

    tip: str
    date: str
    current: bool = False
    ahead: bool = False
    diverged: bool | None = False
    steps: tuple[Step, ...] | None = ()
    survey: Survey | None = None


def outdated(
    root: Path,
    lock: Lock,
    upstream: str | None,
    pinned: Callable[[], Mapping[str, bytes]],
    progress: Progress,
    *,
    offline: bool = False,
) -> Outdated:
    """Compare the pin with its branch, at the lock's URL or at `upstream`.

    pinned: gives the bytes of all pinned files, and is called only when there is something newer. Raises NoSource when
    the repository cannot be asked or has no such branch.
    """
    where = place(lock.pin.url, upstream, offline=offline)
    progress.line(f"git {where.asked}: asking for {lock.pin.branch}")
    try:
        tip = remote_tip(where.asked, lock.pin.branch)
        if not tip:
            raise NoSource(
                f"{where.asked} has no branch {lock.pin.branch}", next_steps=["choose another in upstream.lock, [pin]"]
            )
        _, commit = tip
        if commit == lock.pin.commit:
            return Outdated(commit, lock.pin.date, current=True)
        patches = read_patches(root, lock)
        base = pinned()
        patched = patched_bytes(root, lock, base)
        with History() as history:
            progress.line(f"git {where.asked}: fetching {lock.pin.branch}, at {commit[:12]}")
            history.fetch(where.asked, commit, everything=where.everything, past=True)
            old = old_files(where, lock.pin.commit, base, history, progress, past=True)
            known = history.resolve(lock.pin.commit) is not None
            ahead = known and history.contains(commit, lock.pin.commit)
            related = ahead or (known and history.contains(lock.pin.commit, commit))
            cut_off = not related and history.shallow
            return Outdated(
                commit,
                history.date(commit),
                ahead=ahead,
                diverged=None if cut_off else not related,
                steps=tuple(history.between(lock.pin.commit, commit)) if known and not cut_off else None,
                survey=survey(history, lock, patches, base, patched, old, history.files(commit)),
            )
    except RemoteError as error:
        raise NoSource(
            "upstream could not be asked", [f"git {where.asked}: {error}"], ["name a copy of it with UPSTREAM="]
        ) from error
