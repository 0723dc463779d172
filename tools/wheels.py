"""Getting a pinned file's bytes back out of a wheel: named, tiny, reversible-by-hash steps.

A packager may have changed line endings, import paths or the last newline. Each step undoes one such change; whether
the guess was right is decided by the pinned hash, never here.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from tools.limits import LARGEST_FILE

STEPS = {
    "lf": "CRLF line ends become LF",
    "no-final-newline": "one newline at the very end goes",
    "import-prefix": "`import-prefix OLD NEW`: imports from packages under OLD come from NEW again",
}
# What zipfile has for a file that is no zip file, or only half of one.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, OverflowError, struct.error)
_ARGUMENTS = {"lf": 0, "no-final-newline": 0, "import-prefix": 2}


@dataclass(frozen=True)
class UndoStep:
    """One step: its name from STEPS, and that step's arguments."""

    name: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.name, *self.arguments))

    def __call__(self, data: bytes) -> bytes:
        if self.name == "lf":
            return data.replace(b"\r\n", b"\n")
        if self.name == "no-final-newline":
            return data.removesuffix(b"\n")
        old, new = (argument.encode() for argument in self.arguments)
        lines = data.split(b"\n")
        return b"\n".join(_reimport(line, old, new) for line in lines)


def _reimport(line: bytes, old: bytes, new: bytes) -> bytes:
    body = line.lstrip()
    for word in (b"from ", b"import "):
        if body.startswith(word + old):
            return line[: len(line) - len(body)] + word + new + body[len(word + old) :]
    return line


def parse_step(text: str) -> UndoStep:
    """The step that a lock's `undo` entry names. Raises ValueError, saying which steps there are."""
    name, *arguments = text.split()
    if name not in STEPS:
        raise ValueError(f"undo step {name!r} is unknown; there are {', '.join(STEPS)}")
    if len(arguments) != _ARGUMENTS[name]:
        raise ValueError(f"undo step {name} takes {_ARGUMENTS[name]} arguments, has {len(arguments)}")
    return UndoStep(name, tuple(arguments))


def read_member(wheel: bytes, member: str, undo: Iterable[UndoStep]) -> bytes:
    """The bytes of `member` in `wheel` (the bytes of a zip file) after every `undo` step, in order.

    Raises KeyError when there is no such member, ValueError when it is too large, encrypted or packed as no wheel is,
    or when the wheel is no zip file. Nothing is ever unpacked to disk.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            info = archive.getinfo(member)
            if info.file_size > LARGEST_FILE:
                raise ValueError(f"{member} is larger than {LARGEST_FILE} bytes")
            if info.flag_bits & 1:
                raise ValueError(f"{member} is encrypted")
            # The others unpack a whole block at a time, however large.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member} is packed with method {info.compress_type}, which no wheel uses")
            with archive.open(info) as stream:
                # Bounded, since the size that the archive gives may be a lie.
                data = stream.read(LARGEST_FILE)
                if stream.read(1):
                    raise ValueError(f"{member} is larger than it says")
    except _BROKEN as error:
        raise ValueError(f"not a wheel: {error}") from error
    for step in undo:
        data = step(data)
    return data
