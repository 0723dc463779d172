"""Merges the patches with another commit of upstream: git finds renamed files, and git merges.

Its repository has the pinned files at `refs/upstream/old`, and upstream's commit at `refs/upstream/new`. On `main` are
the pinned files under their new names, then upstream's new files. The patched files, on `patched`, are cherry-picked
onto `main`, where a person resolves conflicts.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from tools.files import sha256
from tools.git import Repo
from tools.lock import PATCHES, Lock, PinnedFile
from tools.patch import faults

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
Files = Mapping[str, bytes]


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
class Survey:
    """All pinned files at the new commit, and the components' other files there (bytes by path)."""

    files: Sequence[Carried]
    others: Files

    @property
    def ours(self) -> list[Carried]:
        """The files that have a patch."""
        return [file for file in self.files if file.merge]

    @property
    def body(self) -> dict[str, Any]:
        """The report for --json."""
        files = [{"path": it.file.path, "outcome": it.outcome, "now": it.path, "note": it.note} for it in self.files]
        patches = [{"file": it.name, "target": it.file.path, "outcome": it.merge, "lost": it.lost} for it in self.ours]
        return {"patches": patches, "files": files, "new_files": sorted(self.others)}

    def rows(self, add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[list[str]]:
        """The report for people, without unchanged files. add, drop: what the user chose."""
        rows = [[it.name, OUTCOMES["dropped" if it.name in drop else it.merge], it.note] for it in self.ours]
        rows += [[it.file.path, OUTCOMES[it.outcome], it.note] for it in self.files if it.outcome != "same"]
        return rows + [[path, "taken up" if path in add else "not pinned", ""] for path in sorted(self.others)]


def prepare(repo: Repo, folders: Iterable[str], pinned: Files, patched: Files, commit: str) -> None:
    """Set up `repo`, which has upstream's `commit`, and merge the patches: `pinned` and `patched` are bytes by path."""
    repo.run("update-ref", _NEW, commit)
    repo.run("update-ref", _OLD, repo.commit(pinned, "the pinned files"))
    # For the git commands of a person, too.
    for key, value in (("merge.renames", "false"), ("merge.conflictStyle", "diff3"), ("core.autocrlf", "false")):
        repo.run("config", key, value)
    files = repo.files(_NEW, folders)
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
    repo.run("cherry-pick", _PATCHED, check=False)


def survey(repo: Repo, lock: Lock, folders: Iterable[str]) -> Survey:
    """The state of `repo`, which `prepare` set up, with all edits since."""
    new = repo.files(_NEW, folders)
    places = _places(repo, [file.path for file in lock.files], new)
    unmerged = os.fsdecode(repo.run("diff", "--name-only", "--diff-filter=U", "-z").out).split("\0")
    files = [_carried(repo, file, *places[file.path], new, unmerged) for file in lock.files]
    taken = {file.path for file in files}
    return Survey(files, {path: data for path, data in new.items() if path not in taken})


def _ended(data: bytes, like: bytes) -> bytes:
    return data.removesuffix(b"\n") + (b"\n" if like.endswith(b"\n") else b"")


def _places(repo: Repo, paths: Iterable[str], new: Collection[str]) -> dict[str, tuple[str | None, str]]:
    """For each of `paths`: its path among the `new` files or None, and its path elsewhere or ""."""
    options = ("-r", "-z", "-l0", "--find-renames", "--diff-filter=R", "--name-status")
    words = os.fsdecode(repo.run("diff-tree", *options, _OLD, _NEW, "--", "*.py").out).split("\0")
    renames = dict(zip(words[1::3], words[2::3], strict=False))
    found: dict[str, tuple[str | None, str]] = {}
    for path in paths:
        now = path if path in new else renames.get(path, "")
        found[path] = (now, "") if now in new else (None, now)
    return found


def _carried(
    repo: Repo, file: PinnedFile, path: str | None, away: str, files: Files, unmerged: Collection[str]
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
