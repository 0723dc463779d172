"""Merges the patches with another commit of upstream: git finds renamed files, and git merges.

Its repository has the pinned files at `refs/upstream/old`, and upstream's commit at `refs/upstream/new`. On `main` are
the pinned files under their new names, then upstream's new files. The patched files, on `patched`, are cherry-picked
onto `main`, where a person resolves conflicts.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from tools.apply import results
from tools.files import sha256
from tools.git import Repo
from tools.lock import PATCHES, Lock, Pin, PinnedFile, meant
from tools.patch import Patch, faults

# What can happen to a pinned file, and to a patch.
OUTCOMES = {
    "same": "the same upstream",
    "changed": "changed upstream",
    "renamed": "renamed upstream",
    "gone": "gone upstream",
    "clean": "applies as it is",
    "merged": "merges cleanly",
    "conflict": "conflicts",
    "already upstream": "already upstream",
    "dropped": "dropped",
}
_OLD, _NEW, _PATCHED = "refs/upstream/old", "refs/upstream/new", "patched"


@attrs.frozen
class Carried:
    """A pinned file at the new commit. outcome: the file's. merge: its patch's, "" for no patch.

    path: its new path, None for gone. away: its new path outside every component. new, result: its bytes upstream, and
    with the patch. lost: lines that the patch added and that the result lacks.
    """

    file: PinnedFile
    path: str | None
    away: str
    outcome: str
    merge: str
    new: bytes
    result: bytes
    lost: Sequence[str]

    @property
    def name(self) -> str:
        """Its name for DROP=: the patch, or the file where it has none."""
        return f"{PATCHES}/{self.file.patch}" if self.merge else self.file.path

    @property
    def note(self) -> str:
        """Its new place, if it moved."""
        if self.away:
            return f"moved to {self.away}, which is in no component"
        return f"now {self.path}" if self.outcome == "renamed" else ""


@attrs.frozen
class Choice:
    """What a person decides. add: new files to pin. drop: patches, and files that are gone. allow_loss: of lines."""

    add: Sequence[str] = ()
    drop: Sequence[str] = ()
    allow_loss: bool = False


@attrs.frozen
class Rebase:
    """The state of `repo`, which `prepare` set up, with all edits since. lock: the old one. pin: the new one.

    carried: all pinned files. others: the components' other files at the new commit, bytes by path.
    """

    repo: Repo
    lock: Lock
    pin: Pin
    carried: Sequence[Carried]
    others: Mapping[str, bytes]
    choice: Choice

    @property
    def files(self) -> dict[str, bytes]:
        """The files to pin, bytes by path."""
        kept = {file.path: file.new for file in self.carried if file.path}
        return kept | {path: self.others[path] for path in self.choice.add}

    @property
    def body(self) -> dict[str, Any]:
        """The report for --json."""
        files = [{"path": it.file.path, "outcome": it.outcome, "now": it.path, "note": it.note} for it in self.carried]
        ours = [it for it in self.carried if it.merge]
        patches = [{"file": it.name, "target": it.file.path, "outcome": it.merge, "lost": it.lost} for it in ours]
        return {"patches": patches, "files": files, "new_files": sorted(self.others)}

    @property
    def rows(self) -> list[list[str]]:
        """The report for people, without unchanged files."""
        add, drop, ours = self.choice.add, self.choice.drop, [it for it in self.carried if it.merge]
        rows = [[it.name, OUTCOMES["dropped" if it.name in drop else it.merge], it.note] for it in ours]
        rows += [[it.file.path, OUTCOMES[it.outcome], it.note] for it in self.carried if it.outcome != "same"]
        return rows + [[path, "taken up" if path in add else "not pinned", ""] for path in sorted(self.others)]

    def undecided(self) -> Iterator[tuple[str, str]]:
        """Each open decision, and the name for DROP= that settles it, "" for none."""
        for file in (file for file in self.carried if file.name not in self.choice.drop):
            if not file.path:
                yield f"{file.name}: {file.file.path} is gone upstream; {file.note}".rstrip("; "), file.name
            elif file.merge and file.result == file.new:
                yield f"{file.name}: changes nothing any more", file.name
            elif file.merge:
                lost = [] if self.choice.allow_loss else [f"lost: {line.strip()}" for line in file.lost]
                for text in faults(file.path, file.new, file.result) or lost:
                    yield f"{file.name}: {text}", ""
        for folder in self.lock.decisions.components.values():
            if folder not in {path.rpartition("/")[0] for path in self.files}:
                yield f"{folder}: none of its files is left; ADD= adds others", ""


def prepare(repo: Repo, lock: Lock, pinned: Mapping[str, bytes], patches: Mapping[str, Patch], commit: str) -> None:
    """Set up `repo`, which has upstream's `commit`, and merge the `patches` of the `pinned` files; both by path."""
    patched = results(lock.files, pinned, patches, [*lock.decisions.extras])
    repo.run("update-ref", _NEW, commit)
    repo.run("update-ref", _OLD, repo.commit(pinned, "the pinned files"))
    # For the git commands of a person, too.
    for key, value in (("merge.renames", "false"), ("merge.conflictStyle", "diff3"), ("core.autocrlf", "false")):
        repo.run("config", key, value)
    files = repo.files(_NEW, lock.decisions.components.values())
    now = {path: place or path for path, (place, _) in _places(repo, pinned, files).items()}
    before, after = {}, {}
    for path, base in pinned.items():
        ours, new = patched[path], files.get(now[path], base)
        # A newline that upstream adds at the end must not conflict with a patch of the last line.
        follows = base.endswith(b"\n") == ours.endswith(b"\n")
        before[now[path]] = _ended(base, new) if follows else base
        after[now[path]] = _ended(ours, new) if follows else ours
    repo.commit(before, "the pinned files, by their names now")
    repo.run("checkout", "--quiet", "-b", _PATCHED)
    repo.commit(after, "our patches")
    repo.run("checkout", "--quiet", "main")
    repo.commit(files, f"upstream at {commit}")
    repo.ask("cherry-pick", _PATCHED)


def survey(repo: Repo, lock: Lock, choice: Choice | None = None) -> Rebase:
    """The rebase in `repo`, with the whole names in `choice`. Raises UsageError for a name that fits none."""
    choice, wanted = choice or Choice(), lock.decisions.upstream
    commit = repo.run("rev-parse", _NEW).decode().strip()
    new = repo.files(commit, lock.decisions.components.values())
    places = _places(repo, [file.path for file in lock.files], new)
    unmerged = os.fsdecode(repo.run("diff", "--name-only", "--diff-filter=U", "-z")).split("\0")
    carried = [_carried(repo, file, *places[file.path], new, unmerged) for file in lock.files]
    others = {path: data for path, data in new.items() if path not in {file.path for file in carried}}
    add = meant("new file", choice.add, others)
    drop = meant("patch or file to drop", choice.drop, [file.name for file in carried if file.merge or not file.path])
    pin = Pin(wanted.url, wanted.branch, commit, repo.date(commit))
    return Rebase(repo, lock, pin, carried, others, Choice(add, drop, choice.allow_loss))


def _ended(data: bytes, like: bytes) -> bytes:
    return data.removesuffix(b"\n") + (b"\n" if like.endswith(b"\n") else b"")


def _places(repo: Repo, paths: Iterable[str], new: Collection[str]) -> dict[str, tuple[str | None, str]]:
    """For each of `paths`: its path among the `new` files or None, and its path elsewhere or ""."""
    options = ("-r", "-z", "-l0", "--find-renames", "--diff-filter=R", "--name-status")
    words = os.fsdecode(repo.run("diff-tree", *options, _OLD, _NEW, "--", "*.py")).split("\0")
    renames = dict(zip(words[1::3], words[2::3], strict=False))
    found: dict[str, tuple[str | None, str]] = {}
    for path in paths:
        now = path if path in new else renames.get(path, "")
        found[path] = (now, "") if now in new else (None, now)
    return found


def _carried(
    repo: Repo, file: PinnedFile, path: str | None, away: str, files: Mapping[str, bytes], unmerged: Collection[str]
) -> Carried:
    now = path or file.path
    new = files.get(now, b"")
    result = (repo.folder / now).read_bytes() if (repo.folder / now).is_file() else b""
    same = sha256(new) == file.upstream
    outcome = "gone" if not path else "renamed" if path != file.path else "same" if same else "changed"
    merge, lost = "merged", []
    if not file.patch or not path:
        merge = "gone" if file.patch else ""
    elif same and sha256(result) == file.patched:
        merge = "clean"
    elif now in unmerged and (result == new or faults(now, new, result)):
        merge = "conflict"
    elif result == new:
        merge = "already upstream"
    else:
        base, patched = (repo.read(commit, now) or b"" for commit in (f"{_PATCHED}~1", _PATCHED))
        lost = _lost(repo.diff(now, base, patched), base, patched, new, result)
    return Carried(file, path, away, outcome, merge, new, result, lost)


def _lost(diff: str, *sides: bytes) -> list[str]:
    """The lost lines: each line that a patch adds or moves must still be added, or be in upstream now."""
    base, patched, new, result = (Counter(side.decode(errors="surrogateescape").split("\n")) for side in sides)
    lost = []
    for line in dict.fromkeys(line[1:] for line in diff.partition("\n@@")[2].split("\n") if line.startswith("+")):
        # Where upstream added the line too, once is enough.
        due = max(1, patched[line] - base[line] + min(base[line], new[line]))
        lost += [line] * (due - result[line]) if line.strip() else []
    return lost
