"""A file put together from pieces of other files: finding the pieces, and laying them end to end.

The text of a file's pieces names the members that it takes from, then the pieces in order:

    msst:msst/models/a.py pymss:pymss/b.py | a0+120 7+31 b900+45

A piece is OFFSET+LENGTH in bytes. `a` is the first member that was named, `b` the second; a piece without a letter is
from the same member as the one before it. Nothing is trusted here: the caller holds the result against its hash.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence

# As many pieces as a file is worth.
MOST = 400
# Bytes of one member or of what pieces give; of all members of a wheel.
LARGEST, LARGEST_TOGETHER = 4 * 1024 * 1024, 64 * 1024 * 1024
# A text is to stand in any file, between quotes, and has blanks between its words.
_NAME = re.compile(r"[^\s\"\\\x00-\x1f\x7f]+")
_PIECE = re.compile(r"([a-z]*)([0-9]{1,9})\+([0-9]{1,9})")
_BAR = "|"
# What zipfile raises for a file that is no zip file, or half of one.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, OverflowError, struct.error)


def find(data: bytes, members: Mapping[str, bytes], most: int = MOST) -> str | None:
    """The text of the pieces of `members` that give `data`; None where that takes more than `most`, or cannot be.

    Each piece is the longest that any member has there. Of equally long ones the member in use goes first, then those
    in use before, then the order of `members`; in a member the first place. A member whose name has a blank, a quote, a
    backslash or a control character in it is passed over.
    """
    usable = [name for name in members if _NAME.fullmatch(name)]
    named: list[str] = []
    words: list[str] = []
    current = ""
    at = 0
    while at < len(data):
        # Sorting is stable.
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


def members_of(pieces: str) -> tuple[str, ...]:
    """The names of the members that the text `pieces` takes from. Raises ValueError when it is malformed."""
    names, _ = _read(pieces)
    return names


def assemble(pieces: str, members: Mapping[str, bytes]) -> bytes:
    """The bytes that the text `pieces` gives, taken from `members`.

    Raises ValueError, in words, when it is malformed, when a member is not there or ends before a piece does, and when
    the result is larger than LARGEST.
    """
    names, found = _read(pieces)
    if missing := [name for name in names if name not in members]:
        raise ValueError(f"there is no member {', '.join(missing)}")
    result = bytearray()
    for name, offset, length in found:
        if offset + length > len(members[name]):
            raise ValueError(f"{name} has {len(members[name])} bytes, a piece ends at {offset + length}")
        result += members[name][offset : offset + length]
        if len(result) > LARGEST:
            raise ValueError(f"the pieces give more than {LARGEST} bytes")
    return bytes(result)


def python_members(wheel: bytes, name: str) -> dict[str, bytes]:
    """The Python files in `wheel`, the bytes of a zip file, with CRLF as LF, by `NAME:path/in/the/wheel.py`.

    Raises ValueError when it is no zip file, and for a member that is encrypted, packed as no wheel is, or larger than
    LARGEST, as for members that are larger than LARGEST_TOGETHER. Nothing is unpacked to disk.
    """
    members: dict[str, bytes] = {}
    left = LARGEST_TOGETHER
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".py"):
                    data = _member(archive, info)
                    if (left := left - len(data)) < 0:
                        raise ValueError(f"its Python files have more than {LARGEST_TOGETHER} bytes")
                    members[f"{name}:{info.filename}"] = data.replace(b"\r\n", b"\n")
    except _BROKEN as error:
        raise ValueError(f"not a wheel: {error}") from error
    return members


def _longest(data: bytes, at: int, names: Sequence[str], members: Mapping[str, bytes]) -> tuple[str, int, int]:
    """(member, offset, length) of the longest piece that is at `data[at:]`; the length is 0 where there is none."""
    best = ("", 0, 0)
    for name in names:
        member = members[name]
        longer = best[2] + 1
        place = member.find(data[at : at + longer])
        while place >= 0 and at + longer <= len(data):
            length = longer + _alike(data, at + longer, member, place + longer)
            best = (name, place, length)
            longer = length + 1
            # What is longer cannot begin before the first place of what is shorter.
            place = member.find(data[at : at + longer], place + 1)
    return best


def _alike(one: bytes, at: int, two: bytes, there: int) -> int:
    """How many bytes of `one` from `at` on are those of `two` from `there` on."""
    same, step = 0, 64
    while step:
        here, other = at + same, there + same
        end = min(step, len(one) - here, len(two) - other)
        if end and one[here : here + end] == two[other : other + end]:
            same, step = same + end, step * 2
        else:
            step = min(step, end + 1) // 2
    return same


def _read(pieces: str) -> tuple[tuple[str, ...], list[tuple[str, int, int]]]:
    """The members' names in a text, and its pieces as (member, offset, length)."""
    before, bar, after = pieces.rpartition(_BAR)
    names = tuple(before.split())
    if not bar:
        raise ValueError(f"the pieces {pieces[:40]!r} have no {_BAR} between members and places")
    return names, list(_places(after, names))


def _places(text: str, names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
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
    text = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        text = chr(ord("a") + letter) + text
    return text


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > LARGEST:
        raise ValueError(f"{info.filename} is larger than {LARGEST} bytes")
    if info.flag_bits & 1:
        raise ValueError(f"{info.filename} is encrypted")
    # The others unpack a whole block at a time, however large.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is packed with method {info.compress_type}, which no wheel uses")
    with archive.open(info) as stream:
        # Bounded, since the size that the archive gives may be a lie.
        data = stream.read(LARGEST)
        if stream.read(1):
            raise ValueError(f"{info.filename} is larger than it says")
    return data
