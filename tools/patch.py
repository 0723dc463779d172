"""Reads, checks, applies and writes patches: a DEP-3 header, and a git diff of one file without context."""

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from email.parser import HeaderParser

from tools.errors import HashMismatch, Next, Undecided, UsageError
from tools.files import blob_id

# Starts a Description that nobody has written yet.
TO_WRITE = "TODO"
REQUIRED = ("Description", "Origin", "Forwarded")
OPTIONAL = ("Author", "Bug", "Applied-Upstream", "Last-Update")
_START = re.compile(
    r"diff --git a/(?P<path>[^\n]+) b/(?P=path)\nindex ([0-9a-f]{40})\.\.([0-9a-f]{40}) 100644\n"
    r"--- a/(?P=path)\n\+\+\+ b/(?P=path)\n"
)
_SIDES = r"((?:-.*\n(?:\\.*\n)?)*)((?:\+.*\n(?:\\.*\n)?)*)"
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+\d+(?:,(\d{1,9}))? @@\n" + _SIDES)
_NO_END = "\n\\ No newline at end of file\n"
_MARKERS = (b"<<<<<<<", b"|||||||", b">>>>>>>")


@dataclass(frozen=True)
class Hunk:
    """Lines of the base, counted from 0, and the lines removed and added there. line: its line in the patch file."""

    place: slice
    removed: tuple[bytes, ...]
    added: tuple[bytes, ...]
    line: int


@dataclass(frozen=True)
class Patch:
    """A parsed patch file. target: the path that it changes. base, result: blob ids."""

    name: str
    header: dict[str, str]
    target: str
    base: str
    result: str
    hunks: tuple[Hunk, ...]

    @property
    def described(self) -> bool:
        """Whether its Description is written."""
        return not self.header["Description"].startswith(TO_WRITE)

    @property
    def counts(self) -> str:
        """Lines added and removed, such as `+3 -1`."""
        return f"+{sum(len(hunk.added) for hunk in self.hunks)} -{sum(len(hunk.removed) for hunk in self.hunks)}"

    @property
    def whole_base(self) -> bytes | None:
        """The whole base where the patch removes every line of it, and so contains it; else None."""
        base = b"".join(line for hunk in self.hunks for line in hunk.removed)
        return base if blob_id(base) == self.base else None


def parse(name: str, data: bytes) -> Patch:
    """The patch in `data`; messages call it `name`. Raises UsageError with every fault."""
    text = data.decode(errors="replace")
    head = text.partition("diff --git ")[0]
    parsed = HeaderParser().parsestr(head)
    header = {field: value.replace("\n ", "\n") for field, value in parsed.items()}
    faults = [f"header field {field} is missing" for field in REQUIRED if not header.get(field)]
    faults += [f"{field} is no header field" for field in header if field not in REQUIRED + OPTIONAL]
    if len(header) < len(parsed) or str(parsed.get_payload()).strip("-\n"):
        faults.append("the header has a field twice, or a line that belongs to no field")
    if text.encode() != data:
        faults.append("it is not UTF-8")
    if not (start := _START.match(text, len(head))):
        line = head.count("\n") + 1
        faults.append(f"line {line} should begin the diff of one file, with full blob ids and mode 100644")
    hunks = []
    end = start.end() if start else len(text)
    while end < len(text):
        line = text.count("\n", 0, end) + 1
        if not (found := _HUNK.match(text, end)):
            faults.append(f"line {line} should begin a hunk of the one file, without context")
            break
        sides = (lines_of(side.replace(_NO_END, "").encode()) for side in found.group(4, 5))
        removed, added = (tuple(line[1:] for line in lines) for lines in sides)
        if [len(removed), len(added)] != [int(count or 1) for count in found.group(2, 3)]:
            faults.append(f"line {line} has line counts that do not match its hunk")
        # A hunk that removes nothing names the line before it.
        at = int(found[1]) - bool(removed)
        hunks.append(Hunk(slice(at, at + len(removed)), removed, added, line))
        end = found.end()
    if faults or not start:
        steps = (f"git checkout patches/{name}, or fix it", Next("refresh", "writes well-formed patches"))
        raise UsageError(f"{name} is malformed", [f"{name}: {fault}" for fault in faults], steps)
    return Patch(name, header, start["path"], start[2], start[3], tuple(hunks))


def lines_of(data: bytes) -> list[bytes]:
    """The lines of `data` with their ends. As for git, only a line feed ends a line."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def splice(patch: Patch, base: bytes) -> bytes:
    """Apply `patch` to `base`. Raises Undecided for a wrong base, and HashMismatch for a wrong result."""
    lines = lines_of(base)
    misfits = [
        f"{patch.name}:{hunk.line}: the removed lines are not on line {hunk.place.start + 1}"
        for hunk in patch.hunks
        if tuple(lines[hunk.place]) != hunk.removed
    ]
    if (actual := blob_id(base)) != patch.base or misfits:
        blobs = [f"expected base blob {patch.base}", f"actual base blob   {actual}"]
        step = f"git checkout patches/{patch.name}  # if it was edited"
        raise Undecided(f"{patch.name} does not apply to {patch.target}", [*blobs, *misfits], [step])
    # From the end, so that the places of the others stay.
    for hunk in reversed(patch.hunks):
        lines[hunk.place] = hunk.added
    data = b"".join(lines)
    if (outcome := blob_id(data)) != patch.result:
        raise HashMismatch(
            f"{patch.name} does not give the result that it names",
            [f"expected blob {patch.result}", f"actual blob   {outcome}"],
            [f"git checkout patches/{patch.name}", Next("refresh", "makes a patch from an edit in the tree")],
        )
    return data


def compose(header: Mapping[str, str], diff: str) -> bytes:
    """A patch file from its header fields and the text of a diff."""
    fields = [f"{name}: {header[name]}".replace("\n", "\n ") for name in REQUIRED + OPTIONAL if name in header]
    return ("\n".join(fields) + "\n\n" + diff).encode(errors="surrogateescape")


def new_header(description: str | None, today: date) -> dict[str, str]:
    """The header of a first patch; without a description, it has a TODO."""
    text = description or f"{TO_WRITE}: say what this changes and why"
    return {"Description": text, "Origin": "other", "Forwarded": "no", "Last-Update": today.isoformat()}


def faults(path: str, upstream: bytes, result: bytes) -> list[str]:
    """Why no patch may turn `upstream` into `result`: emptied, conflicts, new Windows line ends or broken Python."""
    if not result.strip():
        return [f"{path}: is empty"] if upstream.strip() else []
    before = lines_of(upstream)
    numbered = enumerate(lines_of(result), 1)
    if marked := [str(at) for at, line in numbered if line.startswith(_MARKERS) and line not in before]:
        return [f"{path}: conflict markers on lines {', '.join(marked)}"]
    if b"\r\n" in result and b"\r\n" not in upstream:
        return [f"{path}: has Windows line ends, and upstream's has not"]
    if (fault := _syntax_fault(result)) and not _syntax_fault(upstream):
        return [f"{path}: is not valid Python: {fault}"]
    return []


def _syntax_fault(data: bytes) -> str:
    """Why `data` is not valid Python in UTF-8; "" where it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(data.decode())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return ""
