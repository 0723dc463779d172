"""The errors that a run can end with, their exit codes, and the next steps that they name."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import attrs

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "the check found drift, files that are not ours, stale documents, false claims, or a newer upstream",
    2: "usage, a malformed lock or patch, or a folder that cannot be read or written",
    3: "a patch does not apply, or a rebase needs a decision",
    4: "bytes fail their hash",
    5: "no source could serve a file, or a claim could not be checked",
    130: "interrupted",
}

# Progress (info) and warnings, one line each.
log = logging.getLogger("tools")

_T = TypeVar("_T")
_R = TypeVar("_R")


@attrs.frozen
class Next:
    """A verb to run next ("" for the same again), and why. `show` adds the options that the user gave."""

    verb: str
    why: str = ""
    # True sets a switch, None leaves an option out.
    options: Mapping[str, str | bool | None] = attrs.field(factory=dict)


@attrs.define(slots=False, eq=False)
class ToolError(Exception):
    """Root of all expected failures: what failed, a line for each finding, next steps, and more keys for --json."""

    exit_code = 2

    message: str
    findings: Iterable[str] = attrs.field(default=(), converter=tuple[str, ...])
    next_steps: Iterable[str | Next] = attrs.field(default=(), converter=tuple[str | Next, ...])
    body: Mapping[str, object] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return "; ".join([self.message, *self.findings])


class Drift(ToolError):
    """A tree, a document or a patch file is not what the lock says."""

    exit_code = 1


class UsageError(ToolError):
    """The command line is wrong, or the lock, pyproject.toml or a patch is malformed."""


class Undecided(ToolError):
    """A patch does not apply, or a rebase needs a decision."""

    exit_code = 3


class HashMismatch(ToolError):
    """Bytes are not the ones the lock names."""

    exit_code = 4


class NoSource(ToolError):
    """No source could serve a file or a commit."""

    exit_code = 5


def each(items: Iterable[_T], work: Callable[[_T], _R]) -> list[_R]:
    """The results of `work` for all `items`. Raises all their ToolErrors as one, of the first one's class."""
    done: list[_R] = []
    failed: ToolError | None = None
    for item in items:
        try:
            done.append(work(item))
        except ToolError as error:
            if not failed:
                failed = error
                continue
            failed.findings = [*failed.findings, error.message, *(f"  {line}" for line in error.findings)]
            more = [step for step in error.next_steps if step not in failed.next_steps]
            failed.next_steps = [*failed.next_steps, *more]
    if failed:
        raise failed
    return done
