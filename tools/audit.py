"""What differs, file by file: upstream at the pin, the baseline, the vendored tree, and perhaps another checkout.

The lock's hashes give each file's status, and bytes the diffs. `claims` holds lock and documents against them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import docs, git, manifest
from tools.apply import read_patches, result, results
from tools.carry import address
from tools.diff import line_counts
from tools.errors import Next, NoSource, ToolError, each, log
from tools.files import sha256
from tools.lock import ABSENT, NAME, Lock, Pin, PinnedFile, without_secrets
from tools.store import Store

# Our patch; what the app had changed already; what changes for who moves from the baseline to the vendored tree.
PAIRS = (("upstream", "vendored"), ("upstream", "baseline"), ("baseline", "vendored"))
# A file in one place: its SHA-256, or ABSENT; its bytes, None where they are not at hand.
Side = tuple[str, bytes | None]


@dataclass(frozen=True)
class FileAudit:
    """A file's status words; SHA-256 or ABSENT by side; bytes by side, and diffs by pair, where they are at hand."""

    path: str
    status: Sequence[str]
    hashes: Mapping[str, str]
    data: Mapping[str, bytes]
    diffs: Mapping[tuple[str, str], str]

    def change(self, old: str, new: str) -> str:
        """How two sides differ: counts of lines, or a word."""
        if text := self.diffs.get((old, new)):
            return "+{} -{}".format(*line_counts(text))
        found = {self.hashes[old], self.hashes[new]}
        return "=" if len(found) == 1 else "absent" if ABSENT in found else "differs"


def audit(
    root: Path, lock: Lock, tree: Path, upstream: Mapping[str, bytes], baseline: Mapping[str, Side]
) -> list[FileAudit]:
    """Compare each pinned file of `upstream`, `baseline` and the vendored `tree`, or what the lock promises for that.

    Raises what is wrong with a patch then, and Drift for a manifest that is not ours.
    """

    def audited(file: PinnedFile) -> FileAudit:
        made = manifest.read((tree / file.path).parent)
        extras = made.extras if made else ()
        base, vendored = upstream[file.path], _read_file(tree / file.path)
        status = "patched" if file.patched(extras) else "unchanged"
        if vendored is None:
            status, vendored = "not vendored", result(root, file, base)
        elif sha256(vendored) != file.result(extras):
            status = "edited"
        hash_, old = baseline[file.path]
        words = {file.sha256: "baseline agrees", ABSENT: "baseline lacks it"}
        hashes = {"upstream": file.sha256, "baseline": hash_, "vendored": sha256(vendored)}
        data = {"upstream": base, "vendored": vendored} | ({} if old is None else {"baseline": old})
        pairs = [(one, other) for one, other in PAIRS if {one, other} <= data.keys()]
        diffs = {(one, other): repo.diff(file.path, data[one], data[other], 3) for one, other in pairs}
        return FileAudit(file.path, (status, words.get(hash_, "baseline differs")), hashes, data, diffs)

    with git.Repo.temporary() as repo:
        return each(lock.files, audited)


def checkout(lock: Lock, folder: Path, files: Sequence[FileAudit]) -> dict[str, str]:
    """What each file of `folder`, which has models/ in it or is that, is, line ends aside: words by path."""
    place = folder if (folder / files[0].path.split("/")[0]).is_dir() else folder.parent
    found = {}
    for file, pinned in zip(files, lock.files, strict=True):
        data = _read_file(place / file.path)
        hashes = {sha256(data), sha256(data.replace(b"\r\n", b"\n"))} if data is not None else set()
        known = {**file.hashes, **({f"extra {pinned.extra}": pinned.entry.patched} if pinned.extra else {})}
        same = ", ".join(name for name, hash_ in known.items() if hash_ in hashes)
        found[file.path] = same or ("different" if hashes else "missing")
    return found


def _read_file(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _side(data: bytes | None) -> Side:
    return (ABSENT if data is None else sha256(data)), data


def baseline_of(lock: Lock, store: Store, revision: str, place: str, offline: bool) -> tuple[str, dict[str, Side], str]:
    """The baseline's commit, its sides by path, and why its repository was not read, if it had to be.

    revision: a commit, branch or tag; "" for the lock's, whose hashes do where there are no bytes. place: a repository
    to ask instead. Raises UsageError for a revision that means nothing there, NoSource for one that cannot be read.
    """
    pin = lock.baseline
    revision = revision or pin.commit
    optional = revision == pin.commit and not place
    sides = {file.path: (file.baseline, store.get(file.baseline)) for file in lock.files}
    if optional and all(data is not None or hash_ == ABSENT for hash_, data in sides.values()):
        return revision, sides, ""
    try:
        read = _read(lock, place, pin, revision, offline=offline)
    except (git.RemoteError, NoSource) as error:
        why = without_secrets(f"{place or pin.url}: {error}")
        if optional:
            return revision, sides, why
        step = Next("audit", "asks a clone", {"baseline_from": "PATH"})
        raise NoSource(f"the baseline's {revision} could not be read", [why], [step]) from error
    for data in read.files.values():
        store.put(data)
    return read.id, {file.path: _side(read.files.get(file.path)) for file in lock.files}, ""


def _read(lock: Lock, place: str, pin: Pin, name: str, *, offline: bool) -> git.Commit:
    """The commit `name` of the repository at `place`, "" for the pin's. Raises RemoteError, NoSource, UsageError."""
    url = address(place or pin.url, offline=offline)
    log.info(f"git {url}: reading {name[:12]}")
    return git.commit(url, name, pin.branch, [part.path for part in lock.components])


def _claim(where: str, claimed: str, actual: str) -> str:
    return "" if claimed == actual else f"{where}: claimed {claimed!r}, actual {actual!r}"


def commit_claims(lock: Lock, places: Sequence[str], *, offline: bool) -> tuple[list[str], list[str]]:
    """What the lock says of both commits, read anew: "" or a line for each claim; a line for each that was not read."""
    found, unread = [], []
    for name, pin, place in zip(("upstream", "baseline"), (lock.pin, lock.baseline), places, strict=True):
        try:
            read = _read(lock, place, pin, pin.commit, offline=offline)
        except (git.RemoteError, NoSource) as error:
            unread.append(f"not checked: {name} {pin.commit[:12]} of {place or pin.url}: {error}")
            continue
        found.append(_claim(f"{NAME}: date of {name}", pin.date, read.date))
        locked = {file.path: file.sha256 if name == "upstream" else file.baseline for file in lock.files}
        # The baseline may well have other files.
        for path in sorted({*locked, *(read.files if name == "upstream" else ())}):
            actual, _ = _side(read.files.get(path))
            found.append(_claim(f"{NAME}: {path} of {name}", locked.get(path, ABSENT), actual))
    return found, unread


def claims(root: Path, lock: Lock, upstream: Mapping[str, bytes], verbs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What the lock says of patches, and the documents in computed parts and ids: "" or a line for each claim."""
    try:
        results(root, lock.patched, upstream, list(lock.decisions.extras), draft=True)
        stale = docs.stale(root, lock, read_patches(root, lock.patched, draft=True), verbs)
    except ToolError as error:
        yield "; ".join([error.message, *error.findings])
        return
    known = (root / NAME).read_text(encoding="utf-8")
    for path in filter(Path.exists, (root / name for name in docs.DOCUMENTS)):
        yield f"{path.name}: its computed parts are stale" if path.name in stale else ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            # A whole id counts wherever it stands, a shortened one between backticks.
            for said in re.findall(r"(?<=`)[0-9a-f]{7,64}(?=`)|\b(?:[0-9a-f]{64}|[0-9a-f]{40})\b", line):
                yield "" if re.search(rf"\b{said}", known) else f"{path.name}:{number}: no id in {NAME}: {said}"
