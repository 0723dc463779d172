"""Gets pinned files from any source (patches, git, URLs of single files, a package index), by their SHA-256 alone."""

import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import attrs

from tools import git, pieces
from tools.errors import Next, NoSource, ToolError, UsageError, log
from tools.files import sha256
from tools.lock import PATCHES, Lock, Pin, PinnedFile, load, without_secrets
from tools.patch import parse
from tools.store import Store

_PATIENCE = (3.0, 5.0)  # seconds to connect to a host, and between two bytes from it
_FILE, _PIP = 10, 40  # seconds for a whole file, and for pip to get one wheel
_LARGEST = 4 * 1024 * 1024  # bytes of a file
Answers = Iterator[tuple[PinnedFile, bytes | str]]


@attrs.frozen
class Project:
    """root: has upstream.lock and patches/. tree: has models/. upstream: asked first."""

    root: Path
    store: Store
    tree: Path
    upstream: str | None = None
    offline: bool = False

    @cached_property
    def lock(self) -> Lock:
        """The lock, read on first use. Raises UsageError as `lock.load` does."""
        return load(self.root)


class Source(NamedTuple):
    """A place for files. serve: yields them with bytes, or with why there are none; raises NoSource to give up."""

    name: str
    local: bool
    serve: Callable[[Sequence[PinnedFile]], Answers]


def _from_patches(root: Path, wanted: Sequence[PinnedFile]) -> Answers:
    """Patches that remove every line of their file, and so contain it."""
    for file in (file for file in wanted if file.patch):
        # A faulty patch is reported where it is applied.
        with suppress(OSError, ToolError):
            patch = parse(file.patch, (root / PATCHES / file.patch).read_bytes())
            if patch.whole_base is not None:
                yield file, patch.whole_base


def _from_git(place: str, pin: Pin, wanted: Sequence[PinnedFile]) -> Answers:
    """The pinned commit of a repository or bundle at `place`, a path or URL."""
    where = git.address(place, offline=False)
    try:
        git.tip(where, "HEAD")
        with git.Repo.temporary() as repo:
            repo.fetch(where, pin.commit)
            for file in wanted:
                data = repo.read(pin.commit, file.path)
                yield file, f"commit {pin.commit[:12]} has no {file.path}" if data is None else data
    except ToolError as error:
        configs = [path for path in (Path(where, ".git/config"), Path(where, "config")) if path.is_file()]
        if any("promisor = true" in path.read_text(errors="replace") for path in configs):
            step = f"git -C {shlex.quote(where)} fetch --refetch --no-filter"
            raise NoSource(f"is a partial clone, which lacks files; `{step}` gets them") from error
        raise NoSource("; ".join(error.findings) or error.message) from error


def _from_folder(folder: Path, wanted: Sequence[PinnedFile]) -> Answers:
    """A folder with upstream's files, such as an unpacked archive."""
    for file in wanted:
        try:
            yield file, (folder / file.path).read_bytes()
        except OSError as error:
            yield file, f"{file.path}: {error.strerror}"


def _from_urls(template: str, commit: str, wanted: Sequence[PinnedFile]) -> Answers:
    """One URL for each file, from a template with {commit}, {path} and {sha256}."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import HTTPError
    from urllib3.util import Retry

    # A host may say "retry in an hour"; the next source answers now.
    busy = (429, 500, 502, 503, 504)
    retry = Retry(2, 0, 0, status_forcelist=busy, backoff_factor=0.3, respect_retry_after_header=False)
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        for file in wanted:
            url = template.replace("{commit}", commit).replace("{sha256}", file.upstream)
            try:
                with session.get(url.replace("{path}", quote(file.path)), timeout=_PATIENCE, stream=True) as answer:
                    yield file, _body(answer.raw) if answer.status_code == 200 else f"answered {answer.status_code}"
            except (OSError, ValueError, HTTPError) as error:
                # The host does not work; asking for every other file would take minutes.
                why = str(error).rpartition(": ")[2].strip("'\")")
                raise NoSource(f"{type(error).__name__}: {why[:200]}") from error


def _body(raw: Any) -> bytes:
    """The body of an answer, cut off at _LARGEST. Raises ValueError when it takes longer than _FILE."""
    data, until = b"", time.monotonic() + _FILE
    while len(data) < _LARGEST and (more := raw.read1(_LARGEST - len(data))):
        data += more
        if time.monotonic() > until:
            raise ValueError(f"not done after {_FILE} s")
    return data


def _from_index(wheels: Mapping[str, str], wanted: Sequence[PinnedFile]) -> Answers:
    """Wheels (SHA-256 by NAME==VERSION) of pip's package index; files are built from pieces of them."""
    found = download(wheels)
    for file in wanted:
        try:
            yield file, pieces.assemble(file.pieces, found.members)
        except (ValueError, IndexError) as error:
            yield file, "; ".join(found.faults) or f"{file.path}: {error}"


class Wheels(NamedTuple):
    """Downloaded wheels: SHA-256 by NAME==VERSION, Python files by member, and faults."""

    hashes: dict[str, str]
    members: dict[str, bytes]
    faults: list[str]


def download(wheels: Mapping[str, str]) -> Wheels:
    """Download wheels with the user's pip; a wrong SHA-256 is a fault ("" takes any)."""
    found = Wheels({}, {}, [])
    with tempfile.TemporaryDirectory(prefix="vendor-") as folder, ThreadPoolExecutor() as pool:
        for wheel, job in {wheel: pool.submit(_pip, wheel, Path(folder, wheel)) for wheel in wheels}.items():
            try:
                found.hashes[wheel] = sha256(data := job.result())
                if wheels[wheel] not in ("", found.hashes[wheel]):
                    raise ValueError(f"the wheel's SHA-256 is {found.hashes[wheel]}, not {wheels[wheel]}")
                found.members.update(pieces.python_members(data, wheel.partition("==")[0]))
            except ValueError as error:
                found.faults.append(f"{wheel}: {error}")
    return found


def _pip(wheel: str, to: Path) -> bytes:
    """The bytes of a wheel that pip downloads to the folder `to`. Raises ValueError with the reason for none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    # By default pip tries six times for 15 s each, which takes minutes with a dead index.
    command += ["--retries", "1", "--timeout", "6", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--dest", str(to), wheel]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PIP)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"pip was not done after {_PIP} s") from error
    if done.returncode:
        lines = without_secrets(done.stderr).splitlines() or ["pip did not say why"]
        # After "ERROR: Exception:" comes a traceback, whose last line has the reason.
        errors = [line for line in lines if re.match("ERROR: (?!Exception:)", line)]
        raise ValueError((errors or lines)[-1].removeprefix("ERROR: "))
    return next(to.glob("*.whl")).read_bytes()


def sources_for(project: Project, lock: Lock) -> list[Source]:
    """The sources, in the order that they are asked in. Raises UsageError as `given` does."""
    pin, raw, repository = lock.pin, lock.decisions.raw, on_github(lock.pin.url) or ""
    urls = [text.replace("{repository}", repository) for text in raw if repository or "{repository}" not in text]
    return [
        Source("patches", True, partial(_from_patches, project.root)),
        *([given(project.upstream, lock)] if project.upstream else []),
        Source(f"git {pin.url}", git.is_local(pin.url), partial(_from_git, pin.url, pin)),
        *(Source(f"raw {urlsplit(url).netloc}", False, partial(_from_urls, url, pin.commit)) for url in urls),
        *([Source("index", False, partial(_from_index, lock.wheels))] if lock.wheels else []),
    ]


def given(upstream: str, lock: Lock) -> Source:
    """The source that UPSTREAM= names. Raises UsageError for a path that does not exist or has none of its files."""
    name, path = f"UPSTREAM {without_secrets(upstream)}", git.local(upstream)
    remote = not path and git.is_url(upstream)
    if remote or (path and (path.is_file() or (path / ".git").exists() or (path / "HEAD").is_file())):
        return Source(name, git.is_local(upstream), partial(_from_git, upstream, lock.pin))
    if path and any((path / folder).is_dir() for folder in lock.decisions.components.values()):
        return Source(name, True, partial(_from_folder, path))
    why = f"{path} is no repository, and has no component" if path else f"{upstream} does not exist"
    raise UsageError(why, next_steps=["UPSTREAM= takes a clone, a bundle, a URL, or a folder with upstream's files"])


def on_github(url: str) -> str | None:
    """OWNER/NAME of a repository on GitHub, else None."""
    host, name = r"(?:https?://|ssh://git@|git@)github\.com[/:]", r"([\w.-]+/[\w.-]+?)(?:\.git)?/?"
    return found[1] if (found := re.fullmatch(host + name, without_secrets(url))) else None


class Pinned(NamedTuple):
    """Pinned files, bytes by path; and where they came from, such as "10 from the store, 4 from index"."""

    files: dict[str, bytes]
    summary: str


def pinned(project: Project, lock: Lock, files: Collection[PinnedFile]) -> Pinned:
    """The bytes of `files`, from the store and then each source in turn; wrong ones are reported. Raises NoSource."""
    stored = {file.path: project.store.get(file.upstream) for file in files}
    found = {path: data for path, data in stored.items() if data is not None}
    origins, said = [(len(found), "the store")], []
    for source in sources_for(project, lock):
        missing = [file for file in files if file.path not in found]
        if missing and project.offline and not source.local:
            said.append(f"{source.name}: not asked, offline")
        elif missing:
            had, why = _ask(source, missing, project.store)
            found |= had
            origins.append((len(had), source.name))
            said += why
    if lacking := sorted(f"missing: {file.path}" for file in files if file.path not in found):
        steps = [Next("", "asks the network", {"offline": None})] if project.offline else []
        steps.append(Next("", "uses your own copy of upstream", {"upstream": "PATH"}))
        raise NoSource(f"{len(lacking)} of {len(files)} pinned files were not found", [*lacking, *said], steps)
    return Pinned(found, ", ".join(f"{count} from {name}" for count, name in origins if count))


def _ask(source: Source, wanted: Sequence[PinnedFile], store: Store) -> tuple[dict[str, bytes], list[str]]:
    """What `source` has of `wanted`, by path, also put into `store`; a line for each reason that files are missing."""
    if not source.local:
        log.info(f"{source.name}: asking for {len(wanted)} files")
    found: dict[str, bytes] = {}
    reasons: dict[str, Callable[[str], None]] = {}
    try:
        for file, answer in source.serve(wanted):
            if isinstance(answer, bytes) and sha256(answer) == file.upstream:
                store.put(answer)
                found[file.path] = answer
                continue
            if isinstance(answer, bytes):
                answer = f"{file.path}: wrong bytes ({len(answer)}, SHA-256 {sha256(answer)}), wanted {file.upstream}"
                reasons[answer] = log.warning
            reasons.setdefault(answer, log.info)
    except NoSource as error:
        reasons[str(error)] = log.info
    for why, say in reasons.items():
        say(f"{source.name}: {why}")
    return found, [f"{source.name}: {why}" for why in reasons]
