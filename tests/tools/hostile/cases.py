"""What one hostile input is, and the paths and addresses that several readers are tried with."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """Files to put into the project, a call of the command line, and how it is refused.

    kind: what it is counted under. says: patterns that standard error has to match, all of
    them. files: bytes by path below the
    project. "{canary}" in `call` becomes a path that nothing may write to.
    """

    kind: str
    name: str
    says: tuple[str, ...]
    code: int = 2
    call: tuple[str, ...] = ("vendor",)
    files: dict[str, bytes] = field(default_factory=dict)

    def arguments(self, canary: Path) -> list[str]:
        return [word.replace("{canary}", str(canary)) for word in self.call]


RELATIVE = "is not a relative path"
PART = "has an empty, '.' or '..' part"
BACKSLASH = "has a backslash"
DOT_GIT = "reaches into .git"
LETTER = "has an invisible character, a quote or a colon"
# Paths that lead out, or to another place on another system: why each is refused.
PATHS = {
    "/etc/passwd": RELATIVE,
    "//host/share/core.py": RELATIVE,
    "../core.py": PART,
    "models/../../core.py": PART,
    "models/alpha/..": PART,
    "./core.py": PART,
    "models//core.py": PART,
    "models/alpha/": PART,
    "..\\core.py": BACKSLASH,
    "C:\\core.py": BACKSLASH,
    "\\\\host\\share": BACKSLASH,
    "C:/core.py": LETTER,
    "C:core.py": LETTER,
    "models/core.py:stream": LETTER,
    'models/"core.py': LETTER,
    "models/co\u200dre.py": LETTER,
    "models/\u202eyp.eroc": LETTER,
    "models/\u2028core.py": LETTER,
    ".git/hooks/post-checkout": DOT_GIT,
    "models/.GIT/config": DOT_GIT,
    "models/.git./config": DOT_GIT,
    "models/git~1/config": DOT_GIT,
    "models/.git": DOT_GIT,
}

OPTION = "would be read as an option"
HELPER = "names a program to run (a remote helper)"
SCHEME = "has a scheme that is none of https, http, ssh, git, file"
HOST = "has a host that would be read as an option"
INVISIBLE = "has an invisible character"
# Addresses of repositories that git is never given.
ADDRESSES = {
    "ext::sh -c 'touch {canary}'": HELPER,
    "EXT::touch {canary}": HELPER,
    "fd::7": HELPER,
    "::touch {canary}": HELPER,
    "file::{canary}": HELPER,
    "https::https://example.org/x": HELPER,
    "--upload-pack=touch {canary}": OPTION,
    "-utouch {canary}": OPTION,
    "-oProxyCommand=touch {canary}:x": OPTION,
    "ssh://-oProxyCommand=touch {canary}/x": HOST,
    "ssh://%2DoProxyCommand=touch%20owned/x": HOST,
    "ssh://git@-oProxyCommand=touch owned/x": HOST,
    "ftp://example.org/x.git": SCHEME,
    "ext://touch/{canary}": SCHEME,
    "://x": SCHEME,
    "https://example.org/x\nhttps://example.org/y": INVISIBLE,
    "https://example.org/\x1b[2Jx": INVISIBLE,
    "https://example.org/\x7f\x9bx": INVISIBLE,
    "https://example.org/\u202etig.x": INVISIBLE,
}


def quoted(text: str) -> str:
    """`text` as a TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped) + '"'
