"""Builds a file from pieces of the files in wheels, and finds those pieces.

The pieces of a file are one line of text: names of members (files in wheels), a bar, then MEMBER:OFFSET+LENGTH:

    msst:msst/models/a.py pymss:pymss/b.py | 0:0+120 0:7+31 1:900+45

MEMBER counts from 0, the others are bytes. Joined, the pieces give the file; the caller checks its hash.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence

# The most pieces of a file.
MOST = 400
# The text stands in quotes, and blanks separate its words.
_NAME = re.compile(r"[^\s\"\\\x00-\x1f\x7f]+")
_BAR = " | "
# What zipfile raises for a damaged file.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)


def find(data: bytes, members: Mapping[str, bytes], most: int = MOST) -> str | None:
    """The text of the pieces of `members` that give `data`; None where there is none, or it takes more than `most`.

    Each piece is the longest that any member has. Among equals, members already used come first.
    """
    usable = [name for name in members if _NAME.fullmatch(name)]
    named: list[str] = []
    places: list[str] = []
    at = 0
    while at < len(data):
        name, offset, length = _longest(data, at, sorted(usable, key=lambda name: name not in named), members)
        if not length or len(places) == most:
            return None
        if name not in named:
            named.append(name)
        places.append(f"{named.index(name)}:{offset}+{length}")
        at += length
    return " ".join(named) + _BAR + " ".join(places)


def assemble(pieces: str, members: Mapping[str, bytes]) -> bytes:
    """The file that the text `pieces` gives. Raises ValueError for missing members and a malformed text."""
    before, _, after = pieces.partition(_BAR)
    names = before.split()
    if missing := [name for name in names if name not in members]:
        raise ValueError(f"there is no member {', '.join(missing)}")
    result = b""
    for place in after.split():
        member, offset, length = map(int, re.split("[:+]", place))
        result += members[names[member]][offset : offset + length]
    return result


def python_members(wheel: bytes, name: str) -> dict[str, bytes]:
    """The Python files in `wheel` by `NAME:path.py`, with CRLF as LF. Raises ValueError for a damaged wheel."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            names = [member for member in archive.namelist() if member.endswith(".py")]
            return {f"{name}:{member}": archive.read(member).replace(b"\r\n", b"\n") for member in names}
    except _BROKEN as error:
        raise ValueError(f"not a wheel: {error}") from error


def _longest(data: bytes, at: int, names: Sequence[str], members: Mapping[str, bytes]) -> tuple[str, int, int]:
    """(member, offset, length) of the longest piece at `data[at:]`; length 0 for none."""
    best = ("", 0, 0)
    for name in names:
        member = members[name]
        longer = best[2] + 1
        place = member.find(data[at : at + longer])
        while place >= 0 and at + longer <= len(data):
            length = longer + _alike(data[at + longer :], member[place + longer :])
            best = (name, place, length)
            longer = length + 1
            # A longer match cannot start before the first shorter one.
            place = member.find(data[at : at + longer], place + 1)
    return best


def _alike(one: bytes, two: bytes) -> int:
    """The number of bytes that `one` and `two` start with alike."""
    differ = (at for at, (byte, other) in enumerate(zip(one, two, strict=False)) if byte != other)
    return next(differ, min(len(one), len(two)))
