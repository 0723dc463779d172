"""Compares upstream, the baseline and the vendored tree file by file, and checks the claims of lock and documents."""

import re
from collections.abc import Iterator, Mapping, Sequence

import attrs

from tools import docs, git, manifest
from tools.apply import read_patches, results
from tools.diff import line_counts
from tools.errors import NoSource, ToolError, each
from tools.files import sha256
from tools.lock import ABSENT, NAME, PinnedFile
from tools.project import Project
from tools.relock import lint

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


def audit(project: Project, upstream: Mapping[str, bytes], baseline: Mapping[str, Side]) -> list[FileAudit]:
    """Compare the pinned files of upstream, the baseline and the tree; what the tree lacks is as the lock has it.

    Raises Drift for a manifest that is not ours, and as reading and applying a patch does.
    """

    def audited(file: PinnedFile) -> FileAudit:
        path, (hash_, old) = project.tree / file.path, baseline[file.path]
        if path.is_file():
            data = path.read_bytes()
            # Windows may have checked it out with its line ends.
            same = {sha256(data), sha256(data.replace(b"\r\n", b"\n"))}
            words = {hash_: "as the baseline", file.upstream: "unchanged", file.patched: "patched"}
            status = next((word for known, word in words.items() if known in same), "different")
        else:
            extras, patches = manifest.read(path.parent).extras, read_patches(project.root, [file])
            status, data = "not vendored", results([file], upstream, patches, extras)[file.path]
        claims = {file.upstream: "baseline agrees", ABSENT: "baseline lacks it"}
        hashes = {"upstream": file.upstream, "baseline": hash_, "vendored": sha256(data)}
        sides = {"upstream": upstream[file.path], "vendored": data} | ({} if old is None else {"baseline": old})
        pairs = [(one, other) for one, other in PAIRS if {one, other} <= sides.keys()]
        diffs = {(one, other): repo.diff(file.path, sides[one], sides[other], 3) for one, other in pairs}
        return FileAudit(file.path, (status, claims.get(hash_, "baseline differs")), hashes, sides, diffs)

    with git.Repo.temporary() as repo:
        return each(project.lock.files, audited)


def table(project: Project, baseline: str, files: Sequence[FileAudit]) -> tuple[list[list[str]], list[str]]:
    """The report for people: rows of cells, and the lines below them."""
    rows = [["", "patch", "app", "move", "status"]]
    for part in project.lock.components:
        rows.append([part.path])
        for file in (file for file in files if file.path.startswith(f"{part.path}/")):
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

    revision: a commit, branch or tag, "" for the lock's. place: another repository. Raises UsageError for an unknown
    revision, and NoSource where one other than the lock's cannot be read.
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


def commit_claims(project: Project, baseline_from: str) -> tuple[list[str], list[str]]:
    """Compare the lock with both commits, read again: a line for each false claim, and for each commit not read."""
    false, unread, lock = [], [], project.lock
    folders = lock.decisions.components.values()
    for name, pin, place in (("upstream", lock.pin, project.upstream), ("baseline", lock.baseline, baseline_from)):
        try:
            read = git.commit(place or pin.url, pin.commit, pin.branch, folders, offline=project.offline)
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


def claims(project: Project, upstream: Mapping[str, bytes]) -> Iterator[str]:
    """A line for each false claim: of the lock about patches, of the documents in computed parts and ids."""
    try:
        lint(project, upstream)
    except ToolError as error:
        yield str(error)
    known = (project.root / NAME).read_text(encoding="utf-8")
    for name in (name for name in docs.DOCUMENTS if (project.root / name).exists()):
        for number, line in enumerate((project.root / name).read_text(encoding="utf-8").splitlines(), 1):
            # Whole ids anywhere, shortened ones between backticks.
            for said in re.findall(r"(?<=`)[0-9a-f]{7,64}(?=`)|\b(?:[0-9a-f]{64}|[0-9a-f]{40})\b", line):
                if not re.search(rf"\b{said}", known):
                    yield f"{name}:{number}: no id in {NAME}: {said}"
