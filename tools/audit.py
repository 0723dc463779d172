"""Compares upstream, the baseline and the vendored tree file by file, and checks the claims of lock and documents."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tools import docs, git
from tools.apply import read_patches, results
from tools.errors import Drift, Next, NoSource, ToolError, each
from tools.files import sha256
from tools.lock import ABSENT, NAME, PinnedFile
from tools.sources import Project
from tools.tree import read_manifest

# Our patch; the app's own change; what changes when the app moves from the baseline to the vendored tree.
PAIRS = (("upstream", "vendored"), ("upstream", "baseline"), ("baseline", "vendored"))
# A file at the baseline: its SHA-256 or ABSENT, and its bytes, None for unknown.
Side = tuple[str, bytes | None]


class FileAudit(NamedTuple):
    """One file: its status, SHA-256 or ABSENT by side, and known bytes by side, with their diffs by `OLD_NEW`."""

    path: str
    status: Sequence[str]
    hashes: Mapping[str, str]
    data: Mapping[str, bytes]
    diffs: Mapping[str, str]

    def counts(self, old: str, new: str) -> tuple[int, int] | None:
        """The lines added and removed from one side to another; None without a diff, or with an empty one."""
        body = self.diffs.get(f"{old}_{new}", "").partition("\n@@")[2].split("\n")[1:]
        return (sum(line[:1] == "+" for line in body), sum(line[:1] == "-" for line in body)) if body else None

    def change(self, old: str, new: str) -> str:
        """How two sides differ: lines added and removed, or a word."""
        if counts := self.counts(old, new):
            return "+{} -{}".format(*counts)
        found = {self.hashes[old], self.hashes[new]}
        return "=" if len(found) == 1 else "absent" if ABSENT in found else "differs"


def audit(project: Project, upstream: Mapping[str, bytes], baseline: Mapping[str, Side]) -> list[FileAudit]:
    """Compare all pinned files; what the tree lacks is as the lock has it. Raises as manifests and patches do."""

    def audited(file: PinnedFile) -> FileAudit:
        path, (hash_, old) = project.tree / file.path, baseline[file.path]
        if path.is_file():
            data = path.read_bytes()
            # Windows may have checked it out with its line ends.
            same = {sha256(data), sha256(data.replace(b"\r\n", b"\n"))}
            words = {hash_: "as the baseline", file.upstream: "unchanged", file.patched: "patched"}
            status = next((word for known, word in words.items() if known in same), "different")
        else:
            extras, patches = read_manifest(path.parent).extras, read_patches(project.root, [file])
            status, data = "not vendored", results([file], upstream, patches, extras)[file.path]
        claims = {file.upstream: "baseline agrees", ABSENT: "baseline lacks it"}
        hashes = {"upstream": file.upstream, "baseline": hash_, "vendored": sha256(data)}
        sides = {"upstream": upstream[file.path], "vendored": data} | ({} if old is None else {"baseline": old})
        pairs = [(one, other) for one, other in PAIRS if {one, other} <= sides.keys()]
        diffs = {f"{one}_{other}": repo.diff(file.path, sides[one], sides[other], 3) for one, other in pairs}
        return FileAudit(file.path, (status, claims.get(hash_, "baseline differs")), hashes, sides, diffs)

    with git.Repo.temporary() as repo:
        return each(project.lock.files, audited)


def table(baseline: str, files: Sequence[FileAudit]) -> tuple[list[list[str]], list[str]]:
    """The report for people: rows of cells, and the lines below them."""
    rows = [["", "patch", "app", "move", "status"]]
    for folder, group in groupby(files, lambda file: file.path.rpartition("/")[0]):
        rows.append([folder])
        for file in group:
            name = file.path.rpartition("/")[2]
            rows.append([f"  {name}", *(file.change(*pair) for pair in PAIRS), file.status[0]])
    differs = [file for file in files if "baseline differs" in file.status]
    kept = sum(file.change("upstream", "vendored") == "=" for file in differs)
    count = f"{len(differs)} of {len(files)} files, {kept} unchanged here"
    return rows, [
        "patch: upstream > vendored; app: upstream > baseline; move: baseline > vendored",
        f"the baseline {baseline[:7]} differs from upstream in {count}",
    ]


def baseline_of(project: Project, revision: str, place: str) -> tuple[str, dict[str, Side], str]:
    """The baseline's commit, its files by path, and why only the lock's hashes are known of them, if so.

    revision: of the repository `place`; "" for the lock's. Raises UsageError for an unknown one, and NoSource.
    """
    lock, pin = project.lock, project.lock.baseline
    locked = revision in ("", pin.commit) and not place
    sides = {file.path: (file.baseline, project.store.get(file.baseline)) for file in lock.files}
    if locked and all(data is not None or hash_ == ABSENT for hash_, data in sides.values()):
        return pin.commit, sides, ""
    folders = lock.decisions.components.values()
    try:
        read = git.commit(place or pin.url, revision or pin.commit, pin.branch, folders, offline=project.offline)
    except NoSource as error:
        if locked:
            return pin.commit, sides, str(error)
        raise
    for data in read.files.values():
        project.store.put(data)
    found: dict[str, Side] = {path: (sha256(data), data) for path, data in read.files.items()}
    return read.id, {path: found.get(path, (ABSENT, None)) for path in sides}, ""


def check(project: Project, upstream: Mapping[str, bytes], baseline_from: str) -> None:
    """Check the claims of lock and documents. Raises Drift for false ones, and NoSource for a commit not read."""
    false, unread, lock = [], [], project.lock
    folders = lock.decisions.components.values()
    for name, pin, place in (("upstream", lock.pin, project.upstream), ("baseline", lock.baseline, baseline_from)):
        try:
            read = git.commit(place or pin.url, pin.commit, pin.branch, folders, offline=project.offline)
        except NoSource as error:
            unread.append(f"not checked: {name} {pin.commit[:12]}: {error}")
            continue
        claimed = {"date": pin.date, **{file.path: getattr(file, name) for file in lock.files}}
        actual = {"date": read.date, **{path: sha256(data) for path, data in read.files.items()}}
        # The baseline may have more files.
        for what in sorted({*claimed, *(actual if name == "upstream" else ())}):
            one, other = claimed.get(what, ABSENT), actual.get(what, ABSENT)
            if one != other:
                false.append(f"{NAME}: {what} of {name}: claimed {one!r}, actual {other!r}")
    try:
        patches = read_patches(project.root, lock.patched)
        results(lock.patched, upstream, patches, [*lock.decisions.extras])
        false += [f"{name}: its computed parts are stale" for name in docs.stale(project.root, lock, patches)]
    except ToolError as error:
        false.append(str(error))
    false += _unknown_ids(project.root)
    body = {"false": false, "not_checked": unread}
    if false:
        tables = Next("lock", "computes the documents' tables")
        back = f"git checkout {NAME}  # if the lock is false"
        raise Drift(f"{len(false)} claims are false", false + unread, [tables, back], body)
    if unread:
        step = Next("audit", "uses your own clones", {"upstream": "PATH", "baseline_from": "PATH"})
        raise NoSource("some claims could not be checked; all others hold", unread, [step], body)


def _unknown_ids(root: Path) -> Iterator[str]:
    """A line for each id in the documents that the lock does not have."""
    known = (root / NAME).read_text(encoding="utf-8")
    for name in (name for name in docs.DOCUMENTS if (root / name).exists()):
        for number, line in enumerate((root / name).read_text("utf-8", "surrogateescape").splitlines(), 1):
            # Whole ids anywhere, shortened ones between backticks.
            ids = re.findall(r"(?<=`)[0-9a-f]{7,64}(?=`)|\b(?:[0-9a-f]{64}|[0-9a-f]{40})\b", line)
            unknown = (said for said in ids if not re.search(rf"\b{said}", known))
            yield from (f"{name}:{number}: no id in {NAME}: {said}" for said in unknown)
