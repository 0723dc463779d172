"""Carries the patches to another commit of upstream, and moves the pin there; `outdated` says what that would meet.

The merge is in `build/rebase`, a git repository whose files are the state. Patches and lock change only at the end.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from tools.carry import Choice, Rebase, prepare, survey
from tools.errors import HashMismatch, Next, NoSource, Undecided, UsageError, log
from tools.files import blob_id, sha256
from tools.git import Repo, address, commit, tip
from tools.lock import DECISIONS, NAME, PATCHES, REBASE, Lock, dump, load
from tools.patch import compose, parse
from tools.relock import Plan, planned, write_all
from tools.sources import Project


def outdated(project: Project) -> tuple[dict[str, Any], Rebase | None]:
    """Compare the pin with its branch: the report for --json, and what a rebase meets, if anything. Raises NoSource."""
    lock, pin = project.lock, project.lock.pin
    place = address(project.upstream or pin.url, offline=project.offline)
    log.info(f"git {place}: asking for {pin.branch}")
    if not (newest := tip(place, pin.branch)):
        raise NoSource(f"{place} has no branch {pin.branch}", next_steps=["choose another branch in pyproject.toml"])
    here = {"commit": pin.commit, "date": pin.date}
    there = {**here, "commit": newest, "branch": pin.branch}
    body: dict[str, Any] = {"current": newest == pin.commit, "pin": here, "newest": there}
    body |= {"ahead": False, "diverged": False, "commits": [], "patches": [], "files": [], "new_files": []}
    if body["current"]:
        return body, None
    with Repo.temporary() as repo:
        repo.fetch(place, newest, depth=None)
        if not repo.has(pin.commit):
            with suppress(NoSource):
                repo.fetch(place, pin.commit, depth=None)
        there["date"] = repo.date(newest)
        met = prepare(project, repo, lock, newest, Choice())
        for it in met.carried:
            body["files"].append({"path": it.file.path, "outcome": it.outcome, "now": it.path, "note": it.note})
            if it.merge:
                body["patches"].append({"file": it.name, "target": it.file.path, "outcome": it.merge, "lost": it.lost})
        body["new_files"] = sorted(met.others)
        if not repo.has(pin.commit):
            return body | {"diverged": None, "commits": None}, met
        beyond, between = repo.run("rev-list", "--left-right", "--count", f"{pin.commit}...{newest}").split()
        options = ("--topo-order", "--diff-merges=first-parent", "--no-renames", "--name-only")
        said = repo.run("log", *options, "--format=%x00%H%x00%cI%x00%s%x00", f"{pin.commit}..{newest}")
    words = said.decode(errors="replace").split("\0")[1:]
    commits = []
    for id_, day, subject, paths in zip(*(words[at::4] for at in range(4)), strict=True):
        touches = sorted({file.path for file in lock.files} & {*paths.split("\n")})
        commits.append({"commit": id_, "date": day, "subject": subject, "touches": touches})
    return body | {"ahead": between == b"0", "diverged": b"0" not in (beyond, between), "commits": commits}, met


def rebase(project: Project, to: str | None, choice: Choice, *, dry_run: bool = False) -> tuple[Rebase, Plan]:
    """Rebase to `to`, a branch, tag or commit; None: go on where a rebase stopped. What was, or would be, written.

    Call it while the project is locked. Raises Undecided, and keeps the rebase, when a person has to decide; NoSource.
    """
    root, found = project.root, resume(project.root, choice)
    if found and to is not None:
        if list(found.undecided()) or found.repo.ask("config", "dsu.to") != f"{to}\n".encode():
            steps = [Next("rebase-status", "shows it"), Next("rebase-continue"), Next("rebase-abort", "forgets it")]
            raise UsageError("a rebase is under way", [f"it is in {found.repo.folder}"], steps)
        log.warning(f"finishing the rebase in {REBASE}")
    if found:
        return _finish(project, found, dry_run=dry_run)
    if to is None:
        raise UsageError("no rebase is under way", next_steps=[Next("rebase", options={"to": "NAME"})])
    staging = _emptied(root)
    try:
        found = _set_up(project, Repo(staging), to, choice)
        if dry_run:
            return _finish(project, found, dry_run=True)
        staging.rename(root / REBASE)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return rebase(project, None, choice)


def abort(root: Path) -> None:
    """Forget the rebase under way. Raises UsageError for none."""
    if not (root / REBASE).exists():
        raise UsageError("no rebase is under way, so there is nothing to abort")
    # Renamed first, so that a kill leaves no half of a rebase.
    (root / REBASE).rename(_emptied(root))
    _emptied(root)


def resume(root: Path, choice: Choice) -> Rebase | None:
    """The rebase under way, or None. Raises UsageError when lock or decisions changed since it began."""
    if (root / REBASE).exists():
        repo, lock = Repo(root / REBASE), load(root, agreed=False)
        if repo.ask("config", "dsu.began") == f"{_origin(lock)}\n".encode():
            return survey(repo, lock, choice)
        if repo.ask("config", "dsu.writes") != f"{sha256(dump(lock))}\n".encode():
            why = f"{NAME}, or upstream and components in {DECISIONS}, are not as when the rebase in {REBASE} began"
            raise UsageError(why, (), ["put them back as they were", Next("rebase-abort", "forgets the rebase")])
        # A run was killed after it had written everything.
        abort(root)
    return None


def ways(left: Sequence[tuple[str, str]], choice: Choice) -> Sequence[str | Next]:
    """The next steps for the open decisions `left`, the likeliest first."""
    lost = any(": lost: " in text for text, _ in left)
    drop = " ".join([*choice.drop, *(name for _, name in left if name)])
    edit = [f"edit in {REBASE}, where git status shows conflicts and git mergetool works"] if left else []
    go_on = Next("rebase-continue", options={"drop": drop or None})
    loss = Next("rebase-continue", "goes on without those lines", {**go_on.options, "allow_loss": True})
    return [*edit, go_on, *([loss] if lost else []), Next("rebase-abort", "forgets it all")]


def _set_up(project: Project, repo: Repo, to: str, choice: Choice) -> Rebase:
    """Fetch the commit `to` into `repo`, and merge the patches with it. Raises Undecided for a moved component."""
    lock = load(project.root, agreed=False)
    wanted, folders = lock.decisions.upstream, lock.decisions.components.values()
    place = address(project.upstream or wanted.url, offline=project.offline)
    log.info(f"git {place}: fetching {to}")
    new = repo.find(place, to, wanted.branch)
    if project.upstream:
        try:
            commit(wanted.url, new, wanted.branch, folders, offline=project.offline)
        except NoSource as error:
            log.warning(f"others may not be able to fetch {new[:12]} from {wanted.url}: {error}")
    found = prepare(project, repo, lock, new, choice)
    for key, value in (("began", _origin(lock)), ("to", to)):
        repo.run("config", f"dsu.{key}", value)
    moved = {it.file.folder: it.away.rpartition("/")[0] for it in found.carried if it.away}
    stay = {it.file.folder for it in found.carried if it.path}
    if lines := [f"{old}: its files are in {now} now" for old, now in moved.items() if old not in stay]:
        steps = (f"edit {DECISIONS}, [tool.vendor.components]", Next("rebase", "then goes on there"))
        raise Undecided("a component's folder has moved upstream; nothing is changed yet", lines, steps)
    return found


def _origin(lock: Lock) -> str:
    """A hash of what must not change while a rebase is under way."""
    return sha256(dump(lock) + repr((lock.decisions.upstream, lock.decisions.components)).encode())


def _emptied(root: Path) -> Path:
    """The empty place where a rebase is set up and removed."""
    place = root / "build" / ".rebase.new"
    shutil.rmtree(place, ignore_errors=True)
    return place


def _finish(project: Project, found: Rebase, *, dry_run: bool = False) -> tuple[Rebase, Plan]:
    """Write patches, lock and documents, except in a dry run. Raises Undecided, and HashMismatch for edited patches."""
    if not dry_run:
        for key, names in (("add", found.choice.add), ("drop", found.choice.drop)):
            found.repo.run("config", f"dsu.{key}", " ".join(names))
    if left := list(found.undecided()):
        steps = [Next("rebase", "lets you resolve that", {"dry_run": None})] if dry_run else ways(left, found.choice)
        message = "the rebase needs a decision; patches and lock are as they were"
        raise Undecided(message, [text for text, _ in left], steps)
    patches, edited = {}, []
    for file in (file for file in found.carried if file.merge):
        path, dropped = project.root / file.name, file.name in found.choice.drop
        old = path.read_bytes() if path.exists() else b""
        stays = not dropped and (file.outcome, file.merge) == ("same", "clean")
        new = old if stays else b""
        if not (stays or dropped):
            was = parse(path.name, old)
            header = was.header | {"Last-Update": date.today().isoformat()}
            new = compose(header, found.repo.diff(file.path or "", file.new, file.result))
            # As written on an earlier day.
            same = (was.target, was.base, was.result) == (file.path, blob_id(file.new), blob_id(file.result))
            new = old if same else new
        # A killed run may have written or removed it already.
        if sha256(old) != file.file.patch_sha256 and (stays or new != old):
            edited.append(f"{file.name} is not the file that the lock names")
        if not dropped:
            patches[path.name] = new
        for line in file.lost:
            log.warning(f"{file.name}: lost: {line.strip()}")
    if edited:
        step = f"keep a copy of your edits, then git checkout {PATCHES}"
        raise HashMismatch("patches were edited since the rebase began, and are not overwritten", edited, [step])
    plan = planned(project, found.lock, found.pin, found.files, patches)
    if not dry_run:
        found.repo.run("config", "dsu.writes", sha256(plan.get(NAME) or b""))
        write_all(project.root, plan)
        abort(project.root)
    return found, plan
