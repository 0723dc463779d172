"""Lists upstream's commits since the pin, and what a rebase would have to merge. Writes nothing."""

from contextlib import suppress
from typing import Any

from tools.apply import read_patches
from tools.carry import Rebase, prepare, survey
from tools.errors import NoSource, log
from tools.git import Repo, address, tip
from tools.lock import Lock
from tools.project import Project
from tools.sources import pinned


def outdated(project: Project) -> tuple[dict[str, Any], Rebase | None]:
    """Compare the pin with its branch: the report for --json, and what a rebase meets, if anything. Raises NoSource."""
    lock, pin = project.lock, project.lock.pin
    place = address(project.upstream or pin.url, offline=project.offline)
    log.info(f"git {place}: asking for {pin.branch}")
    if not (commit := tip(place, pin.branch)):
        raise NoSource(f"{place} has no branch {pin.branch}", next_steps=["choose another branch in pyproject.toml"])
    newest = {"commit": commit, "date": pin.date, "branch": pin.branch}
    body = {"current": True, "pin": {"commit": pin.commit, "date": pin.date}, "newest": newest, "ahead": False}
    if commit == pin.commit:
        return body | {"diverged": False, "commits": [], "patches": [], "files": [], "new_files": []}, None
    base = pinned(project, lock, lock.files).files
    with Repo.temporary() as repo:
        repo.fetch(place, commit, depth=None)
        if not repo.has(pin.commit):
            with suppress(NoSource):
                repo.fetch(place, pin.commit, depth=None)
        newest["date"] = repo.date(commit)
        prepare(repo, lock, base, read_patches(project.root, lock.files), commit)
        met = survey(repo, lock)
        return body | {"current": False, **_history(repo, lock, commit), **met.body}, met


def _history(repo: Repo, lock: Lock, newest: str) -> dict[str, Any]:
    """Whether the pin is ahead of the `newest` commit, or diverged, and the commits between."""
    pin = lock.pin.commit
    if not repo.has(pin):
        return {"ahead": False, "diverged": None, "commits": None}
    beyond, between = repo.run("rev-list", "--left-right", "--count", f"{pin}...{newest}").split()
    options = ("--topo-order", "--diff-merges=first-parent", "--no-renames", "--name-only")
    said = repo.run("log", *options, "--format=%x00%H%x00%cI%x00%s%x00", f"{pin}..{newest}")
    words = said.decode(errors="replace").split("\0")[1:]
    commits = []
    for commit, date, subject, paths in zip(*(words[at::4] for at in range(4)), strict=True):
        touches = sorted({file.path for file in lock.files} & {*paths.split("\n")})
        commits.append({"commit": commit, "date": date, "subject": subject, "touches": touches})
    return {"ahead": between == b"0", "diverged": b"0" not in (beyond, between), "commits": commits}
