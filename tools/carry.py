"""Merges the patches with another commit of upstream: git finds renamed files, and git merges.

In its repository `refs/upstream/old` has the pinned files, and `refs/upstream/new` is upstream's commit. `main` has the
pinned files under their new names, then upstream's. `patched`, ours, is picked onto it; a person resolves conflicts.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import attrs

from tools.apply import read_patches, results
from tools.files import sha256
from tools.git import Repo
from tools.lock import PATCHES, Lock, Pin, PinnedFile, meant
from tools.patch import faults
from tools.sources import Project, pinned

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
}
_OLD, _NEW, _PATCHED = "refs/upstream/old", "refs/upstream/new", "patched"


class Carried(NamedTuple):
    """A pinned file at the new commit. name: for DROP=, its patch or else the file. outcome: the file's.

    merge: its patch's outcome, "" for none. path: its new path, None for gone. away: one outside every component. note:
    its move, in words. new, result: its bytes upstream, and with the patch. lost: added lines that the result lacks.
    """

    file: PinnedFile
    name: str
    path: str | None
    away: str
    outcome: str
    merge: str
    note: str
    new: bytes = b""
    result: bytes = b""
    lost: Sequence[str] = ()


class Choice(NamedTuple):
    """What a person decides. add: new files to pin. drop: patches, and files that are gone. allow_loss: of lines."""

    add: Sequence[str] = ()
    drop: Sequence[str] = ()
    allow_loss: bool = False


class Rebase(NamedTuple):
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
    def rows(self) -> list[list[str]]:
        """The report for people, without unchanged files."""
        add, drop, ours = self.choice.add, self.choice.drop, [it for it in self.carried if it.merge]
        rows = [[it.name, "dropped" if it.name in drop else OUTCOMES[it.merge], it.note] for it in ours]
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
        edited = [file.name for file in self.carried if not file.merge and file.result != file.new]
        places = {path: self.repo.folder / path for path in self.others}
        edited += [path for path, it in places.items() if it.is_file() and it.read_bytes() != self.others[path]]
        for path in edited:
            yield f"{path}: was edited, and has no patch; undo it, and edit the tree later", ""
        for folder in self.lock.decisions.components.values():
            if folder not in {path.rpartition("/")[0] for path in self.files}:
                yield f"{folder}: no file of it is left; ADD= others, or abort and edit pyproject.toml", ""


def prepare(project: Project, repo: Repo, lock: Lock, commit: str, choice: Choice) -> Rebase:
    """Set up `repo`, which has upstream's `commit`, and merge the patches; returns and raises as `survey`."""
    old = pinned(project, lock, lock.files).files
    patched = results(lock.files, old, read_patches(project.root, lock.files), [*lock.decisions.extras])
    repo.run("update-ref", _NEW, commit)
    repo.run("update-ref", _OLD, repo.commit(old, "the pinned files"))
    # For the git commands of a person, too.
    for key, value in (("merge.renames", "false"), ("merge.conflictStyle", "diff3"), ("core.autocrlf", "false")):
        repo.run("config", key, value)
    files = repo.files(_NEW, lock.decisions.components.values())
    places = _places(repo, old, files)
    before, after = {}, {}
    for path, base in old.items():
        place, ours = (places[path] if places[path] in files else path), patched[path]
        if base.endswith(b"\n") == ours.endswith(b"\n"):
            # A newline that upstream adds at the end must not conflict with a patch of the last line.
            end = b"\n" if files.get(place, base).endswith(b"\n") else b""
            base, ours = (side.removesuffix(b"\n") + end for side in (base, ours))
        before[place], after[place] = base, ours
    repo.commit(before, "the pinned files, by their names now")
    repo.run("checkout", "--quiet", "-b", _PATCHED)
    repo.commit(after, "our patches")
    repo.run("checkout", "--quiet", "main")
    repo.commit(files, f"upstream at {commit}")
    repo.ask("cherry-pick", _PATCHED)
    return survey(repo, lock, choice)


def survey(repo: Repo, lock: Lock, choice: Choice) -> Rebase:
    """The rebase in `repo`, with the whole names in `choice`. Raises UsageError for a name that fits none."""
    commit = repo.run("rev-parse", _NEW).decode().strip()
    new = repo.files(commit, lock.decisions.components.values())
    places = _places(repo, [file.path for file in lock.files], new)
    unmerged = os.fsdecode(repo.run("diff", "--name-only", "--diff-filter=U", "-z")).split("\0")
    carried = [_carried(repo, file, places[file.path], new, unmerged) for file in lock.files]
    others = {path: data for path, data in new.items() if path not in {file.path for file in carried}}
    saved = {key: (repo.ask("config", f"dsu.{key}") or b"").decode().split() for key in ("add", "drop")}
    droppable = [file.name for file in carried if file.merge or not file.path]
    add = meant("new file", [*saved["add"], *choice.add], others)
    drop = meant("patch or file to drop", [*saved["drop"], *choice.drop], droppable)
    pin = attrs.evolve(lock.decisions.upstream, commit=commit, date=repo.date(commit))
    return Rebase(repo, lock, pin, carried, others, Choice(add, drop, choice.allow_loss))


def _places(repo: Repo, paths: Iterable[str], new: Collection[str]) -> dict[str, str]:
    """Where each of `paths` is at the new commit, "" for nowhere; not always among the components' files, `new`."""
    options = ("-r", "-z", "-l0", "--find-renames", "--diff-filter=R", "--name-status")
    words = os.fsdecode(repo.run("diff-tree", *options, _OLD, _NEW, "--", "*.py")).split("\0")
    renames = dict(zip(words[1::3], words[2::3], strict=False))
    return {path: path if path in new else renames.get(path, "") for path in paths}


def _carried(repo: Repo, file: PinnedFile, now: str, files: Mapping[str, bytes], unmerged: Collection[str]) -> Carried:
    name = f"{PATCHES}/{file.patch}" if file.patch else file.path
    if now not in files:
        note = f"moved to {now}, which is in no component" if now else ""
        return Carried(file, name, None, now, "gone", "gone" if file.patch else "", note)
    new, path = files[now], repo.folder / now
    result = path.read_bytes() if path.is_file() else b""
    same, merge, lost = sha256(new) == file.upstream, "merged", []
    if not file.patch:
        merge = ""
    elif same and sha256(result) == file.patched:
        merge = "clean"
    elif now in unmerged and (result == new or faults(now, new, result)):
        merge = "conflict"
    elif result == new:
        merge = "already upstream"
    else:
        base, patched = (repo.read(commit, now) or b"" for commit in (f"{_PATCHED}~1", _PATCHED))
        lost = _lost(repo.diff(now, base, patched), base, patched, new, result)
    outcome = "renamed" if now != file.path else "same" if same else "changed"
    note = f"now {now}" if outcome == "renamed" else ""
    return Carried(file, name, now, "", outcome, merge, note, new, result, lost)


def _lost(diff: str, *sides: bytes) -> list[str]:
    """The lost lines: each line that a patch adds or moves must still be added, or be in upstream now."""
    base, patched, new, result = (Counter(side.decode(errors="surrogateescape").split("\n")) for side in sides)
    lost = []
    for line in dict.fromkeys(line[1:] for line in diff.partition("\n@@")[2].split("\n") if line.startswith("+")):
        # Where upstream added the line too, once is enough.
        due = max(1, patched[line] - base[line] + min(base[line], new[line]))
        lost += [line] * (due - result[line]) if line.strip() else []
    return lost
