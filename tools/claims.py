"""Whether what the lock and the documents claim is so, held against the bytes that an audit gathered."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import docs
from tools.apply import apply_patch, read_patch, read_patches
from tools.audit import Sides
from tools.errors import ToolError
from tools.git import Scratch
from tools.hashes import blob_id, sha256
from tools.lock import ABSENT, LOCK_NAME, Lock, is_called


@dataclass(frozen=True)
class Claim:
    """What `where` says, what is so, and the command that helps when the two differ."""

    where: str
    claimed: str
    actual: str
    step: str

    @property
    def holds(self) -> bool:
        return self.claimed == self.actual

    def __str__(self) -> str:
        return f"{self.where}: claimed {self.claimed!r}, actual {self.actual!r}; next: {self.step}"


_LOCK = "make lock docs"


def claims(root: Path, lock: Lock, sides: Sides, verbs: Sequence[tuple[str, str]]) -> list[Claim]:
    """Every claim of the lock and the documents that the gathered bytes decide. verbs: as for `docs.stale`."""
    return [
        *_file_claims(lock, sides),
        *_commit_claims(lock, sides),
        *_patch_claims(root, lock, sides),
        *_document_claims(root, lock, verbs),
    ]


def not_checked(lock: Lock, sides: Sides) -> list[str]:
    """One line for each kind of claim that `claims` passes over, with the reason."""
    if sides.baseline == lock.baseline.commit:
        return []
    return [f"not checked: what {LOCK_NAME} says of its baseline, in whose place BASELINE= stands"]


def _file_claims(lock: Lock, sides: Sides) -> Iterator[Claim]:
    for file in lock.files:
        where = f"{LOCK_NAME}: {file.path}"
        real = sides.by_name["upstream"][file.path]
        if real.data is not None or "upstream" in sides.read:
            yield Claim(f"{where} sha256", file.sha256, sha256(real.data) if real.data is not None else ABSENT, _LOCK)
            yield Claim(f"{where} blob", file.blob, real.blob or ABSENT, _LOCK)
        real = sides.by_name["baseline"][file.path]
        if file.baseline and not real.why and sides.baseline == lock.baseline.commit:
            yield Claim(f"{where} baseline", file.baseline, real.blob or ABSENT, _LOCK)
            if file.baseline_sha256 and real.data is not None:
                yield Claim(f"{where} baseline_sha256", file.baseline_sha256, sha256(real.data), _LOCK)


def _commit_claims(lock: Lock, sides: Sides) -> Iterator[Claim]:
    pins = {"upstream": ("[pin] date", lock.pin), "baseline": ("[baseline] date", lock.baseline)}
    for name, (where, pin) in pins.items():
        if (found := sides.read.get(name)) and found.id == pin.commit:
            yield Claim(f"{LOCK_NAME}: {where}", pin.date, found.date, _LOCK)
    if found := sides.read.get("upstream"):
        for path in sorted(set(found.files) - {file.path for file in lock.files}):
            yield Claim(f"{LOCK_NAME}: {path}", ABSENT, blob_id(found.files[path]), _LOCK)


def _patch_claims(root: Path, lock: Lock, sides: Sides) -> Iterator[Claim]:
    with Scratch() as scratch:
        for patch in lock.patches:
            base = sides.by_name["upstream"][patch.target].data
            fits = f"gives blob {patch.result} from blob {patch.base}"
            step = f"git checkout {patch.file}, or after a change you meant: {_LOCK}"
            try:
                parsed, data = read_patch(root, patch)
                if base is not None:
                    result = apply_patch(scratch, parsed, data, base)
                    yield Claim(patch.file, fits, fits, step)
                    yield Claim(f"{LOCK_NAME}: {patch.file} result_sha256", patch.result_sha256, sha256(result), _LOCK)
            except ToolError as error:
                yield Claim(patch.file, fits, "; ".join([error.message, *error.findings]), step)


# A whole id counts wherever it stands, a shortened one between backticks.
_ID = re.compile(r"(?<=`)[0-9a-f]{7,64}(?=`)|(?<![0-9A-Za-z])(?:[0-9A-Fa-f]{64}|[0-9A-Fa-f]{40})(?![0-9A-Za-z])")
# What a heading of the account says it is about.
_MODULE = re.compile(r"[\w./-]+\.py\b")
_PATH = re.compile(r"(?:`|\]\()((?:bench|patches|requirements|tests|tools)/[^`)\s#]+)[`)#]")


def _document_claims(root: Path, lock: Lock, verbs: Sequence[tuple[str, str]]) -> Iterator[Claim]:
    """Computed parts line by line; in the prose around them, ids, which are to be the lock's, and paths of ours; and
    the headings of MODEL_CHANGES.md, whose files are to be pinned ones.
    """
    try:
        fresh = docs.stale(root, lock, read_patches(root, lock), verbs)
    except ToolError as error:
        yield Claim("the documents", "can be computed", "; ".join([error.message, *error.findings]), "make docs")
        return
    known = "\n".join(re.findall(r"(?<![0-9a-f])[0-9a-f]{40,64}", (root / LOCK_NAME).read_text(encoding="utf-8")))
    for name in docs.DOCUMENTS:
        path = root / name
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        differing = docs.differing(text, fresh.get(name, text))
        yield from (Claim(f"{name}:{line}", was, now, "make docs") for line, was, now in differing)
        if not differing:
            yield Claim(f"{name} computed parts", "current", "current", "make docs")
        stale = {line for line, _, _ in differing}
        for number, line in enumerate(text.splitlines(), 1):
            for found in _ID.findall(line) if number not in stale else ():
                is_known = re.search(f"^{found.lower()}", known, re.MULTILINE)
                actual = found if is_known else f"no id in {LOCK_NAME}"
                yield Claim(f"{name}:{number}", found, actual, f"mend the prose of {name}")
            for mentioned in _PATH.findall(line):
                actual = mentioned if (root / mentioned).exists() else "no such file"
                yield Claim(f"{name}:{number}", mentioned, actual, f"mend the prose of {name}")
            for told in _MODULE.findall(line) if name == docs.ACCOUNT and line.startswith("##") else ():
                is_pinned = any(is_called(file.path, told) for file in lock.files)
                yield Claim(
                    f"{name}:{number}", told, told if is_pinned else "no pinned file", f"mend the prose of {name}"
                )
