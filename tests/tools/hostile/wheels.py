"""Hostile wheels: what an index may answer with, although the lock names another hash, or names this one."""

import io
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

MEMBER = "tiny/core.py"
_TEXT = b"# what an index gives in place of the pinned file\n" * 20


@dataclass(frozen=True)
class Wheel:
    """The bytes of one, and the pattern of what is said of it. known: the lock names its hash."""

    name: str
    data: bytes
    says: str
    known: bool = True


def packed(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file with `members` in this order."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


PLAIN = packed((MEMBER, _TEXT))


def _field(data: bytes, local: int, central: int, form: str, value: int) -> bytes:
    """`data` with a header field of its first member set, in the member's own header and in the directory."""
    changed = bytearray(data)
    struct.pack_into(form, changed, local, value)
    struct.pack_into(form, changed, data.index(b"PK\x01\x02") + central, value)
    return bytes(changed)


def _far(offset: int) -> bytes:
    """`PLAIN` with its member at `offset`, in the extra field where zip keeps what takes eight bytes."""
    start = PLAIN.index(b"PK\x01\x02")
    changed = bytearray(PLAIN)
    extra = struct.pack("<HHQ", 1, 8, offset)
    struct.pack_into("<H", changed, start + 30, len(extra))
    struct.pack_into("<I", changed, start + 42, 2**32 - 1)
    end = changed.index(b"PK\x05\x06")
    struct.pack_into("<I", changed, end + 12, end - start + len(extra))
    changed[end:end] = extra
    return bytes(changed)


def _link(target: str) -> bytes:
    info = zipfile.ZipInfo(MEMBER)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return packed((info, target.encode()))


def wheels() -> Iterator[Wheel]:
    absent = re.escape(f"there is no member tiny:{MEMBER}")
    wrong = "wrong bytes"
    for name in ("../" + MEMBER, "/" + MEMBER, "../../../../tmp/owned", "C:\\core.py", "tiny\\core.py", ".git/config",
                 "tiny/../tiny/core.py", "TINY/core.py", "tiny/core.py/", "tiny/core.py ", "NUL", "tiny/c\u043ere.py",
                 "tiny/core.py\x1b[2J", "tiny/core.py:stream"):  # fmt: skip
        yield Wheel(f"a member called {name!r}", packed((name, _TEXT)), absent)
    yield Wheel("another wheel", PLAIN, "the wheel's SHA-256 is", known=False)
    yield Wheel("other bytes", PLAIN, wrong)
    yield Wheel("an escape beside other bytes", packed(("../../owned", _TEXT), (MEMBER, _TEXT)), wrong)
    yield Wheel("a link", _link("/etc/passwd"), wrong)
    yield Wheel("a link out", _link("../../../core.py"), wrong)
    yield Wheel("a doubled member", packed(("tiny/twin.py", b"1"), (MEMBER, b"2")).replace(b"twin", b"core"), wrong)
    yield Wheel("invalid UTF-8", packed((MEMBER, b"\xff\xfe\x00" * 9)), wrong)
    yield Wheel("nothing", b"", "not a wheel: File is not a zip file")
    yield Wheel("no zip file", b"<html>login</html>" * 99, "not a wheel: File is not a zip file")
    yield Wheel("an end alone", b"PK\x05\x06" + bytes(18), absent)
    yield Wheel("half of it", PLAIN[: len(PLAIN) // 2], "not a wheel: File is not a zip file")
    yield Wheel("its second half", PLAIN[len(PLAIN) // 3 :], "not a wheel: |negative seek value")
    yield Wheel("a broken stream", PLAIN[:50] + bytes(8) + PLAIN[58:], "not a wheel: ")
    yield Wheel("another checksum", _field(PLAIN, 14, 16, "<I", 1), "not a wheel: Bad CRC-32")
    yield Wheel("an encrypted member", _field(PLAIN, 6, 8, "<H", 1), f"{MEMBER} is encrypted")
    for method, name in ((9, "deflate64"), (12, "bzip2"), (14, "lzma"), (93, "zstandard"), (99, "aes")):
        said = f"{MEMBER} is packed with method {method}, which no wheel uses"
        yield Wheel(f"packed with {name}", _field(PLAIN, 8, 10, "<H", method), said)
    yield Wheel("a bzip2 bomb", packed((MEMBER, bytes(1 << 22)), method=zipfile.ZIP_BZIP2), "packed with method 12")
    bomb = packed((MEMBER, bytes(1 << 25)))
    yield Wheel("a bomb", bomb, f"{MEMBER} is larger than 4194304 bytes")
    yield Wheel("a bomb that says it is small", _field(bomb, 22, 24, "<I", 100), "not a wheel: Bad CRC-32|wrong bytes")
    yield Wheel("a size of four gigabytes", _field(PLAIN, 22, 24, "<I", 2**32 - 2), f"{MEMBER} is larger than")
    yield Wheel("a packed size of four gigabytes", _field(PLAIN, 18, 20, "<I", 2**32 - 2), wrong)
    other = PLAIN.replace(MEMBER.encode(), b"tiny/evil.py", 1)
    yield Wheel("two names for one member", other, "not a wheel: File name in directory")
    yield Wheel("an offset beyond the end", _field(PLAIN, 14, 42, "<I", 2**31), "not a wheel: ")
    yield Wheel("an offset of 2**64 - 1", _far(2**64 - 1), "not a wheel: ")
