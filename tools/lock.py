"""upstream.lock as frozen values: what is pinned, what is patched, and where bytes may be had.

The file is read with `tomllib` and checked here in full, so that nothing past this module has to doubt it. Writing it
is `relock.py`'s job.
"""

import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tools.addresses import raw_fault, repository_fault
from tools.errors import MalformedLock, UsageError
from tools.hashes import sha256
from tools.limits import LARGEST_LOCK, read_small
from tools.pieces import members_of
from tools.toml_lines import TomlLines

SCHEMA = 1
LOCK_NAME = "upstream.lock"
PATCH_DIR = "patches"
ABSENT = "absent"
# What Windows takes for a device, in any folder and before any extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
# tomllib takes quadratic time for a key of many parts, and no line of a lock needs more.
_MOST_DOTS = 500
_DOTTED = re.compile(rf"^(?:[^.\n]*\.){{{_MOST_DOTS + 1}}}", re.MULTILINE)
# What stands in a tree beside the components: the manifest, the file that a run holds it by, what is being swapped.
_OURS = re.compile(r"provenance\.json(/.*)?|\.+provenance\.json.*|(.*/)?\.([^/]*\.)?dsu-.*", re.IGNORECASE)
_HOLE = re.compile(r"\{(?:commit|path|sha256)\}")


@dataclass(frozen=True)
class Pin:
    """A commit of a repository: clone URL, branch it was found on, full commit id, commit date (ISO 8601)."""

    url: str
    branch: str
    commit: str
    date: str


@dataclass(frozen=True)
class PinnedFile:
    """A path and the hashes of its bytes at the pin.

    `pieces` puts it together from the wheels of an index (see `pieces.py`), "" where they do not give it. `baseline`
    is the blob id of the same path at the baseline, ABSENT where it has none, "" where the lock does not say;
    `baseline_sha256` goes with an id.
    """

    path: str
    sha256: str
    blob: str
    pieces: str = ""
    baseline: str = ""
    baseline_sha256: str = ""


@dataclass(frozen=True)
class Component:
    """A folder whose pinned files work as a whole. `files` is in lock order."""

    name: str
    path: str
    files: tuple[PinnedFile, ...]


@dataclass(frozen=True)
class LockedPatch:
    """Our change to one pinned file: patch file and its SHA-256, base blob, result blob and result SHA-256."""

    file: str
    target: str
    sha256: str
    base: str
    result: str
    result_sha256: str


@dataclass(frozen=True)
class GitSpec:
    """The git source: the pin's own URL."""


@dataclass(frozen=True)
class RawSpec:
    """Per-file URLs; `url` holds `{sha256}`, or `{commit}` and `{path}`."""

    url: str


@dataclass(frozen=True)
class Wheel:
    """An exact release on a package index, and the SHA-256 of its wheel."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class IndexSpec:
    """Wheels that hold pieces of the pinned files."""

    wheels: tuple[Wheel, ...]


SourceSpec = GitSpec | RawSpec | IndexSpec


@dataclass(frozen=True)
class Lock:
    """All of upstream.lock."""

    pin: Pin
    baseline: Pin
    components: tuple[Component, ...]
    patches: tuple[LockedPatch, ...]
    sources: tuple[SourceSpec, ...]

    @property
    def files(self) -> tuple[PinnedFile, ...]:
        """Every pinned file, component by component."""
        return tuple(file for component in self.components for file in component.files)

    def patch_for(self, path: str) -> LockedPatch | None:
        """The patch whose target is `path`, if there is one."""
        return next((patch for patch in self.patches if patch.target == path), None)

    def expected_sha256(self, file: PinnedFile) -> str:
        """The SHA-256 `file` has in a vendored tree: its patch's result, or its own."""
        patch = self.patch_for(file.path)
        return patch.result_sha256 if patch else file.sha256

    @property
    def tree_sha256(self) -> str:
        """One hash for what a whole vendored tree holds."""
        return sha256("".join(f"{self.expected_sha256(file)}  {file.path}\n" for file in self.files).encode())

    def select(self, names: Iterable[str]) -> tuple[Component, ...]:
        """The components called `names`, in lock order; all of them for no names.

        Raises UsageError for a name the lock does not have.
        """
        wanted = list(names)
        known = {component.name for component in self.components}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise UsageError(
                f"no component is called {', '.join(map(repr, unknown))}",
                next_steps=[f"choose from: {', '.join(sorted(known))}"],
            )
        return tuple(component for component in self.components if not wanted or component.name in wanted)


def is_called(path: str, name: str) -> bool:
    """Whether a person who says `name` may mean `path`: it is the path, or its end from the start of a part on."""
    return f"/{path}".endswith(f"/{name}")


def words_in(text: str) -> list[str]:
    """The names in a list such as `DROP="a, b c"`, between commas and blanks."""
    return text.replace(",", " ").split()


def path_fault(path: str) -> str | None:
    """Why `path` may not be written below a tree, or None. The one rule for paths from locks and patches."""
    parts = path.split("/")
    if not path or path.startswith("/"):
        return "is not a relative path"
    if "\\" in path:
        return "has a backslash"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty, '.' or '..' part"
    # The second is what Windows calls the first in eight letters.
    if any(part.lower().rstrip(". ") in (".git", "git~1") for part in parts):
        return "reaches into .git"
    # Not printable: control characters, and the invisible ones that some file systems pass over. A colon means a drive
    # or a stream on Windows.
    if any(not char.isprintable() or char in '":' for char in path):
        return "has an invisible character, a quote or a colon"
    # What Windows cannot write, or writes under another name.
    if any(char in "<>|?*" for char in path):
        return "has a character that Windows allows in no name"
    if any(part.endswith((".", " ")) for part in parts):
        return "has a part that ends with a dot or a blank"
    if any(_DEVICE.fullmatch(part) for part in parts):
        return "has a part that is a device on Windows"
    return None


def _vendored_fault(path: str) -> str | None:
    """Why a pinned file may not be vendored to `path`, or a component, or None."""
    return path_fault(path) or ("is a name that these tools keep for themselves" if _OURS.fullmatch(path) else None)


def _same_name(path: str) -> str:
    """Equal for two paths that Windows or macOS takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


_TEXT = "a non-empty string without control characters"


class _Table:
    """One TOML table being read: hands out checked values and notes every key that nobody asked for."""

    def __init__(self, reader: "_Reader", value: Any, *path: str | int) -> None:
        self.reader = reader
        self.path = path
        if not isinstance(value, dict):
            reader.fault(path, "should be a table")
            value = {}
        self.value: dict[str, Any] = value
        self.asked: set[str] = set()

    def fault(self, key: str, text: str) -> None:
        self.reader.fault((*self.path, key), text)

    def text(self, key: str, pattern: str = r"[^\x00-\x1f\x7f-\x9f]+", what: str = _TEXT) -> str:
        self.asked.add(key)
        found = self.value.get(key)
        if found is None:
            self.fault(key, f"{key} is missing")
        elif not isinstance(found, str) or not re.fullmatch(pattern, found):
            self.fault(key, f"{key} should be {what}, is {_shown(found)}")
        else:
            return found
        return ""

    def sha256(self, key: str) -> str:
        return self.text(key, r"[0-9a-f]{64}", "a SHA-256 of 64 lower-case hex digits")

    def git_id(self, key: str) -> str:
        return self.text(key, r"[0-9a-f]{40}", "a git id of 40 lower-case hex digits")

    def tree_path(self, key: str, fault_of: Callable[[str], str | None] = path_fault) -> str:
        path = self.text(key)
        if path and (why := fault_of(path)):
            self.fault(key, f"{key} {path!r} {why}")
        return path

    def address(self, key: str, fault_of: Callable[[str], str | None]) -> str:
        url = self.text(key, r"(?s).+", "a non-empty string")
        if url and (why := fault_of(url)):
            self.fault(key, f"{key} {_shown(url)} {why}")
        return url

    def texts(self, key: str) -> list[str]:
        self.asked.add(key)
        found = self.value.get(key, [])
        if not isinstance(found, list) or not all(isinstance(item, str) and item.strip() for item in found):
            self.fault(key, f"{key} should be a list of non-empty strings")
            return []
        return found

    def table(self, key: str) -> "_Table":
        self.asked.add(key)
        if key not in self.value:
            self.fault(key, f"[{key}] is missing")
        return _Table(self.reader, self.value.get(key, {}), *self.path, key)

    def tables(self, key: str) -> list["_Table"]:
        self.asked.add(key)
        found = self.value.get(key, [])
        if not isinstance(found, list):
            self.fault(key, f"{key} should be an array of tables, [[{key}]]")
            return []
        return [_Table(self.reader, item, *self.path, key, position) for position, item in enumerate(found)]

    def done(self) -> None:
        for key in self.value:
            if key not in self.asked:
                self.fault(key, f"unknown key {key!r}")


def _shown(value: object) -> str:
    """A value from the lock as a message shows it: short, whatever somebody wrote there."""
    if isinstance(value, str):
        return repr(value[:100])
    # Python refuses to write out an integer of thousands of digits.
    small = value is None or (isinstance(value, int) and abs(value) < 10**9)
    return repr(value) if small else f"of type {type(value).__name__}"


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = TomlLines(text)
        self.faults: list[tuple[int, str]] = []
        self.spelled: dict[str, str] = {}

    def fault(self, path: Sequence[str | int], text: str) -> None:
        self.faults.append((self.lines.find(path), text))

    def unmistakable(self, table: _Table, key: str, path: str) -> None:
        """Fault `path` when it or a folder on its way stood here before, spelled in a way that not all disks tell."""
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            here = "/".join(parts[:end])
            if (other := self.spelled.setdefault(_same_name(here), here)) != here:
                table.fault(key, f"{here} and {other} are one name on Windows and macOS")
                return

    def pin(self, table: _Table) -> Pin:
        pin = Pin(
            url=table.address("url", repository_fault),
            branch=table.text("branch", r"(?!-)[^\x00-\x20\x7f-\x9f~^:?*\[\\]+", "a non-empty string, a branch's name"),
            commit=table.git_id("commit"),
            date=table.text("date"),
        )
        table.done()
        return pin

    def files(self, top: _Table) -> dict[str, PinnedFile]:
        files: dict[str, PinnedFile] = {}
        for table in top.tables("files"):
            file = PinnedFile(
                path=table.tree_path("path", _vendored_fault),
                sha256=table.sha256("sha256"),
                blob=table.git_id("blob"),
                pieces=self.pieces(table),
                **self.baseline(table),
            )
            same = (file.baseline == file.blob, file.baseline_sha256 == file.sha256)
            if file.baseline_sha256 and any(same) and not all(same):
                table.fault("baseline", "baseline and baseline_sha256 disagree on whether it is the pinned file")
            if file.path in files:
                table.fault("path", f"{file.path} is listed twice")
            self.unmistakable(table, "path", file.path)
            files[file.path] = file
            table.done()
        return files

    def pieces(self, table: _Table) -> str:
        if "pieces" not in table.value:
            return ""
        # In one line, however the lock breaks it.
        text = " ".join(table.text("pieces", r"(?s).+", "a non-empty string").split())
        try:
            members_of(text)
        except ValueError as error:
            table.fault("pieces", str(error))
        return text

    def baseline(self, table: _Table) -> dict[str, str]:
        """What one [[files]] table says of the baseline: nothing, that the file is absent there, or both its hashes."""
        if "baseline" not in table.value:
            return {}
        blob = table.text(
            "baseline", rf"[0-9a-f]{{40}}|{ABSENT}", f'a git id of 40 lower-case hex digits or "{ABSENT}"'
        )
        if blob == ABSENT:
            return {"baseline": blob}
        return {"baseline": blob, "baseline_sha256": table.sha256("baseline_sha256")}

    def components(self, top: _Table, files: Mapping[str, PinnedFile]) -> tuple[Component, ...]:
        found = []
        claimed: set[str] = set()
        group = top.table("components")
        folders = {part.get("path") for part in group.value.values() if isinstance(part, dict)} - {None}
        for name in group.value:
            table = group.table(name)
            folder = table.tree_path("path", _vendored_fault)
            members = []
            for short in table.texts("files"):
                path = f"{folder}/{short}"
                if "/" in short or path_fault(path):
                    table.fault("files", f"{short!r} is outside its component's folder {folder}")
                elif path in claimed:
                    table.fault("files", f"{path} is listed twice")
                elif path not in files:
                    table.fault("files", f"{path} is missing: it has no [[files]] entry")
                else:
                    members.append(files[path])
                claimed.add(path)
            if not members:
                table.fault("files", f"component {name} has no files")
            if PurePosixPath(folder).name != name:
                table.fault("path", f"component {name} should end its path with its name, has {folder!r}")
            for around in map(str, PurePosixPath(folder).parents):
                if around in folders:
                    table.fault("path", f"{folder} lies inside component {PurePosixPath(around).name}")
            table.done()
            found.append(Component(name, folder, tuple(members)))
        if not group.value and "components" in top.value:
            top.fault("components", "no components are listed")
        for position, path in enumerate(files):
            if path not in claimed:
                self.fault(("files", position), f"{path} is outside every component")
        return tuple(found)

    def patches(self, top: _Table, files: Mapping[str, PinnedFile]) -> tuple[LockedPatch, ...]:
        found: list[LockedPatch] = []
        seen: set[tuple[str, str]] = set()
        for table in top.tables("patches"):
            patch = LockedPatch(
                file=table.tree_path("file"),
                target=table.tree_path("target"),
                sha256=table.sha256("sha256"),
                base=table.git_id("base"),
                result=table.git_id("result"),
                result_sha256=table.sha256("result_sha256"),
            )
            if not re.fullmatch(rf"{PATCH_DIR}/[^/]+\.patch", patch.file):
                table.fault("file", f"{patch.file!r} is not {PATCH_DIR}/<name>.patch")
            self.unmistakable(table, "file", patch.file)
            if ("file", patch.file) in seen:
                table.fault("file", f"{patch.file} is listed twice")
            if ("target", patch.target) in seen:
                table.fault("target", f"{patch.target} has a second patch")
            seen |= {("file", patch.file), ("target", patch.target)}
            target = files.get(patch.target)
            if target is None:
                table.fault("target", f"{patch.file} is unused: {patch.target!r} is no pinned file")
            elif patch.base and target.blob != patch.base:
                table.fault("base", f"{patch.file} has base {patch.base}, but {target.path} is pinned at {target.blob}")
            table.done()
            found.append(patch)
        return tuple(found)

    def sources(self, top: _Table) -> tuple[SourceSpec, ...]:
        found: list[SourceSpec] = []
        tables = top.tables("sources")
        for table in tables:
            kind = table.text("kind", "git|raw|index", "git, raw or index")
            if kind == "git":
                found.append(GitSpec())
            elif kind == "raw":
                url = table.address("url", raw_fault)
                holes = {*_HOLE.findall(url)}
                enough = "{sha256}" in holes or holes >= {"{commit}", "{path}"}
                if url and (not enough or re.search("[{}]", _HOLE.sub("", url))):
                    wanted = "{sha256}, or {commit} and {path}, and no other brace"
                    table.fault("url", f"url should hold {wanted}, is {url!r}")
                found.append(RawSpec(url))
            elif kind == "index":
                found.append(IndexSpec(tuple(self.wheel(wheel) for wheel in table.tables("wheels"))))
            else:
                continue
            table.done()
        if not tables and "sources" not in top.value:
            self.fault(("sources",), "no [[sources]] are listed")
        return tuple(found)

    def wheel(self, table: _Table) -> Wheel:
        name = table.text("name", r"[A-Za-z0-9][\w.-]*", "a package name")
        version = table.text("version", r"[0-9A-Za-z][\w.!+-]*", "an exact version")
        wheel = Wheel(name, version, table.sha256("sha256"))
        table.done()
        return wheel


def parse(text: str, name: str = LOCK_NAME) -> Lock:
    """The lock that `text` holds.

    Raises MalformedLock, with every fault and its line, for anything that is not exactly right: bad TOML, a missing or
    unknown key, a file missing or listed twice, a path outside its component, a patch without a pinned target.
    """
    if dotted := _DOTTED.search(text):
        line = text.count("\n", 0, dotted.start()) + 1
        raise _malformed(name, [(line, f"has more than {_MOST_DOTS} dots in one line")])
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Mostly tomllib's own error; what Python says of a number of 5000 digits, or of 5000 brackets, is none.
        raise MalformedLock(f"{name} is not TOML", [str(error)]) from error
    reader = _Reader(text)
    top = _Table(reader, data)
    top.asked.add("schema")
    if type(schema := data.get("schema")) is not int or schema != SCHEMA:
        top.fault("schema", f"schema should be {SCHEMA}, is {_shown(schema)}")
    pin = reader.pin(top.table("pin"))
    baseline = reader.pin(top.table("baseline"))
    files = reader.files(top)
    components = reader.components(top, files)
    patches = reader.patches(top, files)
    sources = reader.sources(top)
    top.done()
    if reader.faults:
        raise _malformed(name, reader.faults)
    return Lock(pin, baseline, components, patches, sources)


def load(root: Path) -> Lock:
    """Read `root`/upstream.lock and check it against the patch files that lie beside it.

    Raises MalformedLock as `parse` does, and when the lock cannot be read, names a patch file that is not there, or
    does not list one that is.
    """
    path = root / LOCK_NAME
    try:
        text = read_small(path, LARGEST_LOCK).decode("utf-8")
    except FileNotFoundError as error:
        raise MalformedLock(
            f"there is no {path}", next_steps=["run this inside the project, or name it with --root"]
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedLock(f"{path} cannot be read", [str(error)]) from error
    lock = parse(text)
    listed = {patch.file for patch in lock.patches}
    present = {f"{PATCH_DIR}/{file.name}" for file in (root / PATCH_DIR).glob("*.patch")}
    lines = TomlLines(text)
    faults = [
        (lines.find(("patches", position)), f"{patch.file} is listed, but there is no such file")
        for position, patch in enumerate(lock.patches)
        if patch.file not in present
    ]
    faults += [
        (lines.find(("patches",)), f"{file} is not listed in any [[patches]] entry")
        for file in sorted(present - listed)
    ]
    if faults:
        raise _malformed(LOCK_NAME, faults, ["list it: make lock docs fills in the rest"])
    return lock


def _malformed(name: str, faults: Sequence[tuple[int, str]], steps: Sequence[str] = ()) -> MalformedLock:
    return MalformedLock(f"{name} is malformed", [f"{name}:{line}: {text}" for line, text in sorted(faults)], steps)
