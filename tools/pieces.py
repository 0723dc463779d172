"""Builds a file from pieces of the files in wheels, and finds those pieces.

The pieces of a file are one line: names of members (files in wheels), a bar, then MEMBER:OFFSET+LENGTH in bytes:

    msst:msst/models/a.py pymss:pymss/b.py | 0:0+120 0:7+31 1:900+45

MEMBER counts from 0. Joined, the pieces give the file; the caller checks its hash.
"""

import io
import re
import zipfile
from collections.abc import Mapping

# The most pieces of a file.
MOST = 400
# The text stands in quotes, and blanks separate its words.
_NAME = re.compile(r"[^\s\"\\\x00-\x1f\x7f]+")
_BAR = " | "


def find(data: bytes, members: Mapping[str, bytes], most: int = MOST) -> str | None:
    """The text of the pieces of `members` that give `data`; None where there is none, or it takes more than `most`.

    Each piece is the longest that any member has. Among equals, members already used come first.
    """
    usable = [name for name in members if _NAME.fullmatch(name)]
    named: list[str] = []
    places: list[str] = []
    while data:
        name, offset, length = "", 0, 0
        for member in sorted(usable, key=lambda one: one not in named):
            text, place = members[member], 0
            # A longer match cannot start before the first shorter one.
            while length < len(data) and (place := text.find(data[: length + 1], place)) >= 0:
                name, offset = member, place
                while length < len(data) and text.startswith(data[: length + 1], place):
                    length += 1
        if not length or len(places) == most:
            return None
        named += [] if name in named else [name]
        places.append(f"{named.index(name)}:{offset}+{length}")
        data = data[length:]
    return " ".join(named) + _BAR + " ".join(places)


def assemble(pieces: str, members: Mapping[str, bytes]) -> bytes:
    """The file that the text `pieces` gives. Raises ValueError for missing members and an empty or malformed text."""
    before, bar, after = pieces.partition(_BAR)
    names = before.split()
    if missing := [name for name in names if name not in members]:
        raise ValueError(f"there is no member {', '.join(missing)}")
    if not bar:
        raise ValueError("the lock lists no pieces")
    places = (map(int, re.split("[:+]", place)) for place in after.split())
    return b"".join(members[names[member]][offset : offset + length] for member, offset, length in places)


def python_members(wheel: bytes, name: str) -> dict[str, bytes]:
    """The Python files in `wheel` by `NAME:path.py`, with CRLF as LF. Raises ValueError for a damaged wheel."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            names = [member for member in archive.namelist() if member.endswith(".py")]
            return {f"{name}:{member}": archive.read(member).replace(b"\r\n", b"\n") for member in names}
    except Exception as error:  # of many kinds, for a damaged file
        raise ValueError(f"not a wheel: {error}") from error
