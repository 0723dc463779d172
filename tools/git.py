"""The one place that runs git.

Two worlds, kept apart. Reaching a remote uses the user's own configuration: proxies, credentials, `insteadOf`. Applying
and comparing happens in a `Scratch`, where no configuration, attribute, environment variable or surrounding repository
of the user's can change a byte.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.errors import PatchFails, ToolError

if TYPE_CHECKING:
    import git

# What git sets for the repository it works in (`git rev-parse --local-env-vars`, less the two that carry `-c`
# settings): inherited from a hook, any of these would send our commands into somebody else's repository.
_REPOSITORY_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
# A stalled transfer ends after this many seconds; a fetch as a whole (ours is under a megabyte) after the second.
_STALL_SECONDS = 8
_FETCH_SECONDS = 60


def forget_outer_repository() -> None:
    """Drop the variables by which a hook's git points its children at its own repository, for this whole process."""
    for name in _REPOSITORY_VARIABLES:
        os.environ.pop(name, None)


class RemoteError(Exception):
    """A remote did not give what was asked; the text is git's own reason, on one line."""


@dataclass(frozen=True)
class Commit:
    """What a lock keeps of a commit: id, commit date (ISO 8601), and its `*.py` blobs by path with their bytes."""

    id: str
    date: str
    files: Mapping[str, bytes]


def remote_blobs(
    url: str, commit: str, blobs: Iterable[str], *, everything: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Fetch `commit` from `url`, at depth 1, and yield (blob id, bytes) for those of `blobs` that arrived.

    everything: when the remote cannot serve the bare commit, as a bundle or a dumb host cannot, fetch all its refs.
    Raises RemoteError.
    """
    import git

    with _fetched(url, commit, everything=everything) as repo:
        for blob in blobs:
            try:
                yield blob, git.Blob(repo, bytes.fromhex(blob)).data_stream.read()
            except (ValueError, git.BadName):
                continue


def remote_commit(url: str, commit: str, folders: Iterable[str]) -> Commit:
    """Fetch `commit` from `url` and read its date and the `*.py` files directly inside each of `folders`.

    Raises RemoteError, also when the commit is not there.
    """
    import git

    with _fetched(url, commit, everything=False) as repo:
        try:
            found = repo.commit(commit)
            files = {
                str(blob.path): blob.data_stream.read()
                for folder in folders
                for blob in found.tree.join(folder).blobs
                if blob.name.endswith(".py")
            }
        except (ValueError, KeyError, git.GitError) as error:
            raise RemoteError(_one_line(str(error))) from error
        return Commit(found.hexsha, found.committed_datetime.isoformat(), files)


@contextmanager
def _fetched(url: str, commit: str, *, everything: bool) -> "Iterator[git.Repo]":
    import git

    with tempfile.TemporaryDirectory(prefix="dsu-patches-") as folder:
        repo = git.Repo.init(folder, bare=True)
        try:
            repo.git.update_environment(
                GIT_TERMINAL_PROMPT="0",
                GIT_HTTP_LOW_SPEED_LIMIT="1",
                GIT_HTTP_LOW_SPEED_TIME=str(_STALL_SECONDS),
                LC_ALL="C",
            )
            limit: dict[str, Any] = {} if os.name == "nt" else {"kill_after_timeout": _FETCH_SECONDS}
            try:
                repo.git.fetch("--quiet", "--depth=1", "--no-tags", "--", url, commit, **limit)
            except git.GitCommandError as error:
                if not everything:
                    raise RemoteError(_reason(error)) from error
                try:
                    names = [line.split("\t")[1] for line in str(repo.git.ls_remote("--", url, **limit)).splitlines()]
                    specs = [f"+{name}:refs/from/{number}" for number, name in enumerate(names)]
                    repo.git.fetch("--quiet", "--no-tags", "--", url, *specs, **limit)
                except git.GitCommandError as second:
                    raise RemoteError(_reason(second)) from second
            yield repo
        finally:
            repo.close()


def _reason(error: "git.GitCommandError") -> str:
    text = error.stderr.strip().removeprefix("stderr:").strip().strip("'")
    if "Timeout" in text and "did not complete" in text:
        return f"no answer within {_FETCH_SECONDS} s"
    return _one_line(text) or f"git exited with {error.status}"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
    return "; ".join(fatal or lines)[:300]


class Scratch:
    """A throw-away repository for applying and comparing; use it as a context manager."""

    def __enter__(self) -> "Scratch":
        self._folder = tempfile.TemporaryDirectory(prefix="dsu-patches-")
        # A symlinked temporary folder (macOS) would make git see a path outside the work tree.
        self.root = Path(self._folder.name).resolve()
        (self.root / "tree").mkdir()
        self._run("init", "--quiet", "--template=")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def apply(self, path: str, base: bytes, patch: bytes, name: str) -> bytes:
        """The bytes that `git apply --unidiff-zero` makes of `base` at `path`.

        Raises PatchFails with git's own words when a hunk is refused or lands on another line than it names, or when
        git succeeds without changing anything.
        """
        target = self.root / "tree" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base)
        (self.root / "patch").write_bytes(patch)
        done = self._run("apply", "--unidiff-zero", "--whitespace=nowarn", "--verbose", "../patch", check=False)
        said = done.stderr.decode(errors="replace").strip().splitlines()
        if done.returncode or any("offset" in line or "fuzz" in line for line in said):
            raise PatchFails(f"{name} does not apply to {path}", said)
        result = target.read_bytes()
        if result == base:
            raise PatchFails(f"{name} changes nothing in {path}", said)
        return result

    def diff(self, path: str, old: bytes, new: bytes, context: int) -> str:
        """A git diff of `old` to `new` at `path` with full blob ids and `context` lines; empty when they are equal."""
        target = self.root / "tree" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(old)
        self._run("add", "--force", "--", path)
        target.write_bytes(new)
        # A file changed within the clock's grain can look unchanged to the index; --no-ext-diff and friends need no
        # mention, there is no configuration here to set them.
        self._run("update-index", "--really-refresh", "-q", check=False)
        done = self._run("diff", f"-U{context}", "--full-index", "--minimal", "--no-color", "--no-renames", "--", path)
        return done.stdout.decode("utf-8", errors="replace")

    def _run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_"))}
        environment |= {
            "HOME": str(self.root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(self.root.parent),
            "GIT_DIR": str(self.root / "tree" / ".git"),
            "GIT_WORK_TREE": str(self.root / "tree"),
            "LC_ALL": "C",
        }
        fixed = ("-c", "core.autocrlf=false", "-c", "core.safecrlf=false", "-c", "core.fileMode=false")
        try:
            done = subprocess.run(
                ["git", *fixed, *arguments],
                cwd=self.root / "tree",
                env=environment,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except FileNotFoundError as error:
            raise ToolError("git was not found", next_steps=["install git and put it on PATH"]) from error
        if check and done.returncode:
            raise ToolError(f"git {arguments[0]} failed", done.stderr.decode(errors="replace").strip().splitlines())
        return done
