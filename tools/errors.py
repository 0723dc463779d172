"""What can go wrong, and the exit code each kind ends a run with.

Every error carries all the findings of its kind and the command that helps next; `__main__` is the
only place that prints one.
"""

from collections.abc import Iterable

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "the check found drift, files that are not ours, stale documents, false claims, or a newer upstream",
    2: "usage, a malformed lock or patch, or a folder that cannot be read or written",
    3: "a patch does not apply, or a rebase needs a decision",
    4: "bytes fail their hash",
    5: "no source could serve a file",
    130: "interrupted",
}


def visible(text: str) -> str:
    """`text` as a terminal may be given it: a host's or a repository's control characters written out, not obeyed."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


class ToolError(Exception):
    """Root of all expected failures.

    message: one line saying what failed. findings: one line for each thing found, in order.
    next_steps: commands or advice, most useful first.
    """

    exit_code = 2

    def __init__(self, message: str, findings: Iterable[str] = (), next_steps: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.findings = tuple(findings)
        self.next_steps = tuple(next_steps)


class Drift(ToolError):
    """A tree or a document is not what the lock says."""

    exit_code = 1


class UsageError(ToolError):
    """The command asks for something that cannot be."""


class MalformedLock(ToolError):
    """upstream.lock breaks its own rules."""


class MalformedPatch(ToolError):
    """A patch file breaks the rules for patch files."""


class PatchFails(ToolError):
    """A well-formed patch does not fit its base."""

    exit_code = 3


class Undecided(ToolError):
    """A rebase that stops for a person: conflicts, files that are gone, lines that would be lost."""

    exit_code = 3


class HashMismatch(ToolError):
    """Bytes are not the ones the lock names."""

    exit_code = 4


class NoSource(ToolError):
    """Pinned files that no source could serve."""

    exit_code = 5
