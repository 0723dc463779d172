"""Reads the decisions in pyproject.toml; reads and writes upstream.lock, which has a digest of its own content."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import attrs

from tools.errors import Next, UsageError
from tools.files import sha256

NAME = "upstream.lock"
DECISIONS = "pyproject.toml"
PATCHES = "patches"
# The folder of a rebase that waits for a decision.
REBASE = "build/rebase"
ABSENT = "absent"
_T = TypeVar("_T")
_HEAD = f"""\
# Computed by `make lock`, `make refresh` and `make rebase`; nobody edits it. Decisions stand in {DECISIONS}.
# pieces: files in the wheels, then FILE:OFFSET+LENGTH of each piece; joined, they give the file (tools/pieces.py).
"""

# Kinds of strings: the pattern that each matches, and its description for error messages.
Text = Annotated[str, r"[^\x00-\x1f\x7f-\x9f]+", "a non-empty string without control characters"]
Sha256 = Annotated[str, r"[0-9a-f]{64}", "a SHA-256 of 64 lower-case hex digits"]
Side = Annotated[str, rf"[0-9a-f]{{64}}|{ABSENT}", "a SHA-256, or absent"]
Commit = Annotated[str, r"[0-9a-f]{40}", "a commit id of 40 lower-case hex digits"]
# No part is `..`, hidden, a device name of Windows, or ends in a dot, which Windows drops.
_PART = r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(\.|/|$))\w([\w.-]*[\w-])?"
_PATH = rf"{_PART}(/{_PART})*"
TreePath = Annotated[str, _PATH, "a path of plain names, such as models/scnet/scnet.py"]
FileName = Annotated[str, r"\w[\w.-]*\.patch", "a file name that ends in .patch"]
Wheel = Annotated[str, r"\w[\w.-]*==[\w.!+-]+", "NAME==VERSION"]


@attrs.frozen
class Pin:
    """A branch of a repository, and a commit of it with its date (ISO 8601); "" for what nobody decides."""

    url: Text
    branch: Text
    commit: Commit = ""
    date: Text = ""

    def __str__(self) -> str:
        return f"{self.commit[:12]} of {self.date[:10]}"


@attrs.frozen
class Decisions:
    """[tool.vendor] of pyproject.toml, which explains it. components: folders by name. extras: patch files by name."""

    upstream: Pin
    baseline: Pin
    components: dict[str, TreePath]
    raw: list[Text] = attrs.field(factory=list)
    wheels: list[Wheel] = attrs.field(factory=list)
    extras: dict[str, list[FileName]] = attrs.field(factory=dict)

    def extra_of(self, patch: str) -> str:
        """The extra that a patch belongs to, "" for none."""
        return next((name for name, patches in self.extras.items() if patch in patches), "")


@attrs.frozen(kw_only=True)
class PinnedFile:
    """[files."PATH"] of the lock; "" means none. upstream, baseline, patched: its SHA-256 on each side.

    patch: a file in patches/. extra: the one that the patch belongs to. pieces: see tools/pieces.py.
    """

    path: str = ""
    upstream: Sha256
    baseline: Side = ""
    patch: FileName = ""
    patch_sha256: Sha256 = ""
    patched: Sha256 = ""
    pieces: Text = ""
    extra: str = ""

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The folder of its component."""
        return self.path.rpartition("/")[0]

    def is_patched(self, extras: Iterable[str] = ()) -> bool:
        """Whether a tree with `extras` has it patched."""
        return bool(self.patch) and (not self.extra or self.extra in extras)

    def result(self, extras: Iterable[str] = ()) -> str:
        """Its SHA-256 in a tree with `extras`."""
        return self.patched if self.is_patched(extras) else self.upstream


@attrs.frozen
class Component:
    """A folder whose pinned files work as a whole."""

    name: str
    path: str
    files: tuple[PinnedFile, ...]


@attrs.frozen
class Lock:
    """All of upstream.lock, and the decisions. files: sorted by path. wheels: SHA-256 by NAME==VERSION."""

    decisions: Decisions
    pin: Pin
    baseline: Pin
    files: tuple[PinnedFile, ...]
    wheels: Mapping[str, str]

    @property
    def components(self) -> tuple[Component, ...]:
        """The components in pyproject.toml, with their pinned files."""
        return tuple(
            Component(name, folder, tuple(file for file in self.files if file.folder == folder))
            for name, folder in self.decisions.components.items()
        )

    @property
    def patched(self) -> tuple[PinnedFile, ...]:
        """The files that have a patch, those of extras included."""
        return tuple(file for file in self.files if file.patch)

    def select(self, names: Iterable[str]) -> tuple[Component, ...]:
        """The components called `names`, or all for no names. Raises UsageError for an unknown name."""
        wanted = meant("component", names, self.decisions.components) or self.decisions.components
        return tuple(part for part in self.components if part.name in wanted)


def meant(what: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `known` that `names` mean: whole, or the ends of paths. Raises UsageError for a name that fits none."""
    found = {name: [path for path in known if f"/{path}".endswith(f"/{name}")] for name in names}
    if unknown := [name for name, paths in found.items() if not paths]:
        step = f"choose from: {', '.join(sorted(known)) or 'none'}"
        raise UsageError(f"no {what} is called {', '.join(unknown)}", next_steps=[step])
    return sorted({path for paths in found.values() for path in paths})


def without_secrets(text: str) -> str:
    """`text` without user names and passwords in http and ftp URLs."""
    # Not past a line's end, which JSON writes with a backslash.
    return re.sub(r"(?i)\b(https?|ftp)://[^/\s\\\"]*@", r"\1://", text)


def is_path(text: str) -> bool:
    """Whether `text` may be a file's path in a tree; the rule for locks, manifests and upstream's files."""
    return bool(re.fullmatch(_PATH, text))


@attrs.frozen
class _LockFile:
    pin: Pin
    baseline: Pin
    files: dict[TreePath, PinnedFile]
    wheels: dict[Wheel, Sha256] = attrs.field(factory=dict)


def load(root: Path, *, agreed: bool = True) -> Lock:
    """The lock of the project at `root`. agreed: as pyproject.toml says. Raises UsageError with every fault."""
    decisions = _structured(_toml(root / DECISIONS).get("tool", {}).get("vendor", {}), Decisions, DECISIONS)
    named = [patch for patches in decisions.extras.values() for patch in patches]
    for what, names in (("extras", ["none", *decisions.extras, *named]), ("components", decisions.components.values())):
        if wrong := [name for name, count in Counter(names).items() if count > 1]:
            faults = [f"{name}: named twice, or not allowed as a name" for name in wrong]
            raise UsageError(f"{DECISIONS} is malformed", faults, [f"edit [tool.vendor.{what}] in {DECISIONS}"])
    return read(_toml(root / NAME), decisions, agreed=agreed)


def read(data: dict[str, Any], decisions: Decisions, *, agreed: bool = True) -> Lock:
    """The lock in `data`, the content of upstream.lock. Raises as `load`."""
    stated = data.pop("digest", "")
    found = _structured(data, _LockFile, NAME)
    if stated != _seal(data):
        steps = (f"git checkout {NAME}  # restores it", Next("rebase", "then moves the pin", {"to": found.pin.commit}))
        raise UsageError(f"{NAME} was changed by hand: its digest does not match", (), steps)
    files = tuple(
        attrs.evolve(it, path=path, baseline=it.baseline or it.upstream, extra=decisions.extra_of(it.patch))
        for path, it in sorted(found.files.items())
    )
    lock = Lock(decisions, found.pin, found.baseline, files, found.wheels)
    if agreed:
        _insist_that_both_agree(lock)
    return lock


def _insist_that_both_agree(lock: Lock) -> None:
    wanted, patches = lock.decisions, {file.patch for file in lock.files}
    pairs = (
        ("upstream.url", wanted.upstream.url, lock.pin.url),
        ("upstream.branch", wanted.upstream.branch, lock.pin.branch),
        ("baseline.url", wanted.baseline.url, lock.baseline.url),
        ("baseline.commit", wanted.baseline.commit, lock.baseline.commit),
        ("wheels", sorted(wanted.wheels), sorted(lock.wheels)),
        ("components", sorted(wanted.components.values()), sorted({file.folder for file in lock.files})),
    )
    wrong = [f"{key}: {DECISIONS} says {one}, {NAME} {other}" for key, one, other in pairs if one != other]
    step: str | Next = Next("lock", "computes the lock anew")
    if (wanted.upstream.url, wanted.upstream.branch) != (lock.pin.url, lock.pin.branch):
        step = Next("rebase", "follows the other repository or branch", {"to": wanted.upstream.branch})
    for name, named in wanted.extras.items():
        if unknown := [f"extras.{name}: no patch is called {patch}" for patch in named if patch not in patches]:
            wrong, step = wrong + unknown, f"edit [tool.vendor.extras] in {DECISIONS}"
    if wrong:
        raise UsageError(f"{DECISIONS} and {NAME} disagree", wrong, [step])


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing", (), [f"git checkout {path.name}  # restores it"]) from error
    except ValueError as error:
        raise UsageError(f"{path} is malformed", [str(error)], [f"fix it, or git checkout {path.name}"]) from error


def _structured(data: dict[str, Any], kind: type[_T], name: str) -> _T:
    """`data` as a value of the class `kind`. Raises UsageError with every fault and where it stands."""
    import cattrs

    def checked(value: object, shape: Any) -> str:
        pattern, words = shape.__metadata__
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"should be {words}, is {value!r:.100}")
        if without_secrets(value) != value:
            raise ValueError("holds a password")
        return value

    def worded(error: BaseException, wanted: type | None) -> str:
        return str(error) if isinstance(error, ValueError) else cattrs.v.format_exception(error, wanted)

    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook_func(lambda shape: hasattr(shape, "__metadata__"), checked)
    try:
        return converter.structure(data, kind)
    except cattrs.BaseValidationError as error:
        faults = cattrs.transform_error(error, name, worded)
        raise UsageError(f"{name} is malformed", faults, [f"edit {name}, or git checkout {name}"]) from error


def dump(lock: Lock) -> bytes:
    """The bytes of upstream.lock for `lock`."""
    files = {}
    for file in lock.files:
        baseline = "" if file.baseline == file.upstream else file.baseline
        files[file.path] = attrs.evolve(file, path="", extra="", baseline=baseline)
    content = _LockFile(lock.pin, lock.baseline, files, dict(sorted(lock.wheels.items())))
    tables = attrs.asdict(content, filter=lambda _, value: value != "")
    text = f'{_HEAD}digest = "{_seal(tables)}"\n'
    # A JSON string is also a TOML string.
    tables |= {f"files.{json.dumps(path, ensure_ascii=False)}": it for path, it in tables.pop("files").items()}
    for name, values in tables.items():
        text += f"\n[{name}]\n"
        for key, value in values.items():
            text += f"{key if key.isidentifier() else json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}\n"
    return text.encode()


def _seal(data: Mapping[str, Any]) -> str:
    return sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode())
