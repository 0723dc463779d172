"""Compares upstream, the baseline and the vendored tree file by file, and checks the claims of lock and documents."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from tools import docs, git, manifest
from tools.apply import read_patches, results
from tools.diff import line_counts
from tools.errors import NoSource, ToolError, each
from tools.files import sha256
from tools.lock import ABSENT, NAME, Lock, PinnedFile
from tools.store import Store

# Our patch; the app's own change; what changes when the app moves from the baseline to the vendored tree.
PAIRS = (("upstream", "vendored"), ("upstream", "baseline"), ("baseline", "vendored"))
# A file at the baseline: its SHA-256 or ABSENT, and its bytes, None for unknown.
Side = tuple[str, bytes | None]


@attrs.frozen
class FileAudit:
    """One file: its status, SHA-256 or ABSENT by side, and known bytes by side, with their diffs by pair."""

    path: str
    status: Sequence[str]
    hashes: Mapping[str, str]
    data: Mapping[str, bytes]
    diffs: Mapping[tuple[str, str], str]

    def change(self, old: str, new: str) -> str:
        """How two sides differ: lines added and removed, or a word."""
        if text := self.diffs.get((old, new)):
            return "+{} -{}".format(*line_counts(text))
        found = {self.hashes[old], self.hashes[new]}
        return "=" if len(found) == 1 else "absent" if ABSENT in found else "differs"


def audit(
    root: Path, lock: Lock, tree: Path, upstream: Mapping[str, bytes], baseline: Mapping[str, Side]
) -> list[FileAudit]:
    """Compare the pinned files of `upstream`, `baseline` and `tree`; what `tree` lacks is as the lock has it.

    Raises Drift for a manifest that is not ours, and as reading and applying a patch does.
    """

    def audited(file: PinnedFile) -> FileAudit:
        extras = manifest.read((tree / file.path).parent).extras
        base, vendored = upstream[file.path], _read_file(tree / file.path)
        status = "patched" if file.is_patched(extras) else "unchanged"
        if vendored is None:
            status, vendored = "not vendored", results([file], upstream, read_patches(root, [file]), extras)[file.path]
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
    """The report for people: rows of cells, and the lines below them."""
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
    """For each file in `folder`, a project or its models/, which side it equals, line ends aside; by path."""
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
    """The baseline's commit, its files by path, and why only the lock's hashes are known of them, if so.

    revision: a commit, branch or tag, "" for the lock's. place: another repository. Raises UsageError for an unknown
    revision, and NoSource where one other than the lock's cannot be read.
    """
    pin = lock.baseline
    optional = revision in ("", pin.commit) and not place
    sides = {file.path: (file.baseline, store.get(file.baseline)) for file in lock.files}
    if optional and all(data is not None or hash_ == ABSENT for hash_, data in sides.values()):
        return pin.commit, sides, ""
    folders = lock.decisions.components.values()
    try:
        read = git.commit(place or pin.url, revision or pin.commit, pin.branch, folders, offline=offline)
    except NoSource as error:
        if optional:
            return pin.commit, sides, str(error)
        raise
    for data in read.files.values():
        store.put(data)
    found: dict[str, Side] = {path: (sha256(data), data) for path, data in read.files.items()}
    return read.id, {path: found.get(path, (ABSENT, None)) for path in sides}, ""


def commit_claims(lock: Lock, places: Sequence[str], *, offline: bool) -> tuple[list[str], list[str]]:
    """Compare the lock with both commits, read again: a line for each false claim, and for each commit not read."""
    false, unread = [], []
    folders = lock.decisions.components.values()
    for name, pin, place in zip(("upstream", "baseline"), (lock.pin, lock.baseline), places, strict=True):
        try:
            read = git.commit(place or pin.url, pin.commit, pin.branch, folders, offline=offline)
        except NoSource as error:
            unread.append(f"not checked: {name} {pin.commit[:12]}: {error}")
            continue
        claimed = {"date": pin.date, **{file.path: getattr(file, name) for file in lock.files}}
        # The baseline may have more files.
        there = read.files if name == "upstream" else read.files.keys() & claimed
        actual = {"date": read.date, **{path: sha256(read.files[path]) for path in there}}
        for what in sorted({*claimed, *actual}):
            one, other = claimed.get(what, ABSENT), actual.get(what, ABSENT)
            if one != other:
                false.append(f"{NAME}: {what} of {name}: claimed {one!r}, actual {other!r}")
    return false, unread


def claims(root: Path, lock: Lock, upstream: Mapping[str, bytes], verbs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A line for each false claim: of the lock about patches, of the documents in computed parts and ids."""
    try:
        patches = read_patches(root, lock.patched)
        results(lock.patched, upstream, patches, list(lock.decisions.extras))
        stale = docs.stale(root, lock, patches, verbs)
    except ToolError as error:
        yield str(error)
        return
    known = (root / NAME).read_text(encoding="utf-8")
    for name in (name for name in docs.DOCUMENTS if (root / name).exists()):
        if name in stale:
            yield f"{name}: its computed parts are stale"
        for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines(), 1):
            # Whole ids anywhere, shortened ones between backticks.
            for said in re.findall(r"(?<=`)[0-9a-f]{7,64}(?=`)|\b(?:[0-9a-f]{64}|[0-9a-f]{40})\b", line):
                if not re.search(rf"\b{said}", known):
                    yield f"{name}:{number}: no id in {NAME}: {said}"
