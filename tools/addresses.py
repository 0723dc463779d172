"""Which addresses git and the raw source may be given. Pure.

An address may come from a lock that somebody else wrote. git takes `ext::COMMAND` for a command to run and any word
that starts with a hyphen for an option, so neither ever reaches it. `file://` stays: a clone on this disk or a mounted
mirror is an ordinary upstream, git only reads it, and what it gives is admitted by its hash like everything else. The
raw source speaks HTTP alone: there a `file://` would be a way to read this machine's own files.
"""

import re
from urllib.parse import unquote

from tools.errors import UsageError

# What git's own transports are called; everything else is a program `git-remote-NAME`.
TRANSPORTS = ("https", "http", "ssh", "git", "file")
_SCHEME = re.compile(r"([A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# As git reads it: letters of a scheme, also none, and two colons.
_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")


def repository_fault(address: str) -> str | None:
    """Why `address`, a URL or path of a repository, is not given to git, or None."""
    if not address.isprintable():
        return "has an invisible character"
    if address.startswith("-"):
        return "would be read as an option"
    if _HELPER.match(address):
        return "names a program to run (a remote helper)"
    if url := _SCHEME.match(address):
        if url[1] not in TRANSPORTS:
            return f"has a scheme that is none of {', '.join(TRANSPORTS)}"
        # git undoes the percent signs before it hands the host to ssh.
        host = unquote(url[2]).partition("/")[0]
        if host.startswith("-") or "@-" in host:
            return "has a host that would be read as an option"
    return None


def raw_fault(template: str) -> str | None:
    """Why `template`, the URL of a raw source, is not asked, or None."""
    if not template.isprintable():
        return "has an invisible character"
    if not template.startswith(("https://", "http://")):
        return "should begin with https:// or http://"
    return None


def insist_on_repository(address: str) -> None:
    """UsageError unless `address` may be given to git."""
    if why := repository_fault(address):
        raise UsageError(
            f"{address[:200]!r} {why}, so git is not given it",
            next_steps=[
                f"name a path, or a URL that begins with one of {', '.join(f'{name}://' for name in TRANSPORTS)}"
            ],
        )
