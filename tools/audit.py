"""What differs, file by file: upstream at the pin, the baseline, the vendored tree, and perhaps another checkout.

The lock's hashes give each file's status, and bytes the diffs. `claims` holds lock and documents against them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from tools import docs, git, manifest
from tools.apply import read_patches, results
from tools.diff import line_counts
from tools.errors import NoSource, ToolError, each, log
from tools.files import sha256
from tools.lock import ABSENT, NAME, Lock, Pin, PinnedFile
from tools.store import Store

# Our patch; what the app had changed already; what changes for who moves from the baseline to the vendored tree.
PAIRS = (("upstream", "vendored"), ("upstream", "baseline"), ("baseline", "vendored"))
# A file in one place: its SHA-256, or ABSENT; its bytes, None where they are not at hand.
Side = tuple[str, bytes | None]


@attrs.frozen
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
        extras = manifest.read((tree / file.path).parent).extras
        base, vendored = upstream[file.path], _read_file(tree / file.path)
        status = "patched" if file.is_patched(extras) else "unchanged"
        if vendored is None:
            status, vendored = "not vendored", results([file], upstream, read_patches(root, [file]))[file.path]
        elif sha256(vendored) != file.result(extras):
            status = "edited"
        hash_, old = baseline[file.path]
        words = {file.upstream: "baseline agrees", ABSENT: "baseline lacks it"}
        hashes = {"upstream": file.upstream, "baseline": hash_, "vendored": sha256(vendored)}
        data = {"upstream": base, "vendored": vendored} | ({} if old is None else {"baseline": old})
        pairs = [(one, other) for one, other in PAIRS if {one, other} <= data.keys()]
        diffs = {(one, other): repo.diff(file.path, data[one], data[other], 3) for one, other in pairs}
        return FileAudit(file.path, (status, words.get(hash_, "baseline differs")), hashes, data, diffs)

    with git.Repo.temporary() as repo:
        return each(lock.files, audited)


def table(lock: Lock, baseline: str, files: Sequence[FileAudit]) -> tuple[list[list[str]], list[str]]:
    """What differs from the commit `baseline`, for people: rows of cells, and the lines that go below them."""
    rows = [["", "patch", "app", "move", "status"]]
    for part in lock.components:
        rows.append([part.path])
        for file in (file for file in files if file.path.startswith(f"{part.path}/")):
            rows.append([f"  {Path(file.path).name}", *(file.change(*pair) for pair in PAIRS), file.status[0]])
    differs = [file for file in files if "baseline differs" in file.status]
    kept = sum(file.change("upstream", "vendored") == "=" for file in differs)
    count = f"{len(differs)} of {len(files)} files, {kept} unchanged here"
    return rows, [
        "patch: upstream > vendored; app: upstream > baseline; move: baseline > vendored",
        f"the baseline {baseline[:7]} differs from upstream in {count}",
    ]


def checkout(lock: Lock, folder: Path, files: Sequence[FileAudit]) -> dict[str, str]:
    """What each file of `folder`, which has models/ in it or is that, is, line ends aside: words by path."""
    place = folder if (folder / files[0].path.split("/")[0]).is_dir() else folder.parent
    found = {}
    for file, pinned in zip(files, lock.files, strict=True):
        data = _read_file(place / file.path)
        hashes = {sha256(data), sha256(data.replace(b"\r\n", b"\n"))} if data is not None else set()
        known = {**file.hashes, **({f"extra {pinned.extra}": pinned.patched} if pinned.extra else {})}
        same = ", ".join(name for name, hash_ in known.items() if hash_ in hashes)
        found[file.path] = same or ("different" if hashes else "missing")
    return found


def _read_file(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def baseline_of(lock: Lock, store: Store, revision: str, place: str, offline: bool) -> tuple[str, dict[str, Side], str]:
    """The baseline's commit, its sides by path, and why its repository was not read, if it had to be.

    revision: a commit, branch or tag; "" for the lock's, whose hashes do where there are no bytes. place: a repository
    to ask instead. Raises UsageError for a revision that means nothing there, NoSource for one that cannot be read.
    """
    pin = lock.baseline
    optional = revision in ("", pin.commit) and not place
    sides = {file.path: (file.baseline, store.get(file.baseline)) for file in lock.files}
    if optional and all(data is not None or hash_ == ABSENT for hash_, data in sides.values()):
        return pin.commit, sides, ""
    try:
        read = _read(lock, place, pin, revision or pin.commit, offline=offline)
    except NoSource as error:
        if optional:
            return pin.commit, sides, str(error)
        raise
    for data in read.files.values():
        store.put(data)
    return read.id, {path: _side(read.files.get(path)) for path in sides}, ""


def _side(data: bytes | None) -> Side:
    return (ABSENT if data is None else sha256(data)), data


def _read(lock: Lock, place: str, pin: Pin, name: str, *, offline: bool) -> git.Commit:
    """The commit `name` of the repository at `place`, "" for the pin's. Raises NoSource and UsageError."""
    url = git.address(place or pin.url, offline=offline)
    log.info(f"git {url}: reading {name[:12]}")
    return git.commit(url, name, pin.branch, lock.decisions.components.values())


def commit_claims(lock: Lock, places: Sequence[str], *, offline: bool) -> tuple[list[str], list[str]]:
    """What the lock says of both commits, read anew: a line for each false claim, and for each commit not read."""
    false, unread = [], []
    for name, pin, place in zip(("upstream", "baseline"), (lock.pin, lock.baseline), places, strict=True):
        try:
            read = _read(lock, place, pin, pin.commit, offline=offline)
        except NoSource as error:
            unread.append(f"not checked: {name} {pin.commit[:12]}: {error}")
            continue
        claimed = {"date": pin.date, **{file.path: getattr(file, name) for file in lock.files}}
        # The baseline may well have other files.
        there = read.files if name == "upstream" else read.files.keys() & claimed
        actual = {"date": read.date, **{path: sha256(read.files[path]) for path in there}}
        for what in sorted({*claimed, *actual}):
            one, other = claimed.get(what, ABSENT), actual.get(what, ABSENT)
            if one != other:
                false.append(f"{NAME}: {what} of {name}: claimed {one!r}, actual {other!r}")
    return false, unread


def claims(root: Path, lock: Lock, upstream: Mapping[str, bytes], verbs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A line for each false claim of the lock about patches, and of the documents in computed parts and ids."""
    try:
        patches = read_patches(root, lock.patched)
        results(lock.patched, upstream, patches, list(lock.decisions.extras))
        stale = docs.stale(root, lock, patches, verbs)
    except ToolError as error:
        yield str(error)
        return
    known = (root / NAME).read_text(encoding="utf-8")
    for path in filter(Path.exists, (root / name for name in docs.DOCUMENTS)):
        if path.name in stale:
            yield f"{path.name}: its computed parts are stale"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            # A whole id counts wherever it stands, a shortened one between backticks.
            for said in re.findall(r"(?<=`)[0-9a-f]{7,64}(?=`)|\b(?:[0-9a-f]{64}|[0-9a-f]{40})\b", line):
                if not re.search(rf"\b{said}", known):
                    yield f"{path.name}:{number}: no id in {NAME}: {said}"
