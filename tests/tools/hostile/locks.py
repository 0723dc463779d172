"""Hostile locks: a project's own with one thing in it that leads somewhere else, or that is not what it says."""

import re
from collections.abc import Callable, Iterator

from tests.tools.hostile.cases import ADDRESSES, PATHS, Case, quoted
from tests.tools.test_lock import FAULTS, LOCK

# Where a path stands in the lock of test_lock.py: the line that names it, up to the quotes.
PATH_FIELDS = {
    "component": (r'path = ("models/alpha")', "path"),
    "pinned file": (r'path = ("models/beta/net.py")\nsha256', "path"),
    "patch target": (r'target = ("models/alpha/core.py")', "target"),
    "patch file": (r'file = ("patches/core.patch")', "file"),
}
# Names in a tree that are the tools' own.
OURS = (
    "PROVENANCE.json",
    "provenance.JSON/net.py",
    ".PROVENANCE.json.next",
    ".PROVENANCE.json.next/net.py",
    ".PROVENANCE.json.x.tmp",
    "..PROVENANCE.json.next.x.tmp/net.py",
    ".dsu-vendor.lock",
    "models/.dsu-vendor.lock/net.py",
    "models/.alpha.dsu-staging-x",
    "models/.ALPHA.DSU-STAGING-x/net.py",
    ".models.dsu-retired/net.py",
)
ADDRESS_FIELDS = {
    "pin": r'url = ("https://example.org/up.git")',
    "baseline": r'url = ("https://example.org/app.git")',
}
TEMPLATE = r'url = ("https://example.org/\{commit\}/\{path\}")'
_HOLES = "should hold {sha256}, or {commit} and {path}, and no other brace"
_HTTP = "should begin with https:// or http://"
TEMPLATES = {
    "file:///etc/{commit}/{path}": _HTTP,
    "FILE://localhost/{commit}/{path}": _HTTP,
    "ftp://example.org/{commit}/{path}": _HTTP,
    "data:text/plain,{commit}{path}": _HTTP,
    "gopher://example.org/{commit}/{path}": _HTTP,
    "//example.org/{commit}/{path}": _HTTP,
    "/etc/{commit}/{path}": _HTTP,
    "{commit}/{path}": _HTTP,
    "-o{commit}/{path}": _HTTP,
    "https:/example.org/{commit}/{path}": _HTTP,
    "https://example.org/{commit.__class__}/{path}": _HOLES,
    "https://example.org/{commit!r}/{commit}/{path}": _HOLES,
    "https://example.org/{commit}/{path:>9999999999}": _HOLES,
    "https://example.org/{commit}/{path}/{0}": _HOLES,
    "https://example.org/{commit}/{path}\r\nHost: x": "has an invisible character",
    "https://example.org/\x00{commit}/{path}": "has an invisible character",
}
NAMES = {
    "a branch that is an option": ('branch = "main"', 'branch = "--upload-pack=x"', "a branch's name"),
    "a branch of many": ('branch = "main"', 'branch = "*"', "a branch's name"),
    "a branch with a line end": ('branch = "main"', 'branch = "main\\nx"', "a branch's name"),
    "a commit that is an option": (f'commit = "{"a" * 40}"', 'commit = "--all"', "40 lower-case hex digits"),
    "a commit that is a range": (f'commit = "{"a" * 40}"', 'commit = "a..b"', "40 lower-case hex digits"),
    "a date with an escape": ('date = "2026-01-02', 'date = "\\u001b[2J', "without control characters"),
    "a wheel that is a URL": ('name = "two"', 'name = "two @ https://example.org/x"', "a package name"),
    "a wheel that is an option": ('name = "two"', 'name = "--index-url=x"', "a package name"),
    "a wheel that is a path": ('name = "two"', 'name = "../two"', "a package name"),
    "a version that is two": ('version = "2.0"', 'version = "2.0 --pre"', "an exact version"),
    "a newer schema": ("schema = 1", "schema = 2", "schema should be 1, is 2"),
    "a schema in words": ("schema = 1", 'schema = "1"', "schema should be 1, is '1'"),
    "a key of a newer schema": ("schema = 1", 'schema = 1\nhook = "x"', "unknown key 'hook'"),
    "a file of another component": ('"core.py",', '"../beta/net.py",', "is outside its component's folder"),
    "a patch in another folder": ('"patches/core.patch"', '"elsewhere/core.patch"', "is not patches/<name>.patch"),
    "one file twice": ('["net.py"]', '["net.py", "net.py"]', "is listed twice"),
}  # fmt: skip
WHOLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "schema should be 1, is None"),
    "NULs": (b"\0" * 100, "is not TOML"),
    "not UTF-8": (b"schema = 1 # \xff", "cannot be read"),
    "UTF-16": (LOCK.encode("utf-16"), "cannot be read"),
    "JSON": (b'{"schema": 1}', "is not TOML"),
    "brackets": (b"x = " + b"[" * 100_000, "is not TOML"),
    "inline tables": (b"x = " + b"{a=" * 50_000, "is not TOML"),
    "a key of many parts": (b"a." * 100_000 + b"a = 1", "upstream.lock:1: has more than 500 dots in one line"),
    "a table of many parts": (b"[" + b"a." * 100_000 + b"a]", "upstream.lock:1: has more than 500 dots in one line"),
    "a number of many digits": (b"schema = " + b"9" * 100_000, "is not TOML"),
    "a hex number of many digits": (b"schema = 0x" + b"f" * 100_000, "schema should be 1, is of type int"),
    "three megabytes": (b"# comment\n" * 300_000, "has more than 262144 bytes"),
    "thousands of patches": (b"patches = [" + b"{}, " * 5_000 + b"]", "file is missing"),
    "thousands of components": (b"".join(b"[components.a%d]\n" % at for at in range(3_000)), "path is missing"),
}


def cases() -> Iterator[Case]:
    for field, (pattern, key) in PATH_FIELDS.items():
        for path, why in PATHS.items():
            said = re.escape(f"{key} {path!r} {why}")
            yield _edited("lock", f"{field} {path!r}", pattern, path, lambda line, said=said: rf"{line}: {said}")
    for field in ("component", "pinned file"):
        for path in OURS:
            says = _said(re.escape(f"path {path!r} is a name that these tools keep for themselves"))
            yield _edited("lock", f"{field} {path!r}", PATH_FIELDS[field][0], path, says)
    for field, pattern in ADDRESS_FIELDS.items():
        for address, why in ADDRESSES.items():
            yield _edited("address", f"{field} {address!r}", pattern, address, _said(f"url .* {re.escape(why)}"))
    for template, why in TEMPLATES.items():
        yield _edited("address", f"raw {template!r}", TEMPLATE, template, _said(f"url .*{re.escape(why)}"))
    for name, (old, new, says) in NAMES.items():
        assert old in LOCK, name
        yield _case("lock", name, LOCK.replace(old, new, 1).encode(), re.escape(says))
    for name, (old, new, _, says) in FAULTS.items():
        yield _case("lock", name, LOCK.replace(old, new, 1).encode(), re.escape(says))
    for name, (data, says) in WHOLE.items():
        yield _case("lock", name, data, re.escape(says))


def _said(pattern: str) -> Callable[[int], str]:
    return lambda line: f"{line}: {pattern}"


def _edited(kind: str, name: str, pattern: str, value: str, says: Callable[[int], str]) -> Case:
    """The lock with `value` in place of what `pattern` captures; `says` is given the line where it stands."""
    found = re.search(pattern, LOCK)
    assert found is not None, pattern
    text = LOCK[: found.start(1)] + quoted(value) + LOCK[found.end(1) :]
    line = LOCK.count("\n", 0, found.start(1)) + 1
    return _case(kind, name, text.encode(), rf"upstream\.lock:{says(line)}")


def _case(kind: str, name: str, data: bytes, says: str) -> Case:
    return Case(kind, f"lock: {name}", (r"upstream\.lock", says), files={"upstream.lock": data})
