"""Builds a file from pieces of the files in wheels, and finds those pieces.

The pieces of a file are one line of text: names of members (files in wheels), a bar, then OFFSET+LENGTH in bytes:

    msst:msst/models/a.py pymss:pymss/b.py | a0+120 7+31 b900+45

`a` is the first member, `b` the second; without a letter it is the same member as before. Joined, the pieces give the
file; the caller checks its hash.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence

# The most pieces of a file.
MOST = 400
# The most bytes of one file, and of all members of a wheel.
LARGEST, LARGEST_TOGETHER = 4 * 1024 * 1024, 64 * 1024 * 1024
# The text stands in quotes, and blanks separate its words.
_NAME = re.compile(r"[^\s\"\\\x00-\x1f\x7f]+")
_PIECE = re.compile(r"([a-z]*)([0-9]{1,9})\+([0-9]{1,9})")
_BAR = "|"
# What zipfile raises for a damaged file.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, OverflowError, struct.error)


def find(data: bytes, members: Mapping[str, bytes], most: int = MOST) -> str | None:
    """The text of the pieces of `members` that give `data`; None where there is none, or it takes more than `most`.

    Each piece is the longest that any member has. Among equals, members already used come first.
    """
    usable = [name for name in members if _NAME.fullmatch(name)]
    named: list[str] = []
    words: list[str] = []
    current = ""
    at = 0
    while at < len(data):
        order = sorted(usable, key=lambda name: (name != current, name not in named))
        name, offset, length = _longest(data, at, order, members)
        if not length or len(words) == most:
            return None
        if name not in named:
            named.append(name)
        words.append(f"{_letters(named.index(name)) if name != current else ''}{offset}+{length}")
        current = name
        at += length
    return " ".join([*named, _BAR, *words])


def assemble(pieces: str, members: Mapping[str, bytes]) -> bytes:
    """The file that the text `pieces` gives. Raises ValueError for a malformed text, and for members that lack it."""
    before, bar, after = pieces.rpartition(_BAR)
    names = before.split()
    if not bar:
        raise ValueError(f"the pieces {pieces[:40]!r} have no {_BAR} between members and places")
    if missing := [name for name in names if name not in members]:
        raise ValueError(f"there is no member {', '.join(missing)}")
    result = bytearray()
    for name, offset, length in _places(after, names):
        if offset + length > len(members[name]):
            raise ValueError(f"{name} has {len(members[name])} bytes, a piece ends at {offset + length}")
        result += members[name][offset : offset + length]
        if len(result) > LARGEST:
            raise ValueError(f"the pieces give more than {LARGEST} bytes")
    return bytes(result)


def python_members(wheel: bytes, name: str) -> dict[str, bytes]:
    """The Python files in `wheel` by `NAME:path.py`, with CRLF as LF. Raises ValueError for a bad or huge wheel."""
    members: dict[str, bytes] = {}
    left = LARGEST_TOGETHER
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".py"):
                    data = _member(archive, info)
                    if (left := left - len(data)) < 0:
                        raise ValueError(f"its Python files are larger than {LARGEST_TOGETHER} bytes together")
                    members[f"{name}:{info.filename}"] = data.replace(b"\r\n", b"\n")
    except _BROKEN as error:
        raise ValueError(f"not a wheel: {error}") from error
    return members


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


def _places(text: str, names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """The pieces in `text` as (member, offset, length)."""
    by_letters = {_letters(number): name for number, name in enumerate(names)}
    current = None
    for word in text.split():
        piece = _PIECE.fullmatch(word)
        if not piece:
            raise ValueError(f"{word[:40]!r} is no piece, such as a0+12")
        current = by_letters.get(piece[1]) if piece[1] else current
        if current is None:
            raise ValueError(f"the piece {word} is of no member that was named")
        yield current, int(piece[2]), int(piece[3])


def _letters(number: int) -> str:
    """a to z, aa, ab and so on."""
    more, last = divmod(number, 26)
    return (_letters(more - 1) if more else "") + chr(ord("a") + last)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > LARGEST:
        raise ValueError(f"{info.filename} is larger than {LARGEST} bytes")
    # Other methods unpack a whole block at once, however large.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is packed with method {info.compress_type}, which no wheel uses")
    with archive.open(info) as stream:
        # The size that the archive gives may be false.
        data = stream.read(LARGEST)
        if stream.read(1):
            raise ValueError(f"{info.filename} is larger than it says")
    return data
