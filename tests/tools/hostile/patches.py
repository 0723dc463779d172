"""Hostile patch files: each stands in place of a project's own, and no byte of it may be applied."""

import re
from collections.abc import Iterator

from tests.tools.hostile.cases import PATHS, Case
from tests.tools.test_patchset import BAD_HUNKS, DIFF, FILES, GOOD, HEAD, HUNKS, INDEX, PATH, REFUSED

FILE = "patches/core.patch"
_PLAIN = "should be `diff --git a/PATH b/PATH` with one plain PATH"


def _with(hunks: str) -> str:
    return HEAD + DIFF + INDEX + FILES + hunks


OTHERS: dict[str, tuple[str | bytes, str]] = {
    "a name in quotes": (GOOD.replace(DIFF, 'diff --git "a/\\056\\056/x" "b/\\056\\056/x"\n'), _PLAIN),
    "two names": (GOOD.replace(DIFF, f"diff --git a/{PATH} b/../x.py\n"), _PLAIN),
    "a NUL in a name": (GOOD.replace(PATH, "models/alpha/core.py\0.txt"), "has a NUL byte"),
    "another name behind the index": (GOOD.replace(f"+++ b/{PATH}", "+++ b/../../x.py"), "is '+++ b/../../x.py'"),
    "a name with a tab and a date": (GOOD.replace(f"+++ b/{PATH}", f"+++ b/{PATH}\t2026"), "should be '+++ b/"),
    "a link made": (GOOD.replace(INDEX, "new file mode 120000\n" + INDEX), "creates a file"),
    "a file made a link": (GOOD.replace(INDEX, "old mode 100644\nnew mode 120000\n" + INDEX), "changes a file mode"),
    "a submodule made": (GOOD.replace(INDEX, "new file mode 160000\n" + INDEX), "creates a file"),
    "renamed out of the tree": (GOOD.replace(INDEX, "rename from a\nrename to ../b\n" + INDEX), "renames a file"),
    "a literal binary": (GOOD.replace(FILES + HUNKS, "GIT binary patch\nliteral 4\nLcmZ?\n"), "is binary"),
    "a delta binary": (GOOD.replace(FILES + HUNKS, "GIT binary patch\ndelta 4\nLcmZ?\n"), "is binary"),
    "two files": (GOOD + DIFF.replace("core", "x") + INDEX + FILES + HUNKS, "starts a second file"),
    "the same file twice": (GOOD + DIFF + INDEX + FILES + HUNKS, "starts a second file"),
    "a second pair of names": (GOOD + "--- a/x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n", "it holds 2 files, not one"),
    "a count of many digits": (_with(f"@@ -1,{'9' * 5000} +1 @@\n-a\n+b\n"), "does not parse"),
    "a count beyond 64 bits": (_with(f"@@ -1,{2**64} +1 @@\n-a\n+b\n"), "does not parse"),
    "a count of a billion": (_with("@@ -1,999999999 +1,999999999 @@\n-a\n+b\n"), "does not parse"),
    "a line beyond 64 bits": (_with(f"@@ -{2**64} +{2**64 + 1} @@\n-a\n+b\n"), "lands on line"),
    "a negative count": (_with("@@ -1,-1 +1 @@\n+b\n"), "is no part of a diff"),
    "numbers of another script": (_with("@@ -\u0661 +\u0661 @@\n-a\n+b\n"), "is no part of a diff"),
    "mixed line ends in the header": (GOOD.replace("other\n", "other\r\n"), "ends in a carriage return"),
    "mixed line ends in a hunk's header": (GOOD.replace("+2,2 @@\n", "+2,2 @@\r\n"), "ends in a carriage return"),
    "old Macintosh line ends": (GOOD.replace("\n", "\r"), "ends in a carriage return"),
    "invalid UTF-8": (GOOD.encode().replace(b"+2.5", b"+\xff\xfe"), "is not UTF-8"),
    "overlong UTF-8": (GOOD.encode().replace(b"core.py", b"\xc0\xae\xc0\xae"), "is not UTF-8"),
    "half a surrogate pair": (GOOD.encode().replace(b"+2.5", b"+\xed\xa0\x80"), "is not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "is not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD.encode(), "is no header line"),
    "nothing but NULs": (b"\0" * 1000, "has a NUL byte"),
    "nothing": (b"", "has no `diff --git` line"),
    "a hundred thousand hunks": (_with("@@ -1 +1 @@\n" * 80_000), "does not parse"),
    "an escape sequence": (GOOD.replace("Origin: other", "\x1b]0;owned\x07"), "is no header line"),
}  # fmt: skip


def cases() -> Iterator[Case]:
    for path, why in PATHS.items():
        # A line ends there; what is left of the name has no second half.
        expected = _PLAIN if " " in path else f"path {path!r} {why}"
        yield _case(f"path {path!r}", GOOD.replace(PATH, path), expected)
    for name, (old, new, says) in REFUSED.items():
        yield _case(name, GOOD.replace(old, new), says)
    for name, hunks in BAD_HUNKS.items():
        yield _case(f"hunk: {name}", _with(hunks), "")
    for name, (data, says) in OTHERS.items():
        yield _case(name, data, says)
    yield Case(
        "patch",
        "two megabytes",
        (f"{FILE} cannot be read", "has more than 1048576 bytes"),
        files={FILE: b"+x\n" * 700_000},
    )


def _case(name: str, data: str | bytes, says: str) -> Case:
    raw = data if isinstance(data, bytes) else data.encode()
    said = (f"{FILE} is malformed", f"  {FILE}:", says)
    return Case("patch", name, tuple(map(re.escape, said)), files={FILE: raw})
