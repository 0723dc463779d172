"""Our patch files: reading, the rules for them, and whether one fits its base. Pure, over bytes and values.

A patch here is one DEP-3 header and one git diff of one file with zero context lines. It says everything about itself
twice: in the lock, and in its `index` line. Applying is git's job (`git.py`), never done here.
"""

import re
from dataclasses import dataclass
from datetime import date

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from tools.errors import MalformedPatch
from tools.hashes import blob_id
from tools.limits import LARGEST_PATCH
from tools.lock import path_fault

# What a Description begins with as long as nobody wrote it.
TO_WRITE = "TODO"
HEADER_FIELDS = ("Description", "Origin", "Forwarded", "Last-Update")
_FIELD = re.compile(r"([A-Z][A-Za-z-]*): (\S.*)")
_DIFF = re.compile(r"diff --git (.+)")
_INDEX = re.compile(r"index ([0-9a-f]{40})\.\.([0-9a-f]{40}) 100644")
_HUNK = re.compile(r"@@ -[0-9]+(,[0-9]+)? \+[0-9]+(,[0-9]+)? @@(.*)")
# The first characters of a hunk's lines: what goes, what comes, and where a side ends without a newline.
_HUNK_SHAPE = re.compile(r"(?!$)(-+\\?)?(\++\\?)?")
_NO_NEWLINE = "\\ No newline at end of file"
# What a patch of ours never does, by the line in which git says so.
_REFUSED = {
    "old mode ": "changes a file mode",
    "new mode ": "changes a file mode",
    "new file mode ": "creates a file",
    "deleted file mode ": "deletes a file",
    "rename ": "renames a file",
    "copy ": "copies a file",
    "similarity ": "renames or copies a file",
    "dissimilarity ": "rewrites a file",
    "GIT binary patch": "is binary",
    "Binary files ": "is binary",
}


@dataclass(frozen=True)
class Hunk:
    """One change: `removed` and `added` lines without their line ends.

    `at` is the 1-based line of the base where the change starts, `lands` the same in the result, `line` the hunk's own
    line in the patch file. The last two say which side ends without a newline.
    """

    at: int
    lands: int
    removed: tuple[str, ...]
    added: tuple[str, ...]
    line: int
    base_ends_open: bool
    result_ends_open: bool


@dataclass(frozen=True)
class Patch:
    """A parsed patch file: header fields, target path, base and result blob ids, hunks in order."""

    name: str
    header: dict[str, str]
    target: str
    base: str
    result: str
    hunks: tuple[Hunk, ...]

    @property
    def described(self) -> bool:
        return not self.header["Description"].startswith(TO_WRITE)

    @property
    def added(self) -> int:
        return sum(len(hunk.added) for hunk in self.hunks)

    @property
    def removed(self) -> int:
        return sum(len(hunk.removed) for hunk in self.hunks)


def parse(name: str, data: bytes, *, draft: bool = False) -> Patch:
    """The patch in `data`; `name` is what messages call it. draft: a Description may still be to write.

    Raises MalformedPatch with every fault and its line: not UTF-8 or not LF; a missing header field; anything but one
    modified regular file; a path that is absolute or leaves the tree; short blob ids; a context line.
    """
    faults: list[tuple[int, str]] = []
    if len(data) > LARGEST_PATCH:
        raise _malformed(name, [(1, f"has more than {LARGEST_PATCH} bytes")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(name, [(1, f"is not UTF-8: {error}")]) from error
    if "\0" in text:
        raise _malformed(name, [(1, "has a NUL byte; patches are plain text")])
    if not text.endswith("\n"):
        faults.append((text.count("\n") + 1, "ends without a newline"))
    lines = text.removesuffix("\n").split("\n")
    # In a body a carriage return is a character like any other: a file may have one.
    ours = [number for number, line in enumerate(lines, 1) if line.endswith("\r") and line[:1] not in ("+", "-")]
    if ours:
        raise _malformed(name, [(ours[0], "ends in a carriage return; was it checked out with other line ends?")])
    start = next((number for number, line in enumerate(lines) if _DIFF.match(line)), None)
    if start is None:
        raise _malformed(name, [*faults, (1, "has no `diff --git` line")])
    header = _read_header(lines[:start], faults, draft)
    target = _read_target(lines[start], start + 1, faults)
    base, result, body = _read_preamble(lines, start, target, faults)
    for number, line in enumerate(lines[body:], body + 1):
        _check_body_line(number, line, faults)
    if faults:
        raise _malformed(name, faults)
    # Only a hunk header can start with @@ here: every body line has its sign first.
    headers = [number for number, line in enumerate(lines[start:], start + 1) if line.startswith("@@")]
    ends = [*headers, len(lines) + 1][1:]
    try:
        files = PatchSet("\n".join(lines[start:]) + "\n")
        if len(files) != 1:
            raise ValueError(f"it holds {len(files)} files, not one")
        found = list(zip(files[0], headers, ends, strict=True))
    except (UnidiffParseError, ValueError) as error:
        raise _malformed(name, [(start + 1, f"does not parse: {error}")]) from error
    if lines[body:] and (not headers or headers[0] != body + 1):
        faults.append((body + 1, "should be the first hunk's header"))
    hunks: list[Hunk] = []
    shift = 0
    for hunk, header_line, end in found:
        # unidiff passes over some lines behind a hunk; git would, too.
        signs = "".join(line[0] for line in lines[header_line : end - 1])
        if len(hunk) != len(signs) or not _HUNK_SHAPE.fullmatch(signs):
            faults.append((header_line, f"hunk {len(hunks) + 1} should be its removed lines, then its added lines"))
        # A side without lines is numbered by the line before it.
        at = hunk.source_start + (hunk.source_length == 0)
        lands = hunk.target_start + (hunk.target_length == 0)
        if at < 1 or lands != at + shift or (hunks and at < hunks[-1].at + len(hunks[-1].removed)):
            faults.append(
                (header_line, f"hunk {len(hunks) + 1} lands on line {lands}; the hunks before it say {at + shift}")
            )
        shift += hunk.target_length - hunk.source_length
        kinds = [(str(entry.line_type), str(entry.value).removesuffix("\n")) for entry in hunk]
        open_after = {kinds[place - 1][0] for place, (kind, _) in enumerate(kinds) if kind == "\\" and place}
        hunks.append(
            Hunk(
                at=at,
                lands=lands,
                removed=tuple(value for kind, value in kinds if kind == "-"),
                added=tuple(value for kind, value in kinds if kind == "+"),
                line=header_line,
                base_ends_open="-" in open_after,
                result_ends_open="+" in open_after,
            )
        )
    if not hunks:
        faults.append((start + 1, "has no hunks"))
    if faults:
        raise _malformed(name, faults)
    return Patch(name, header, target, base, result, tuple(hunks))


def blemishes(patch: Patch) -> list[str]:
    """What `patch` adds that applies exactly and is bad style nevertheless: blanks or carriage returns at line ends.

    `lint` refuses these; applying does not, since an edited tree has to come back byte for byte.
    """
    found = []
    for hunk in patch.hunks:
        first = hunk.line + 1 + len(hunk.removed) + hunk.base_ends_open
        for number, line in enumerate(hunk.added, first):
            # Blanks only: a form feed on a line of its own is a page break.
            if line.endswith("\r"):
                found.append(f"{patch.name}:{number}: adds a carriage return: {'+' + line!r}")
            elif line != line.rstrip(" \t"):
                found.append(f"{patch.name}:{number}: adds trailing whitespace: {'+' + line!r}")
    return found


def misfits(patch: Patch, base: bytes) -> list[str]:
    """Why each hunk of `patch` that does not fit `base` does not, in words; empty when all fit exactly."""
    lines = base.decode("utf-8", errors="surrogateescape").split("\n")
    ends_open = lines[-1] != ""
    if not ends_open:
        lines.pop()
    found = []
    for number, hunk in enumerate(patch.hunks, 1):
        where = f"hunk {number} of {len(patch.hunks)} ({patch.name}:{hunk.line})"
        end = hunk.at - 1 + len(hunk.removed)
        if end > len(lines):
            found.append(f"{where} needs line {end}, but the base has {len(lines)}")
            continue
        for offset, expected in enumerate(hunk.removed):
            actual = lines[hunk.at - 1 + offset]
            if actual != expected:
                found.append(f"{where} expects line {hunk.at + offset} to be {expected!r}, it is {actual!r}")
                break
        else:
            # What is added behind a last line without a newline would be glued to it.
            reaches_open_end = ends_open and end == len(lines)
            if hunk.base_ends_open != reaches_open_end:
                found.append(f"{where} disagrees with the base about the newline at its end")
    return found


def held_base(patch: Patch) -> bytes | None:
    """The bytes of the file that `patch` was made for, where it removes every line of it; else None."""
    removed = [line for hunk in patch.hunks for line in hunk.removed]
    end = "" if any(hunk.base_ends_open for hunk in patch.hunks) else "\n"
    base = ("\n".join(removed) + end).encode()
    return base if blob_id(base) == patch.base else None


def _read_header(lines: list[str], faults: list[tuple[int, str]], draft: bool) -> dict[str, str]:
    header: dict[str, str] = {}
    last = ""
    for number, line in enumerate(lines, 1):
        if not line or line == "---":
            continue
        if line.startswith(" ") and last:
            header[last] += "\n" + line[1:]
        elif (field := _FIELD.fullmatch(line)) and field[1] in HEADER_FIELDS and field[1] not in header:
            last = field[1]
            header[last] = field[2]
        else:
            faults.append((number, f"is no header line (one each of {', '.join(HEADER_FIELDS)}): {line!r}"))
    for missing in [field for field in HEADER_FIELDS if field not in header]:
        faults.append((1, f"header field {missing} is missing"))
    if header.get("Description", "").startswith(TO_WRITE) and not draft:
        faults.append((1, "Description is still to be written"))
    if "Last-Update" in header and not _is_date(header["Last-Update"]):
        faults.append((1, f"Last-Update should be YYYY-MM-DD, is {header['Last-Update']!r}"))
    return header


def _is_date(text: str) -> bool:
    try:
        # The comparison leaves out the other ways that ISO 8601 has for a day.
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _read_target(line: str, number: int, faults: list[tuple[int, str]]) -> str:
    names = line.removeprefix("diff --git ")
    source, _, target = names.partition(" ")
    path = target.removeprefix("b/")
    if source.startswith("a/") and target.startswith("b/") and source[2:] == path:
        if why := path_fault(path):
            faults.append((number, f"path {path!r} {why}"))
    else:
        faults.append((number, f"should be `diff --git a/PATH b/PATH` with one plain PATH, is {line!r}"))
    return path


def _read_preamble(lines: list[str], start: int, target: str, faults: list[tuple[int, str]]) -> tuple[str, str, int]:
    """Base id, result id and the 0-based line where hunks begin."""
    at = start + 1
    while at < len(lines) and (why := _refusal(lines[at])):
        faults.append((at + 1, why))
        at += 1
    index = _INDEX.fullmatch(lines[at]) if at < len(lines) else None
    if index is None:
        faults.append((at + 1, "should be `index <40 hex>..<40 hex> 100644`"))
        return "", "", len(lines)
    if lines[at + 1 : at + 2] and (why := _refusal(lines[at + 1])):
        faults.append((at + 2, why))
        return index[1], index[2], len(lines)
    for offset, expected in ((1, f"--- a/{target}"), (2, f"+++ b/{target}")):
        actual = lines[at + offset] if at + offset < len(lines) else ""
        if actual != expected:
            faults.append((at + offset + 1, f"should be {expected!r}, is {actual!r}"))
    return index[1], index[2], at + 3


def _refusal(line: str) -> str | None:
    why = next((why for head, why in _REFUSED.items() if line.startswith(head)), None)
    return f"{why}; a patch here changes the text of one regular file" if why else None


def _check_body_line(number: int, line: str, faults: list[tuple[int, str]]) -> None:
    if hunk := _HUNK.fullmatch(line):
        if hunk[3]:
            faults.append((number, f"hunk header quotes upstream: {hunk[3].strip()!r}"))
    elif line.startswith(" ") or not line:
        faults.append((number, "is a context line; patches here have none (diff with -U0)"))
    elif not line.startswith(("+", "-")) and line != _NO_NEWLINE:
        why = "starts a second file" if line.startswith("diff ") else "is no part of a diff"
        faults.append((number, f"{why}: {line!r}"))


def _malformed(name: str, faults: list[tuple[int, str]]) -> MalformedPatch:
    return MalformedPatch(
        f"{name} is malformed",
        [f"{name}:{line}: {text}" for line, text in sorted(faults)],
        ["write patches with `make refresh`, which keeps these rules"],
    )
