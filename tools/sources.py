"""Gets the pinned files from any source: patches, git, URLs of single files, a package index.

A file is accepted for its SHA-256 alone, wherever it comes from.
"""

import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from tools import git, pieces
from tools.errors import Next, NoSource, ToolError, UsageError, log
from tools.files import sha256
from tools.lock import PATCHES, Lock, Pin, PinnedFile, without_secrets
from tools.patch import parse
from tools.project import Project
from tools.store import Store

# Seconds to connect to a host, and between two bytes from it.
_PATIENCE = (3.0, 5.0)
# Seconds for a whole file, and for pip to get one wheel.
_FILE, _PIP = 10, 40
# The most bytes of a file that are read from a host.
_LARGEST = 4 * 1024 * 1024
_STORE = "the store"
Answers = Iterator[tuple[PinnedFile, bytes | str]]


class Source(NamedTuple):
    """A place that may have pinned files. local: it needs no network.

    serve: yields each wanted file with bytes, or with the reason why there are none. Raises NoSource to give up.
    """

    name: str
    local: bool
    serve: Callable[[Sequence[PinnedFile]], Answers]


def _from_store(store: Store, wanted: Sequence[PinnedFile]) -> Answers:
    """Copies of files that were had before."""
    yield from ((file, data) for file in wanted if (data := store.get(file.upstream)) is not None)


def _from_patches(root: Path, wanted: Sequence[PinnedFile]) -> Answers:
    """Patches that remove every line of their file, and so contain it."""
    for file in wanted:
        # A faulty patch is reported where it is applied.
        with suppress(OSError, ToolError):
            patch = parse(file.patch, (root / PATCHES / file.patch).read_bytes())
            if patch.whole_base is not None:
                yield file, patch.whole_base


def _from_git(place: str, pin: Pin, wanted: Sequence[PinnedFile]) -> Answers:
    """The pinned commit of a repository or bundle at `place`, a path or URL."""
    try:
        where = git.address(place, offline=False)
        git.tip(where, "HEAD")
        with git.Repo.temporary() as repo:
            repo.fetch(where, pin.commit)
            for file in wanted:
                data = repo.read(pin.commit, file.path)
                yield file, f"is not in commit {pin.commit[:12]}" if data is None else data
    except ToolError as error:
        configs = [path for path in (Path(place, ".git/config"), Path(place, "config")) if path.is_file()]
        if any("promisor = true" in path.read_text(errors="replace") for path in configs):
            step = f"git -C {shlex.quote(place)} fetch --refetch --no-filter"
            raise NoSource(f"is a partial clone, which lacks files; `{step}` gets them") from error
        raise NoSource("; ".join(error.findings) or error.message) from error


def _from_folder(folder: Path, wanted: Sequence[PinnedFile]) -> Answers:
    """A folder with upstream's files, such as an unpacked archive."""
    for file in wanted:
        path = folder / file.path
        yield file, path.read_bytes() if path.is_file() else "is not there"


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
            text = file.pieces
            yield file, pieces.assemble(text, found.members) if text else "the lock lists no pieces"
        except ValueError as error:
            yield file, "; ".join(found.faults) or str(error)


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
    repository, pin = on_github(lock.pin.url), lock.pin
    templates = [text for text in lock.decisions.raw if repository or "{repository}" not in text]
    urls = [text.replace("{repository}", repository or "") for text in templates]
    return [
        Source(_STORE, True, partial(_from_store, project.store)),
        Source("patches", True, partial(_from_patches, project.root)),
        *([given(project.upstream, lock)] if project.upstream else []),
        Source(f"git {pin.url}", pin.url.startswith("file://"), partial(_from_git, pin.url, pin)),
        *(Source(f"raw {urlsplit(url).netloc}", False, partial(_from_urls, url, pin.commit)) for url in urls),
        *([Source("index", False, partial(_from_index, lock.wheels))] if lock.wheels else []),
    ]


def given(upstream: str, lock: Lock) -> Source:
    """The source that UPSTREAM= names. Raises UsageError for a path that does not exist or has none of its files."""
    name, path = f"UPSTREAM {without_secrets(upstream)}", git.local(upstream)
    # SSH has host:path; Windows has drives with one letter.
    if not path and re.match(r"[^/\\:]{2,}:", upstream):
        return Source(name, upstream.startswith("file://"), partial(_from_git, upstream, lock.pin))
    if path and (path.is_file() or (path / ".git").exists() or (path / "HEAD").is_file()):
        return Source(name, True, partial(_from_git, str(path), lock.pin))
    if path and any((path / folder).is_dir() for folder in lock.decisions.components.values()):
        return Source(name, True, partial(_from_folder, path))
    why = f"{path} is no repository, and has no component" if path else f"{upstream} does not exist"
    takes = "UPSTREAM= takes a repository, a bundle, a folder with upstream's files, or a URL"
    raise UsageError(why, next_steps=[takes])


def on_github(url: str) -> str | None:
    """OWNER/NAME of a repository on GitHub, else None."""
    host = r"(?:https?://|ssh://git@|git@)github\.com[/:]"
    found = re.fullmatch(host + r"([\w.-]+/[\w.-]+?)(?:\.git)?/?", without_secrets(url))
    return found[1] if found else None


class Pinned(NamedTuple):
    """Pinned files: bytes by path, and their number from each source."""

    files: dict[str, bytes]
    origins: Counter[str]

    @property
    def summary(self) -> str:
        """Files per source, such as "10 from the store, 4 from index"."""
        return ", ".join(f"{count} from {origin}" for origin, count in self.origins.items())


def pinned(project: Project, lock: Lock, files: Iterable[PinnedFile]) -> Pinned:
    """The bytes of all `files`, from the store and then from each source in turn; wrong bytes are reported.

    Raises NoSource for files that no source has, and UsageError as `given` does.
    """
    found, missing, said = Pinned({}, Counter()), [*files], []
    for source in sources_for(project, lock):
        if missing and project.offline and not source.local:
            said.append(f"{source.name}: not asked, offline")
        elif missing:
            said += _ask(source, missing, found, project.store)
            missing = [file for file in missing if file.path not in found.files]
    if missing:
        steps = [Next("vendor", "asks the network", {"offline": None})] if project.offline else []
        raise NoSource(
            f"{len(missing)} of {len(missing) + len(found.files)} pinned files were not found",
            [*sorted(f"missing: {it.path}" for it in missing), *said],
            [*steps, Next("vendor", "uses your own copy of upstream", {"upstream": "PATH"})],
        )
    return found


def _ask(source: Source, wanted: Sequence[PinnedFile], found: Pinned, store: Store) -> list[str]:
    """Add to `found` and `store` what `source` has of `wanted`; a line for each reason that files are missing."""
    if source.name not in (_STORE, "patches"):
        log.info(f"{source.name}: asking for {len(wanted)} files")
    refusals: dict[str, list[str]] = {}
    try:
        for file, answer in source.serve(wanted):
            if isinstance(answer, bytes) and sha256(answer) == file.upstream:
                store.put(answer)
                found.files[file.path] = answer
                found.origins[source.name] += 1
                continue
            if isinstance(answer, bytes):
                answer = f"wrong bytes ({len(answer)}, SHA-256 {sha256(answer)}), wanted {file.upstream}"
                log.warning(f"{source.name}: {file.path}: {answer}")
            refusals.setdefault(answer, []).append(file.path)
    except NoSource as error:
        refusals[str(error)] = []
    for why, paths in refusals.items():
        log.info(f"{source.name}: {f'{len(paths)} files: ' if paths else ''}{why}")
    return [": ".join(filter(None, (source.name, ", ".join(paths), why))) for why, paths in refusals.items()]
