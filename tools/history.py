"""Commits of a remote in a scratch repository: what is in them, what happened between two, and merges of files."""

import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tools.git import fetch_into, run_scrubbed
from tools.lock import path_fault
from tools.temporary import TemporaryFolder

# Paths to blob ids: the Python files of a commit.
Files = Mapping[str, str]


@dataclass(frozen=True)
class Step:
    """A commit: id, date (ISO 8601), subject, and the paths it touches, against its first parent."""

    commit: str
    date: str
    subject: str
    paths: tuple[str, ...]


class History:
    """A scratch repository, gone at the end of the `with` block."""

    def __init__(self) -> None:
        self._folder = TemporaryFolder()
        # Not a bare one: a user's configuration may forbid those.
        self._work = Path(self._folder.name) / "history"
        self._git = self._work / ".git"

    def __enter__(self) -> "History":
        self._work.mkdir()
        self._run("init", "--quiet", "--template=", "--object-format=sha1")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.__exit__(kind, error, trace)

    def fetch(self, url: str, commit: str, *, everything: bool, past: bool = False) -> None:
        """Get `commit` from `url`; past: with all that came before it. Raises RemoteError."""
        fetch_into(self._work, url, commit, everything=everything, depth=None if past else 1)

    def resolve(self, name: str) -> str | None:
        """The full id of the commit that `name`, perhaps a shortened id, stands for among what was fetched, or None."""
        done = self._run("rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}", check=False)
        return done.decode().strip() or None

    def date(self, commit: str) -> str:
        """The commit date of `commit` as the lock has it."""
        return self._run("log", "--max-count=1", "--format=%cI", commit).decode().strip().replace("Z", "+00:00")

    def files(self, commit: str) -> dict[str, str]:
        """The regular Python files of `commit`; whatever has a name that no tree may hold is passed over."""
        listed = self._run("ls-tree", "-r", "-z", commit).decode("utf-8", errors="replace").split("\0")
        entries = [entry.partition("\t") for entry in listed if entry]
        return {
            path: about.split()[2]
            for about, _, path in entries
            # The last is what stands for letters that are no UTF-8.
            if about.startswith("100") and path.endswith(".py") and not path_fault(path) and "\ufffd" not in path
        }

    def read(self, blob: str) -> bytes:
        """The bytes of `blob`."""
        return self._run("cat-file", "blob", blob)

    def write(self, data: bytes) -> str:
        """Store `data`; its blob id."""
        return self._run("hash-object", "-w", "--stdin", given=data).decode().strip()

    def between(self, old: str, new: str) -> list[Step]:
        """The commits that `new` has and `old` has not, newest first."""
        # Nothing that a subject can say is taken for the start of the next commit.
        mark = secrets.token_hex(16)
        lines = self._run(
            "log", "--topo-order", "--diff-merges=first-parent", "--no-renames", "--name-only",
            f"--format={mark}%H%x00%cI%x00%s", f"{old}..{new}",
        )  # fmt: skip
        steps = []
        for block in lines.decode("utf-8", errors="replace").split(mark)[1:]:
            head, *names = block.strip("\n").split("\n")
            commit, date, subject = head.split("\0", 2)
            steps.append(Step(commit, date, _plain(subject), tuple(name for name in names if name)))
        return steps

    @property
    def shallow(self) -> bool:
        """Whether what was fetched lacks commits that came before, as a shallow copy does."""
        return self._run("rev-parse", "--is-shallow-repository").strip() == b"true"

    def contains(self, old: str, new: str) -> bool:
        """Whether `old` is `new` or one of its ancestors, as far as history was fetched."""
        there = self._run("rev-list", "--max-count=1", f"{new}..{old}", check=False)
        return not there.strip()

    def renames(self, old: Files, new: Files) -> dict[str, str]:
        """Paths of `old` that `new` has under another name, by git's own measure of likeness."""
        said = self._run(
            "diff-tree", "-r", "-z", "--find-renames", "--no-rename-empty", "-l0", "--diff-filter=R", "--name-status",
            self._tree(old), self._tree(new),
        )  # fmt: skip
        words = said.decode("utf-8").split("\0")[:-1]
        return {words[at + 1]: words[at + 2] for at in range(0, len(words), 3)}

    def merge(self, base: bytes, ours: bytes, theirs: bytes, names: tuple[str, str]) -> tuple[bytes, bool]:
        """Git's three-way merge of one file, and whether it is one: with conflicts the bytes have markers.

        names: what the markers call the two sides. What git does not take for text is a conflict without any markers,
        and stays `ours`.
        """
        sides = {"ours": ours, "base": base, "theirs": theirs}
        for name, data in sides.items():
            (self._work / name).write_bytes(data)
        labels = [word for label in (names[0], "before", names[1]) for word in ("-L", label)]
        done = self._raw("merge-file", "-p", "--diff3", *labels, *sides, check=False)
        # The exit code is the number of conflicts; more than 127 stand for an error.
        return (done.stdout, done.returncode == 0) if 0 <= done.returncode < 128 else (ours, False)

    def _tree(self, files: Files) -> str:
        lines = "".join(f"100644 {blob}\t{path}\0" for path, blob in files.items())
        (self._git / "scratch-index").unlink(missing_ok=True)
        self._run("update-index", "-z", "--index-info", given=lines.encode(), index="scratch-index")
        return self._run("write-tree", "--missing-ok", index="scratch-index").decode().strip()

    def _run(self, *arguments: str, given: bytes = b"", check: bool = True, index: str = "") -> bytes:
        return self._raw(*arguments, given=given, check=check, index=index).stdout

    def _raw(
        self, *arguments: str, given: bytes = b"", check: bool = True, index: str = ""
    ) -> "subprocess.CompletedProcess[bytes]":
        return run_scrubbed(self._git, *arguments, work_tree=self._work, given=given, check=check, index=index)


def _plain(text: str) -> str:
    """`text` without what a terminal would act on."""
    return "".join(char if char.isprintable() else "?" for char in text)
