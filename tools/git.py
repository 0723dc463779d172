"""Runs git: fetches commits as the user configured it, and works on files in repositories of our own."""

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tools.errors import Next, NoSource, ToolError, UsageError, log
from tools.lock import is_path, without_secrets

_ANSWER, _FETCH = 8, 120  # seconds until a host lists its refs, and until a fetch is done
_NAMES = ("user.name=dsu-patches", "user.email=dsu-patches", "core.quotePath=false")
_SETTINGS = (*_NAMES, f"core.attributesFile={os.devnull}", f"core.hooksPath={os.devnull}")
# git's variables for reaching remotes. Others, as in a git hook, may name another repository.
_REACHING = re.compile("GIT_(CONFIG|SSH|SSL|PROXY|ASKPASS|HTTP|EXEC_PATH)")


class Commit(NamedTuple):
    """A commit: id, date, and its `*.py` files in some folders, bytes by path."""

    id: str
    date: str
    files: Mapping[str, bytes]


class Repo:
    """A repository of our own in `folder`; a new one where none is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / ".git").exists():
            folder.mkdir(parents=True, exist_ok=True)
            self.run("init", "--quiet", "--template=", "--initial-branch=main")

    @classmethod
    @contextmanager
    def temporary(cls) -> "Iterator[Repo]":
        """A repository that is removed after the block."""
        with tempfile.TemporaryDirectory(prefix="vendor-", ignore_cleanup_errors=True) as name:
            yield cls(Path(name))

    def run(self, *arguments: str, given: bytes = b"") -> bytes:
        """The standard output of `git ARGUMENTS`, without the user's configuration. Raises ToolError when it fails."""
        settings = {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            # Without it, git would look for a repository in the folders above.
            "GIT_DIR": ".git",
            "GIT_EDITOR": "true",
        }
        done = _run(self.folder, arguments, settings, given)
        if done.returncode:
            said = done.stderr.decode(errors="replace").splitlines()
            raise ToolError(f"git {arguments[0]} failed", said, [f"check the disk of {self.folder}"])
        return done.stdout

    def ask(self, *arguments: str) -> bytes | None:
        """As `run`, but None when it fails."""
        with suppress(ToolError):
            return self.run(*arguments)
        return None

    def fetch(self, url: str, commit: str, *, depth: int | None = 1) -> None:
        """Fetch `commit`; `depth` None: whole history. Raises NoSource, late for a dead host; ask for a `tip` first."""
        command = ("fetch", "--quiet", "--no-tags", "--update-shallow", "--no-recurse-submodules")
        try:
            _remote(self.folder, _FETCH, [*command, *([f"--depth={depth}"] if depth else [])], url, commit)
        except NoSource as error:
            if isinstance(error.__cause__, subprocess.TimeoutExpired):
                raise
            # Some servers refuse a commit id.
            _remote(self.folder, _FETCH, command, url, "+refs/heads/*:refs/heads/from/*", "+refs/tags/*:refs/tags/*")
        if not self.has(commit):
            raise _refused(url, f"it has no commit {commit}")

    def find(self, url: str, name: str, branch: str) -> str:
        """Fetch a branch, tag, id, or short id in `branch`; its commit id. Raises NoSource, and UsageError for none."""
        commit = tip(url, name) or name.lower()
        if re.fullmatch("[0-9a-f]{40}", commit):
            self.fetch(url, commit)
        elif re.fullmatch("[0-9a-f]{7,39}", commit) and (newest := tip(url, branch)):
            self.fetch(url, newest, depth=None)
        if (found := self.ask("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")) is None:
            text = f"no branch, tag or commit is called {name!r} in {url}; a short id has to be in branch {branch}"
            raise UsageError(text, next_steps=[f"git ls-remote {shlex.quote(url)}  # lists all branches and tags"])
        return found.decode().strip()

    def has(self, commit: str) -> bool:
        """Whether the repository has `commit`."""
        return self.ask("cat-file", "-e", f"{commit}^{{commit}}") is not None

    def date(self, commit: str) -> str:
        """The date of `commit`, ISO 8601."""
        # Newer versions of git write Z for +00:00.
        return self.run("show", "-s", "--format=%cI", commit).decode().strip().replace("Z", "+00:00")

    def read(self, commit: str, path: str) -> bytes | None:
        """The bytes of `path` at `commit`; None where there is no such file."""
        return self.ask("cat-file", "blob", f"{commit}:{path}")

    def files(self, commit: str, folders: Iterable[str]) -> dict[str, bytes]:
        """The regular `*.py` files directly in `folders` at `commit`, bytes by path; unsafe paths are left out."""
        listed = os.fsdecode(self.ask("ls-tree", "-z", commit, "--", *(f"{folder}/" for folder in folders)) or b"")
        blobs = re.findall(r"100(?:644|755) blob ([0-9a-f]+)\t([^\0]+\.py)\0", listed)
        return {path: self.run("cat-file", "blob", blob) for blob, path in blobs if is_path(path)}

    def commit(self, files: Mapping[str, bytes], message: str) -> str:
        """Commit `files` (bytes by path), and nothing else, on the current branch; the commit's id."""
        self.run("rm", "-r", "-f", "-q", "--ignore-unmatch", "--", ".")
        for path, data in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        self.run("add", "--all", "--force")
        self.run("commit", "--quiet", "--allow-empty", "-m", message)
        return self.run("rev-parse", "HEAD").decode().strip()

    def diff(self, path: str, old: bytes, new: bytes, context: int = 0) -> str:
        """The git diff from `old` to `new` with full blob ids; "" for equal ones. Not UTF-8 comes as surrogates."""
        if old == new:
            return ""
        blobs = [self.run("hash-object", "-w", "--stdin", given=data).decode().strip() for data in (old, new)]
        text = self.run("diff", "--text", f"-U{context}", "--minimal", "--no-color", *blobs)
        _, mark, hunks = text.decode(errors="surrogateescape").partition("\n@@ ")
        if not context:
            # Hunk headers quote a line of the file.
            hunks = re.sub(r"((?:\A|^@@ )-[0-9,]+ \+[0-9,]+ @@).*$", r"\1", hunks, flags=re.MULTILINE)
        head = f"diff --git a/{path} b/{path}\nindex {'..'.join(blobs)} 100644\n--- a/{path}\n+++ b/{path}"
        return head + mark + hunks


def commit(place: str, name: str, branch: str, folders: Iterable[str], *, offline: bool) -> Commit:
    """The commit that `name` means at `place`, with its files in `folders`. Raises as `address` and `Repo.find` do."""
    url = address(place, offline=offline)
    log.info(f"git {url}: reading {name[:12]}")
    with Repo.temporary() as repo:
        found = repo.find(url, name, branch)
        return Commit(found, repo.date(found), repo.files(found, folders))


def tip(url: str, name: str) -> str | None:
    """The commit id of the branch, tag or HEAD `name` at `url`; None for none. Raises NoSource."""
    # The first match counts. `^{}` gives the commit of an annotated tag.
    refs = [f"{name}^{{}}", name, f"refs/heads/{name}", f"refs/tags/{name}^{{}}", f"refs/tags/{name}"]
    lines = _remote(Path(tempfile.gettempdir()), _ANSWER, ["ls-remote"], url, *refs).splitlines()
    found = {ref: commit for commit, _, ref in (line.partition("\t") for line in lines)}
    return next((found[ref] for ref in refs if ref in found), None)


def local(place: str) -> Path | None:
    """The whole path of `place` where it exists on this machine, else None."""
    # RuntimeError: `~name` of an unknown user.
    with suppress(OSError, RuntimeError):
        return Path(place).expanduser().resolve(strict=True)
    return None


def is_url(place: str) -> bool:
    """Whether `place` is written as a URL or as SSH's host:path; Windows has drives with one letter."""
    return bool(re.match(r"[^/\\:]{2,}:", place))


def is_local(place: str) -> bool:
    """Whether git reads `place`, a URL or path, on this machine."""
    return local(place) is not None or place.startswith("file://")


def address(place: str, *, offline: bool) -> str:
    """What git is given for `place`, a URL or path. Raises NoSource for a remote one when offline."""
    if offline and not is_local(place):
        step = Next("", "asks the network", {"offline": None})
        raise NoSource(f"git {place} is not asked, offline", next_steps=[step])
    return str(local(place) or place)


def _remote(folder: Path, seconds: float, command: Iterable[str], url: str, *refs: str) -> str:
    """What git says of `refs` at `url`, with the user's git configuration. Raises NoSource."""
    settings = {name: text for name, text in os.environ.items() if _REACHING.match(name)} | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_HTTP_LOW_SPEED_LIMIT": "1",
        "GIT_HTTP_LOW_SPEED_TIME": str(_ANSWER),
        # Any other transport runs a program. This wins over `protocol.*.allow`, also for `insteadOf` and redirects.
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
    }
    try:
        done = _run(folder, [*command, "--", url, *refs], settings, limit=seconds)
    except subprocess.TimeoutExpired as error:
        raise _refused(url, f"no answer within {seconds:.0f} s") from error
    if done.returncode:
        said = without_secrets(done.stderr.decode(errors="replace")).splitlines()
        reasons = [line for line in said if re.match("(fatal|error|remote):", line)]
        raise _refused(url, "; ".join(reasons)[:300] or f"git exited with {done.returncode}")
    return done.stdout.decode(errors="replace")


def _refused(url: str, why: str) -> NoSource:
    step = f"git config --global url.FOLDER.insteadOf {shlex.quote(url)}  # makes git use a clone in FOLDER"
    return NoSource(f"git {url} failed", [why], [step] if is_url(url) else [])


def _run(
    folder: Path, arguments: Iterable[str], settings: Mapping[str, str], given: bytes = b"", limit: float | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run git in `folder`, with no GIT_ variables except `settings`."""
    command = ["git", *(word for setting in _SETTINGS for word in ("-c", setting)), *arguments]
    others = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    env = {**others, **settings, "LC_ALL": "C"}
    try:
        # A new session: Ctrl-C does not reach git, and ssh has no terminal to ask for a password.
        return subprocess.run(
            command, input=given, capture_output=True, cwd=folder, env=env, timeout=limit, start_new_session=True
        )
    except FileNotFoundError as error:
        raise ToolError("git was not found", next_steps=["install git and put it on PATH"]) from error
