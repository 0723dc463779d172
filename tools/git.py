"""The one place that runs git.

Two worlds, kept apart. Reaching a remote uses the user's own configuration: proxies, credentials, `insteadOf`. Applying
and comparing happens in a `Scratch`, where no configuration, attribute, environment variable or surrounding repository
of the user's can change a byte.
"""

import os
import re
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tools.addresses import TRANSPORTS, insist_on_repository
from tools.errors import PatchFails, ToolError
from tools.limits import LARGEST_FILE, bound_memory
from tools.lock import path_fault
from tools.temporary import TemporaryFolder

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
# Seconds for a first answer, which git itself waits minutes for.
_ANSWER_SECONDS = 5
# Seconds after which a stalled transfer ends; a fetch as a whole (ours is under a megabyte); one of all that there is.
_STALL_SECONDS = 8
_FETCH_SECONDS = 20
_FETCH_ALL_SECONDS = 90
# Bytes of refs, and of messages, that are taken from a remote; those that we ask for are a line or two.
_MOST_SAID = 1024 * 1024


def forget_outer_repository() -> None:
    """Drop the variables by which a hook's git points its children at its own repository, for this whole process."""
    for name in _REPOSITORY_VARIABLES:
        os.environ.pop(name, None)


class RemoteError(Exception):
    """A remote did not give what was asked; the text is git's own reason, on one line."""


class RemoteSilent(RemoteError):
    """A remote that gave no answer in time; asking it for something else would take as long again."""


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
    A blob that is too large for a pinned file is passed over. Raises RemoteError, UsageError for a `url` that git is
    not given.
    """
    with _fetched(url, commit, everything=everything) as repo:
        import git

        for blob in blobs:
            try:
                found = git.Blob(repo, bytes.fromhex(blob))
                if found.size <= LARGEST_FILE:
                    yield blob, found.data_stream.read()
            except (ValueError, git.BadName):
                continue


def remote_commit(
    url: str, commit: str, folders: Iterable[str], *, everything: bool = False, lenient: bool = False
) -> Commit:
    """Fetch `commit` from `url` and read its date and the `*.py` files directly inside each of `folders`.

    everything: as for `remote_blobs`. lenient: a folder that is not there, or a `*.py` that is no regular file of a
    fitting size, is passed over. Raises RemoteError, also for these without `lenient` and when the commit is not there;
    UsageError for a `url` that git is not given.
    """
    with _fetched(url, commit, everything=everything) as repo:
        import git

        try:
            found = repo.commit(commit)
            date = found.committed_datetime.isoformat()
            files: dict[str, bytes] = {}
            for folder in folders:
                try:
                    inside = found.tree / folder
                except KeyError:
                    if not lenient:
                        raise
                    continue
                if inside.type != "tree":
                    if not lenient:
                        raise RemoteError(f"a component's path, {folder}, is no folder there")
                    continue
                for entry in inside:
                    if not str(entry.path).endswith(".py"):
                        continue
                    if not (why := _oddity(entry)):
                        files[str(entry.path)] = entry.data_stream.read()
                    elif not lenient:
                        raise RemoteError(f"{str(entry.path)!r} {why}")
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, git.GitError) as error:
            # Most of these are for objects that no git would write: a tree cut short, a date in the year 300,000.
            raise RemoteError(_one_line(str(error)) or f"commit {commit} cannot be read") from error
        return Commit(found.hexsha, date, files)


def _oddity(entry: Any) -> str | None:
    """Why the entry of a tree is no file that could be pinned, or None."""
    if entry.type != "blob":
        return f"is a {entry.type} there, not a file"
    if stat.S_ISLNK(entry.mode):
        return "is a symbolic link there, not a file"
    if why := path_fault(str(entry.path)):
        return why
    return f"has more than {LARGEST_FILE} bytes there" if entry.size > LARGEST_FILE else None


def remote_tip(url: str, name: str) -> tuple[str, str] | None:
    """What the branch or tag `name` of `url` is at, by one `ls-remote`: ("branch" or "tag", commit id); None for none.

    name: perhaps with `refs/heads/` or `refs/tags/` before it, and then a branch or a tag alone. Raises RemoteError,
    UsageError for a `url` that git is not given.
    """
    insist_on_repository(url)
    short = re.sub("^refs/(heads|tags)/", "", name)
    # In order of preference; of an annotated tag the commit, not the tag object.
    refs = [("branch", f"refs/heads/{short}"), ("tag", f"refs/tags/{short}^{{}}"), ("tag", f"refs/tags/{short}")]
    refs = [(kind, ref) for kind, ref in refs if ref.startswith(name) or name == short]
    with TemporaryFolder() as folder:
        said = _ask(_runner(folder), _FETCH_SECONDS, "ls-remote", "--", url, *(ref for _, ref in refs))
    lines = [line.partition("\t") for line in said.decode(errors="replace").splitlines()]
    found = {ref: commit for commit, _, ref in lines}
    return next(((kind, found[ref]) for kind, ref in refs if ref in found), None)


def fetch_into(folder: Path, url: str, commit: str, *, everything: bool, depth: int | None = 1) -> None:
    """Fetch `commit` from `url` into the repository in `folder`, with the user's own configuration.

    everything: when the remote cannot serve the bare commit, as a bundle or a dumb host cannot, fetch all its refs.
    depth: how many commits; all of its history when None. Raises RemoteError, UsageError for a `url` that git is not
    given.
    """
    insist_on_repository(url)
    runner = _runner(str(folder))
    fetch = ("-c", f"core.hooksPath={os.devnull}", "fetch", "--quiet", "--no-tags", "--update-shallow")
    try:
        if depth is None:
            _ask(runner, _FETCH_ALL_SECONDS, *fetch, "--", url, commit)
        else:
            _ask(runner, _FETCH_SECONDS, *fetch, f"--depth={depth}", "--", url, commit)
    except RemoteSilent:
        raise
    except RemoteError:
        if not everything:
            raise
        failures = []
        for refs in ("+refs/*:refs/from/*", "+HEAD:refs/from-HEAD"):
            try:
                _ask(runner, _FETCH_ALL_SECONDS, *fetch, "--", url, refs)
            except RemoteError as error:
                failures.append(error)
        if len(failures) == 2:
            raise failures[0] from None


@contextmanager
def _fetched(url: str, commit: str, *, everything: bool) -> "Iterator[git.Repo]":
    insist_on_repository(url)
    with TemporaryFolder() as folder:
        _ask(_runner(folder), _FETCH_SECONDS, "init", "--quiet", "--template=")
        patience = _FETCH_SECONDS if everything else _ANSWER_SECONDS
        _ask(_runner(folder), patience, "ls-remote", "--quiet", "--", url, "HEAD")
        fetch_into(Path(folder), url, commit, everything=everything)
        import git

        repo = git.Repo(folder)
        try:
            yield repo
        finally:
            repo.close()


def _runner(folder: str) -> "git.Git":
    try:
        import git
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        # GitPython looks for git while it is imported.
        raise _git_is_missing() from error
    runner = git.Git(folder)
    # Stronger than any `protocol.*.allow`: no `insteadOf` of the user's and no redirect leads to a remote helper.
    chosen = os.environ.get("GIT_ALLOW_PROTOCOL")
    allowed = [name for name in TRANSPORTS if chosen is None or name in chosen.split(":")]
    runner.update_environment(
        GIT_TERMINAL_PROMPT="0",
        GIT_HTTP_LOW_SPEED_LIMIT="1",
        GIT_HTTP_LOW_SPEED_TIME=str(_STALL_SECONDS),
        GIT_DEFAULT_HASH="sha1",
        GIT_ALLOW_PROTOCOL=":".join(allowed),
    )
    return runner


def _ask(runner: "git.Git", seconds: float, *arguments: str) -> bytes:
    """What `git ARGUMENTS` writes. Raises RemoteError with git's own reason, RemoteSilent when it is not done in time.

    Not GitPython's `kill_after_timeout`: that one lists git's children with `ps` or `pgrep`, which small containers
    lack, and keeps an interrupted run waiting for the time to pass.
    """
    # A session of its own, so that git and its network helpers can be ended together. A SIGKILL of ours leaves them to
    # end by themselves, in a temporary folder that a later run removes.
    process = runner.execute([runner.GIT_PYTHON_GIT_EXECUTABLE, *arguments], as_process=True, start_new_session=True)
    assert process.proc is not None
    running: subprocess.Popen[bytes] = process.proc
    try:
        bound_memory(running.pid)
        wrote, said = _heard(running, seconds)
    except subprocess.TimeoutExpired as error:
        raise RemoteSilent(f"no answer within {seconds:.0f} s") from error
    finally:
        if running.poll() is None:
            if os.name == "nt":
                running.kill()
            else:
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    if running.returncode:
        reason = _one_line(said.decode(errors="replace")) or f"git exited with {running.returncode}"
        raise RemoteSilent(reason) if "Operation too slow" in reason else RemoteError(reason)
    return wrote


def _heard(running: "subprocess.Popen[bytes]", seconds: float) -> tuple[bytes, bytes]:
    """What `running.communicate(timeout=seconds)` gives and raises; RemoteError when either is beyond _MOST_SAID."""
    if os.name == "nt":
        # Windows cannot wait for a pipe.
        return running.communicate(timeout=seconds)
    assert running.stdout
    assert running.stderr
    said = {running.stdout.fileno(): bytearray(), running.stderr.fileno(): bytearray()}
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as still_open:
        for stream in said:
            still_open.register(stream, selectors.EVENT_READ)
        while still_open.get_map():
            ready = still_open.select(max(0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(running.args, seconds)
            for key, _ in ready:
                if not (data := os.read(key.fd, 65536)):
                    still_open.unregister(key.fd)
                said[key.fd] += data
                if len(said[key.fd]) > _MOST_SAID:
                    raise RemoteError(f"more than {_MOST_SAID} bytes of messages or refs")
    running.wait(max(0, deadline - time.monotonic()))
    wrote, reason = map(bytes, said.values())
    return wrote, reason


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
    return "; ".join(fatal or lines)[:300]


def _git_is_missing() -> ToolError:
    return ToolError("git was not found", next_steps=["install git and put it on PATH"])


class Scratch:
    """A throw-away repository for applying and comparing; use it as a context manager."""

    def __enter__(self) -> "Scratch":
        self._folder = TemporaryFolder()
        # A symlinked temporary folder (macOS) would make git see a path outside the work tree.
        self.root = Path(self._folder.name).resolve()
        (self.root / "tree").mkdir()
        self._run("init", "--quiet", "--template=")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.__exit__(kind, error, trace)

    def apply(self, path: str, base: bytes, patch: bytes, name: str) -> bytes:
        """The bytes that `git apply --unidiff-zero` makes of `base` at `path`.

        Raises PatchFails with git's own words when a hunk is refused or lands on another line than it names, or when
        git succeeds without changing anything.
        """
        target = self.root / "tree" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base)
        # Git looks for a hunk that only removes one line above where it is, and may find it there.
        exact = re.sub(rb"(?m)^(@@ -\S+ \+)(\d+)(,0 @@)", lambda at: at[1] + b"%d" % (int(at[2]) + 1) + at[3], patch)
        (self.root / "patch").write_bytes(exact)
        done = self._run("apply", "--unidiff-zero", "--whitespace=nowarn", "--verbose", "../patch", check=False)
        said = done.stderr.decode(errors="replace").strip().splitlines()
        if done.returncode or any(line.startswith("Hunk #") and "offset" in line for line in said):
            raise PatchFails(f"{name} does not apply to {path}", said)
        result = target.read_bytes()
        if result == base:
            raise PatchFails(f"{name} changes nothing in {path}", said)
        return result

    def diff(self, path: str, old: bytes, new: bytes, context: int) -> str:
        """A git diff of `old` to `new` at `path` with full blob ids and `context` lines; empty when they are equal.

        Bytes that are no UTF-8 come as surrogates.
        """
        target = self.root / "tree" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(old)
        self._run("add", "--force", "--", path)
        target.write_bytes(new)
        # A file changed within the clock's grain can look unchanged to the index; --no-ext-diff and friends need no
        # mention, there is no configuration here to set them.
        self._run("update-index", "--really-refresh", "-q", check=False)
        done = self._run("diff", f"-U{context}", "--full-index", "--minimal", "--no-color", "--no-renames", "--", path)
        return done.stdout.decode("utf-8", errors="surrogateescape")

    def _run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        tree = self.root / "tree"
        return run_scrubbed(tree / ".git", *arguments, work_tree=tree, check=check)


def run_scrubbed(
    git_dir: Path,
    *arguments: str,
    work_tree: Path | None = None,
    given: bytes = b"",
    check: bool = True,
    index: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """Run `git ARGUMENTS` on the repository `git_dir`, which is ours, out of reach of everything of the user's.

    given: standard input. index: the name of another index file in `git_dir`. Raises ToolError, with git's words, when
    `check` and git fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_"))}
    where = work_tree or git_dir
    environment |= {
        "HOME": str(where.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(where.parent),
        "GIT_DIR": str(git_dir),
        "GIT_LITERAL_PATHSPECS": "1",
        "LC_ALL": "C",
        # For commits that only a merge in a scratch repository sees.
        **{f"GIT_{who}_{what}": "dsu-patches" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        **{f"GIT_{who}_DATE": "2000-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")},
        **({"GIT_WORK_TREE": str(work_tree)} if work_tree else {}),
        **({"GIT_INDEX_FILE": str(git_dir / index)} if index else {}),
    }
    settings = ("core.autocrlf=false", "core.safecrlf=false", "core.fileMode=false", "core.quotePath=false")
    fixed = [word for setting in settings for word in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *fixed, *arguments], cwd=where, env=environment, input=given, capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise _git_is_missing() from error
    if check and done.returncode:
        # Ended by a signal, as where a limit is met, it says nothing.
        said = done.stderr.decode(errors="replace").strip() or f"it ended with {done.returncode}"
        raise ToolError(f"git {arguments[0]} failed", said.splitlines(), [f"check the disk of {where}"])
    return done
