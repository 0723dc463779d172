"""Commits of a remote in a scratch repository: what is in them, what happened between two, and merges of them."""

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tools.errors import ToolError
from tools.git import fetch_into, run_scrubbed
from tools.lock import path_fault

# `git merge-tree --write-tree` is of 2.38.
_OLDEST_GIT = (2, 38)
# Paths to blob ids: the Python files of a commit.
Files = Mapping[str, str]


@dataclass(frozen=True)
class Step:
    """A commit: id, date (ISO 8601), subject, and the paths it touches, against its first parent."""

    commit: str
    date: str
    subject: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Merge:
    """Blobs by path where the merge differs from `ours`; in conflicts, by path, stages: 1 base, 2 ours, 3 theirs."""

    changed: Files
    conflicts: Mapping[str, frozenset[int]]


class History:
    """A bare scratch repository, gone at the end of the `with` block. Merging needs git 2.38."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dsu-patches-")
        self._git = Path(self._folder.name) / "history.git"

    def __enter__(self) -> "History":
        self._git.mkdir()
        self._run("init", "--quiet", "--bare", "--template=", "--object-format=sha1")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def fetch(self, url: str, commit: str, *, everything: bool, past: bool = False) -> None:
        """Get `commit` from `url`; past: with all that came before it. Raises RemoteError."""
        fetch_into(self._git, url, commit, everything=everything, depth=None if past else 1)

    def resolve(self, name: str) -> str | None:
        """The full id of the commit that `name`, perhaps a shortened id, stands for among what was fetched, or None."""
        done = self._run("rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}", check=False)
        return done.decode().strip() or None

    def date(self, commit: str) -> str:
        """The commit date of `commit` as the lock has it."""
        return self._run("show", "--no-patch", "--format=%cI", commit).decode().strip().replace("Z", "+00:00")

    def files(self, commit: str) -> dict[str, str]:
        """The regular Python files of `commit`; whatever has a name that no tree may hold is passed over."""
        listed = self._run("ls-tree", "-r", "-z", commit).decode("utf-8", errors="replace").split("\0")
        entries = [entry.partition("\t") for entry in listed if entry]
        return {
            path: about.split()[2]
            for about, _, path in entries
            if about.startswith("100") and path.endswith(".py") and not path_fault(path)
        }

    def read(self, blob: str) -> bytes:
        """The bytes of `blob`."""
        return self._run("cat-file", "blob", blob)

    def write(self, data: bytes) -> str:
        """Store `data`; its blob id."""
        return self._run("hash-object", "-w", "--stdin", given=data).decode().strip()

    def between(self, old: str, new: str) -> list[Step]:
        """The commits that `new` has and `old` has not, newest first."""
        lines = self._run(
            "log", "--topo-order", "--diff-merges=first-parent", "--no-renames", "--name-only",
            "--format=%x01%H%x00%cI%x00%s", f"{old}..{new}",
        )  # fmt: skip
        steps = []
        for block in lines.decode("utf-8", errors="replace").split("\x01")[1:]:
            head, *names = block.strip("\n").split("\n")
            commit, date, subject = head.split("\0")
            steps.append(Step(commit, date, subject, tuple(name for name in names if name)))
        return steps

    def contains(self, old: str, new: str) -> bool:
        """Whether `old` is `new` or one of its ancestors, as far as history was fetched."""
        there = self._run("rev-list", "--max-count=1", f"{new}..{old}", check=False)
        return not there.strip()

    def renames(self, old: Files, new: Files) -> dict[str, str]:
        """Paths of `old` that `new` has under another name, by git's own measure of likeness."""
        said = self._run(
            "diff-tree", "-r", "-z", "--find-renames", "-l0", "--diff-filter=R", "--name-status",
            self._tree(old), self._tree(new),
        )  # fmt: skip
        words = said.decode("utf-8").split("\0")[:-1]
        return {words[at + 1]: words[at + 2] for at in range(0, len(words), 3)}

    def merge(self, base: Files, ours: Files, theirs: Files, names: tuple[str, str]) -> Merge:
        """Git's three-way merge of the trees `ours` and `theirs`, renames included.

        names: what conflict markers call the two sides. Raises ToolError where git is older than 2.38.
        """
        root = self._commit(base)
        sides = []
        for name, files in zip(names, (ours, theirs), strict=True):
            plain = re.sub(r"[^A-Za-z0-9._/-]|\.\.|\.lock$|^[-./]", "-", name)
            self._run("update-ref", f"refs/heads/{plain}", self._commit(files, root))
            sides.append(plain)
        self._insist_on_git()
        settings = ("merge.conflictStyle=diff3", "merge.directoryRenames=false", "merge.renameLimit=0")
        options = [word for setting in settings for word in ("-c", setting)]
        done = self._run(*options, "merge-tree", "--write-tree", "-z", *sides, check=False)
        fields = done.decode("utf-8", errors="replace").split("\0")
        if not re.fullmatch("[0-9a-f]{40}", fields[0]):
            raise ToolError("git merge-tree failed", [done.decode(errors="replace")[:300]])
        conflicts: dict[str, frozenset[int]] = {}
        for field in fields[1:]:
            if not (entry := re.fullmatch(r"[0-7]{6} [0-9a-f]{40} ([123])\t(.+)", field, flags=re.DOTALL)):
                break
            conflicts[entry[2]] = conflicts.get(entry[2], frozenset()) | {int(entry[1])}
        merged = self.files(fields[0])
        return Merge({path: blob for path, blob in merged.items() if ours.get(path) != blob}, conflicts)

    def _commit(self, files: Files, *parents: str) -> str:
        marks = [word for parent in parents for word in ("-p", parent)]
        return self._run("commit-tree", "-m", "x", *marks, self._tree(files)).decode().strip()

    def _tree(self, files: Files) -> str:
        lines = "".join(f"100644 {blob}\t{path}\0" for path, blob in files.items())
        (self._git / "scratch-index").unlink(missing_ok=True)
        self._run("update-index", "-z", "--index-info", given=lines.encode(), index="scratch-index")
        return self._run("write-tree", "--missing-ok", index="scratch-index").decode().strip()

    def _insist_on_git(self) -> None:
        said = self._run("version").decode()
        found = re.search(r"(\d+)\.(\d+)", said)
        if found and (int(found[1]), int(found[2])) < _OLDEST_GIT:
            raise ToolError(f"git 2.38 or later is needed to merge, this is {said.strip()}")

    def _run(self, *arguments: str, given: bytes = b"", check: bool = True, index: str = "") -> bytes:
        return run_scrubbed(self._git, *arguments, given=given, check=check, index=index).stdout


def python_files(files: Files, folders: Iterable[str]) -> dict[str, str]:
    """Those of `files` that lie directly in one of `folders`."""
    wanted = set(folders)
    return {path: blob for path, blob in files.items() if path.rpartition("/")[0] in wanted}
