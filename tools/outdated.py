"""Lists upstream's commits since the pin, and what a rebase would have to merge. Writes nothing."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from tools.apply import read_patches, results
from tools.carry import Survey, prepare, survey
from tools.errors import NoSource, log
from tools.git import Repo, address, tip
from tools.lock import Lock
from tools.sources import pinned
from tools.store import Store


def outdated(
    root: Path, lock: Lock, store: Store, upstream: str | None, *, offline: bool = False
) -> tuple[dict[str, Any], Survey | None]:
    """Compare the pin with its branch: the report for --json, and what a rebase meets, if anything. Raises NoSource."""
    pin = lock.pin
    place = address(upstream or pin.url, offline=offline)
    log.info(f"git {place}: asking for {pin.branch}")
    if not (found := tip(place, pin.branch)):
        raise NoSource(f"{place} has no branch {pin.branch}", next_steps=["choose another branch in pyproject.toml"])
    commit = found[1]
    newest = {"commit": commit, "date": pin.date, "branch": pin.branch}
    body = {"current": True, "pin": {"commit": pin.commit, "date": pin.date}, "newest": newest, "ahead": False}
    if commit == pin.commit:
        return body | {"diverged": False, "commits": [], "patches": [], "files": [], "new_files": []}, None
    base = pinned(lock, root, lock.files, store, upstream, offline=offline).files
    patched = results(lock.files, base, read_patches(root, lock.files), tuple(lock.decisions.extras))
    with Repo.temporary() as repo:
        repo.fetch(place, commit, branch=pin.branch, depth=None)
        if not repo.has(pin.commit):
            with suppress(NoSource):
                repo.fetch(place, pin.commit, depth=None)
        newest["date"] = repo.date(commit)
        folders = lock.decisions.components.values()
        prepare(repo, folders, base, patched, commit)
        met = survey(repo, lock, folders)
        return body | {"current": False, **_history(repo, lock, commit), **met.body}, met


def _history(repo: Repo, lock: Lock, newest: str) -> dict[str, Any]:
    """Whether the pin is ahead of the `newest` commit, or diverged, and the commits between."""
    pin = lock.pin.commit
    if not repo.has(pin):
        return {"ahead": False, "diverged": None, "commits": None}
    beyond, between = repo.run("rev-list", "--left-right", "--count", f"{pin}...{newest}").out.split()
    options = ("--topo-order", "--diff-merges=first-parent", "--no-renames", "--name-only")
    said = repo.run("log", *options, "--format=%x00%H%x00%cI%x00%s%x00", f"{pin}..{newest}").out
    words = said.decode(errors="replace").split("\0")[1:]
    commits = []
    for commit, date, subject, paths in zip(*(words[at::4] for at in range(4)), strict=True):
        touches = sorted({file.path for file in lock.files} & {*paths.split("\n")})
        commits.append({"commit": commit, "date": date, "subject": subject, "touches": touches})
    return {"ahead": between == b"0", "diverged": b"0" not in (beyond, between), "commits": commits}
