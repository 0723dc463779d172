"""Carries the patches to another commit of upstream, and moves the pin there.

The merge is in `build/rebase`, a git repository that `carry` sets up; its configuration holds the choices. A person
resolves conflicts there. Patches and lock change only at the end.
"""

import json
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import attrs

from tools.apply import read_patches, results
from tools.carry import Survey, prepare, survey
from tools.change import Change, planned, write_all
from tools.errors import HashMismatch, Next, NoSource, Undecided, UsageError, log
from tools.files import sha256
from tools.git import Repo, address, local, tip
from tools.lock import DECISIONS, NAME, PATCHES, Decisions, Lock, Pin, decided, is_called, load, without_secrets
from tools.patch import compose, faults, parse
from tools.relock import Basis, computed
from tools.sources import pinned
from tools.store import Store
from tools.verify import REBASE

Plan = dict[str, bytes | None]


@attrs.frozen
class Order:
    """What a run is to do. to: a branch, tag or commit of `url`. upstream: a copy to read instead.

    add: new files to pin. drop: patches to remove, and files that are gone. allow_loss: accept lost lines.
    """

    root: Path
    store: Store
    verbs: Sequence[tuple[str, str]]
    add: Sequence[str] = ()
    drop: Sequence[str] = ()
    allow_loss: bool = False
    offline: bool = False
    to: str = ""
    url: str | None = None
    upstream: str | None = None
    dry_run: bool = False


@attrs.frozen
class Rebase:
    """The rebase in `repo`, with all edits. lock: the old one. pin: the new one. add, drop: choices so far."""

    repo: Repo
    lock: Lock
    decisions: Decisions
    pin: Pin
    survey: Survey
    add: list[str]
    drop: list[str]

    @property
    def files(self) -> dict[str, bytes]:
        """The files to pin, by path."""
        kept = {file.path: file.new for file in self.survey.files if file.path}
        return kept | {path: self.survey.others[path] for path in self.add}

    @property
    def body(self) -> dict[str, Any]:
        """The report for --json."""
        ends = {"from": attrs.asdict(self.lock.pin), "to": attrs.asdict(self.pin)}
        return {**ends, **self.survey.body, "to_decide": [{"text": it, "drop": name} for it, name in self.undecided()]}

    def undecided(self, *, allow_loss: bool = False) -> Iterator[tuple[str, str]]:
        """Each open decision, and the name for DROP= that settles it, "" for none."""
        for file in (file for file in self.survey.files if file.name not in self.drop):
            if not file.path:
                yield f"{file.name}: {file.file.path} is gone upstream; {file.note}".rstrip("; "), file.name
            elif file.merge and file.result == file.new:
                yield f"{file.name}: changes nothing any more", file.name
            elif file.merge:
                lost = [] if allow_loss else [f"lost: {line.strip()}" for line in file.lost]
                for text in faults(file.path, file.new, file.result) or lost:
                    yield f"{file.name}: {text}", ""
        for folder in self.decisions.components.values():
            if folder not in {path.rpartition("/")[0] for path in self.files}:
                yield f"{folder}: none of its files is left; ADD= adds others", ""


def begin(order: Order) -> tuple[Rebase, Plan]:
    """Rebase to `order.to`; the rebase, and the files that were written, or would be in a dry run.

    Call it while the project is locked. Raises Undecided when a person has to decide, and keeps the rebase then;
    UsageError when one is under way already; NoSource.
    """
    if found := resume(order.root):
        if list(found.undecided(allow_loss=order.allow_loss)):
            steps = [Next("rebase-status", "shows it"), Next("rebase-continue"), Next("rebase-abort", "forgets it")]
            raise UsageError("a rebase is under way", [f"it is in {found.repo.folder}"], steps)
        log.warning(f"finishing the rebase in {REBASE}")
        return _finish(order, found)
    staging = _emptied(order.root)
    try:
        found = _set_up(order, Repo(staging))
        if order.dry_run:
            return _finish(order, found)
        _choose(found, order)
        staging.rename(order.root / REBASE)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return go_on(order)


def go_on(order: Order) -> tuple[Rebase, Plan]:
    """Finish the rebase under way, with the choices in `order`; returns and raises as `begin` does."""
    if not (found := resume(order.root)):
        raise UsageError("no rebase is under way", next_steps=[Next("rebase", options={"to": "NAME"})])
    return _finish(order, found)


def abort(root: Path) -> None:
    """Forget the rebase under way. Raises UsageError for none."""
    if not (root / REBASE).exists():
        raise UsageError("no rebase is under way, so there is nothing to abort")
    # Renamed first, so that a kill leaves no half of a rebase.
    (root / REBASE).rename(_emptied(root))
    _emptied(root)


def resume(root: Path) -> Rebase | None:
    """The rebase under way, or None. Raises UsageError when lock or components changed since it began."""
    if not (root / REBASE).exists():
        return None
    repo = Repo(root / REBASE)
    if _said(repo, "began") == [_origin(root)]:
        return _read(root, repo)
    if _said(repo, "commit") == [load(root, agreed=False).pin.commit]:
        # A run was killed after it had written everything.
        abort(root)
        return None
    why = f"{NAME}, or the components in {DECISIONS}, changed since the rebase in {REBASE} began"
    back = f"git checkout {NAME} {DECISIONS} restores them"
    raise UsageError(why, (), [back, Next("rebase-abort", "forgets the rebase")])


def ways(left: Sequence[tuple[str, str]]) -> Sequence[str | Next]:
    """The next steps for the open decisions `left`, the likeliest first."""
    lost = any(": lost: " in text for text, _ in left)
    return [
        *([f"edit in {REBASE}, where git status shows conflicts and git mergetool works"] if left else []),
        Next("rebase-continue", options={"drop": " ".join(name for _, name in left if name) or None}),
        *([Next("rebase-continue", "goes on without those lines", {"allow_loss": True})] if lost else []),
        Next("rebase-abort", "forgets it all"),
    ]


# --- Setting it up, and reading it ---


def _set_up(order: Order, repo: Repo) -> Rebase:
    root, offline = order.root, order.offline
    lock, decisions = load(root, agreed=False), decided(root)
    url = str(local(order.url) or order.url) if order.url else decisions.upstream.url
    base = pinned(lock, root, lock.files, order.store, None if order.url else order.upstream, offline=offline).files
    patched = results(lock.files, base, read_patches(root, lock.files), tuple(decisions.extras))
    place = address(order.upstream or url, offline=offline)
    log.info(f"git {place}: fetching {order.to}")
    branch, commit = repo.find(place, order.to, decisions.upstream.branch)
    if order.upstream:
        try:
            own = address(url, offline=offline)
            tip(own, "HEAD")
            with Repo.temporary() as probe:
                probe.fetch(own, commit, branch=branch)
        except NoSource as error:
            log.warning(f"others may not be able to fetch {commit[:12]} from {url}: {error}")
    prepare(repo, decisions.components.values(), base, patched, commit)
    said = {"url": without_secrets(url), "branch": branch, "commit": commit, "date": repo.date(commit)}
    for key, value in (said | {"began": _origin(root)}).items():
        repo.run("config", f"dsu.{key}", value)
    found = _read(root, repo)
    kept = {file.file.folder for file in found.survey.files if file.path}
    away = [file for file in found.survey.files if file.away and file.file.folder not in kept]
    if moved := {file.file.folder: file.away.rpartition("/")[0] for file in away}:
        raise Undecided(
            "a component's folder has moved upstream; nothing is changed yet",
            [f"{old}: its files are in {new} now" for old, new in moved.items()],
            [f"edit {DECISIONS}, [tool.vendor.components]", Next("rebase", "then goes on there")],
        )
    return found


def _choose(rebase: Rebase, order: Order) -> None:
    """Add the choices in `order` to `rebase`, and save them. Raises UsageError for a name that fits none."""
    droppable = [file.name for file in rebase.survey.files if file.merge or not file.path]
    choices = (("add", order.add, rebase.add, rebase.survey.others), ("drop", order.drop, rebase.drop, droppable))
    for what, names, chosen, known in choices:
        for name in names:
            paths = [path for path in known if is_called(path, name)]
            if len(paths) != 1:
                choice = f"choose from: {', '.join(sorted(known)) or 'none'}"
                raise UsageError(f"{name} does not name one file to {what}", next_steps=[choice])
            if paths[0] not in chosen:
                chosen.append(paths[0])
                rebase.repo.run("config", "--add", f"dsu.{what}", paths[0])


def _read(root: Path, repo: Repo) -> Rebase:
    lock, decisions = load(root, agreed=False), decided(root)
    pin = Pin(*(_said(repo, key)[0] for key in ("url", "branch", "commit", "date")))
    found = survey(repo, lock, decisions.components.values())
    # `git rm` in there counts as DROP=.
    removed = [file.name for file in found.files if file.merge == "gone" and not file.result]
    return Rebase(repo, lock, decisions, pin, found, _said(repo, "add"), [*_said(repo, "drop"), *removed])


def _said(repo: Repo, key: str) -> list[Any]:
    return repo.run("config", "--get-all", f"dsu.{key}", check=False).out.decode().splitlines()


def _origin(root: Path) -> str:
    """A hash of what must not change while a rebase is under way."""
    return sha256((root / NAME).read_bytes() + json.dumps(decided(root).components).encode())


def _emptied(root: Path) -> Path:
    """The empty place where a rebase is set up and removed."""
    place = root / "build" / ".rebase.new"
    shutil.rmtree(place, ignore_errors=True)
    return place


# --- Ending it ---


def _finish(order: Order, rebase: Rebase) -> tuple[Rebase, Plan]:
    """Write patches, lock and documents, except in a dry run. Raises Undecided, and HashMismatch for edited patches."""
    _choose(rebase, order)
    if left := list(rebase.undecided(allow_loss=order.allow_loss)):
        steps = [Next("rebase", "lets you resolve that", {"dry_run": None})] if order.dry_run else ways(left)
        message = "the rebase needs a decision; patches and lock are as they were"
        raise Undecided(message, [text for text, _ in left], steps, rebase.body)
    patches = _patches(order.root, rebase)
    kept = {name: data for name, data in patches.items() if data is not None}
    for name, line in ((file.name, line) for file in rebase.survey.files for line in file.lost):
        log.warning(f"{name}: lost: {line.strip()}")
    decisions, text = _decisions(order.root, rebase)
    lock = computed(Basis(decisions, rebase.pin, rebase.files, kept), rebase.lock, order.store, offline=order.offline)
    plan = planned(order.root, Change(lock, patches, text), order.verbs)
    if not order.dry_run:
        write_all(order.root, plan)
        abort(order.root)
    return rebase, plan


def _patches(root: Path, rebase: Rebase) -> Plan:
    """The new patch files by name, None for a removed one. Raises HashMismatch for one edited meanwhile."""
    patches: Plan = {}
    edited = []
    for file in rebase.survey.ours:
        path = root / file.name
        old = path.read_bytes() if path.exists() else b""
        locked = sha256(old) == file.file.patch_sha256
        new: bytes | None = None
        if file.name not in rebase.drop and (file.outcome, file.merge) == ("same", "clean"):
            new = old if locked else b""
        elif file.name not in rebase.drop:
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


def _decisions(root: Path, rebase: Rebase) -> tuple[Decisions, bytes]:
    """The decisions with the new url and branch, and pyproject.toml with them. UsageError where that cannot be."""
    old, pin = rebase.decisions.upstream, rebase.pin
    head, table, rest = (root / DECISIONS).read_bytes().decode().partition("[tool.vendor.upstream]")
    for was, now in ((old.url, pin.url), (old.branch, pin.branch)):
        rest = rest.replace(json.dumps(was), json.dumps(now), 1)
    upstream = attrs.evolve(old, url=pin.url, branch=pin.branch)
    said = tomllib.loads(head + table + rest)["tool"]["vendor"]["upstream"]
    if (said["url"], said["branch"]) != (pin.url, pin.branch):
        step = f'write url = "{pin.url}" and branch = "{pin.branch}" there'
        raise UsageError(f"[tool.vendor.upstream] of {DECISIONS} cannot be changed", (), [step])
    return attrs.evolve(rebase.decisions, upstream=upstream), (head + table + rest).encode()
