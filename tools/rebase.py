"""Carries the patches to another commit of upstream, and moves the pin there.

The merge is in `build/rebase`, a git repository that `carry` sets up. A person resolves conflicts there; its files are
the state. Patches and lock change only at the end.
"""

import json
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import attrs

from tools.apply import read_patches
from tools.carry import Choice, Rebase, prepare, survey
from tools.errors import HashMismatch, Next, NoSource, Undecided, UsageError, log
from tools.files import sha256
from tools.git import Repo, address, tip
from tools.lock import DECISIONS, NAME, PATCHES, Lock, decided, load
from tools.patch import compose, parse
from tools.project import Project
from tools.relock import Plan, computed, planned, write_all
from tools.sources import pinned
from tools.verify import REBASE


def begin(project: Project, to: str, choice: Choice, *, dry_run: bool = False) -> tuple[Rebase, Plan]:
    """Rebase to `to`, a branch, tag or commit; the rebase, and what was written, or would be in a dry run.

    Call it while the project is locked. Raises Undecided when a person has to decide, and keeps the rebase then;
    UsageError when one is under way already; NoSource.
    """
    root = project.root
    if found := resume(root, choice):
        if list(found.undecided()):
            steps = [Next("rebase-status", "shows it"), Next("rebase-continue"), Next("rebase-abort", "forgets it")]
            raise UsageError("a rebase is under way", [f"it is in {found.repo.folder}"], steps)
        log.warning(f"finishing the rebase in {REBASE}")
        return _finish(project, found)
    staging = _emptied(root)
    try:
        repo, lock = Repo(staging), load(root, agreed=False)
        _set_up(project, repo, lock, to)
        found = survey(repo, lock, choice)
        if dry_run:
            return _finish(project, found, dry_run=True)
        staging.rename(root / REBASE)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return go_on(project, choice)


def go_on(project: Project, choice: Choice) -> tuple[Rebase, Plan]:
    """Finish the rebase under way; returns and raises as `begin` does."""
    if not (found := resume(project.root, choice)):
        raise UsageError("no rebase is under way", next_steps=[Next("rebase", options={"to": "NAME"})])
    return _finish(project, found)


def abort(root: Path) -> None:
    """Forget the rebase under way. Raises UsageError for none."""
    if not (root / REBASE).exists():
        raise UsageError("no rebase is under way, so there is nothing to abort")
    # Renamed first, so that a kill leaves no half of a rebase.
    (root / REBASE).rename(_emptied(root))
    _emptied(root)


def resume(root: Path, choice: Choice) -> Rebase | None:
    """The rebase under way, or None. Raises UsageError when lock or decisions changed since it began."""
    if not (root / REBASE).exists():
        return None
    repo, lock = Repo(root / REBASE), load(root, agreed=False)
    if repo.ask("config", "dsu.began") == f"{_origin(root)}\n".encode():
        return survey(repo, lock, choice)
    if lock.pin.commit == survey(repo, lock).pin.commit:
        # A run was killed after it had written everything.
        abort(root)
        return None
    why = f"{NAME}, or [tool.vendor] in {DECISIONS}, changed since the rebase in {REBASE} began"
    back = f"git checkout {NAME} {DECISIONS} restores them"
    raise UsageError(why, (), [back, Next("rebase-abort", "forgets the rebase")])


def ways(left: Sequence[tuple[str, str]], choice: Choice) -> Sequence[str | Next]:
    """The next steps for the open decisions `left`, the likeliest first."""
    lost = any(": lost: " in text for text, _ in left)
    drop = " ".join([*choice.drop, *(name for _, name in left if name)])
    return [
        *([f"edit in {REBASE}, where git status shows conflicts and git mergetool works"] if left else []),
        Next("rebase-continue", options={"drop": drop or None}),
        *([Next("rebase-continue", "goes on without those lines", {"allow_loss": True})] if lost else []),
        Next("rebase-abort", "forgets it all"),
    ]


def _set_up(project: Project, repo: Repo, lock: Lock, to: str) -> None:
    """Fetch the commit `to` into `repo`, and merge the patches with it. Raises Undecided for a moved component."""
    url, branch = lock.decisions.upstream.url, lock.decisions.upstream.branch
    base, patches = pinned(project, lock, lock.files).files, read_patches(project.root, lock.files)
    place = address(project.upstream or url, offline=project.offline)
    log.info(f"git {place}: fetching {to}")
    commit = repo.find(place, to, branch)
    if project.upstream:
        try:
            own = address(url, offline=project.offline)
            tip(own, "HEAD")
            with Repo.temporary() as probe:
                probe.fetch(own, commit)
        except NoSource as error:
            log.warning(f"others may not be able to fetch {commit[:12]} from {url}: {error}")
    prepare(repo, lock, base, patches, commit)
    repo.run("config", "dsu.began", _origin(project.root))
    files = survey(repo, lock).carried
    kept = {file.file.folder for file in files if file.path}
    away = [file for file in files if file.away and file.file.folder not in kept]
    if moved := {file.file.folder: file.away.rpartition("/")[0] for file in away}:
        raise Undecided(
            "a component's folder has moved upstream; nothing is changed yet",
            [f"{old}: its files are in {new} now" for old, new in moved.items()],
            [f"edit {DECISIONS}, [tool.vendor.components]", Next("rebase", "then goes on there")],
        )


def _origin(root: Path) -> str:
    """A hash of what must not change while a rebase is under way."""
    return sha256((root / NAME).read_bytes() + json.dumps(attrs.asdict(decided(root))).encode())


def _emptied(root: Path) -> Path:
    """The empty place where a rebase is set up and removed."""
    place = root / "build" / ".rebase.new"
    shutil.rmtree(place, ignore_errors=True)
    return place


def _finish(project: Project, rebase: Rebase, *, dry_run: bool = False) -> tuple[Rebase, Plan]:
    """Write patches, lock and documents, except in a dry run. Raises Undecided, and HashMismatch for edited patches."""
    if left := list(rebase.undecided()):
        steps = [Next("rebase", "lets you resolve that", {"dry_run": None})] if dry_run else ways(left, rebase.choice)
        message = "the rebase needs a decision; patches and lock are as they were"
        raise Undecided(message, [text for text, _ in left], steps)
    patches = _patches(project.root, rebase)
    for name, line in ((file.name, line) for file in rebase.carried for line in file.lost):
        log.warning(f"{name}: lost: {line.strip()}")
    plan = planned(project.root, computed(project, rebase.lock, rebase.pin, rebase.files, patches), patches)
    if not dry_run:
        write_all(project.root, plan)
        abort(project.root)
    return rebase, plan


def _patches(root: Path, rebase: Rebase) -> Plan:
    """The new patch files by name, None for a removed one. Raises HashMismatch for one edited meanwhile."""
    patches: dict[str, bytes | None] = {}
    edited = []
    for file in (file for file in rebase.carried if file.merge):
        path = root / file.name
        old = path.read_bytes() if path.exists() else b""
        locked = sha256(old) == file.file.patch_sha256
        new: bytes | None = None
        if file.name not in rebase.choice.drop and (file.outcome, file.merge) == ("same", "clean"):
            new = old if locked else b""
        elif file.name not in rebase.choice.drop:
            header = parse(path.name, old).header | {"Last-Update": date.today().isoformat()}
            new = compose(header, rebase.repo.diff(file.path or "", file.new, file.result))
        patches[path.name] = new
        # A killed run may have written it already.
        if not locked and new != (old or None):
            edited.append(f"{file.name} is not the file that the lock names")
    if edited:
        step = f"keep a copy of your edits; git checkout {PATCHES} restores the locked ones"
        raise HashMismatch("patches were edited since the rebase began, and are not overwritten", edited, [step])
    return patches
