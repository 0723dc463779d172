"""Prints everything: results to standard output, all else to standard error."""

import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import zip_longest
from typing import Any

import click

from tools.errors import Next, ToolError, log
from tools.lock import without_secrets

# Words that are coloured.
_WORDS = re.compile(
    r"^(?P<cyan>next:)|^(?P<yellow>warning:)|"
    r"(?P<red>^error:|^to decide:|\b(?:modified|missing|incomplete|edited|conflicts|gone upstream|lost)\b)|"
    r"(?P<green>\b(?:as locked|nothing to do|applies as it is|merges cleanly|already upstream)\b)"
)
# None: only on a terminal. See https://no-color.org.
_COLOURED = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


@dataclass
class Show:
    """Prints for one run. verbs: all there are. verb, given: the user's verb and options."""

    json: bool
    verbs: Mapping[str, click.Command]
    verb: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)

    def result(self, *lines: str, body: Any = None, steps: Iterable[str | Next] = (), code: int = 0) -> int:
        """Print lines and next steps, or with --json `body`, by default the lines. Returns `code`."""
        if self.json:
            self._document({"report": lines} if body is None else body, code)
        else:
            for line in [*lines, *(f"next: {self._command(step)}" for step in steps)]:
                click.echo(_styled(line), color=_COLOURED)
        return code

    def diff(self, text: str) -> int:
        """Print a diff; on a terminal coloured, elsewhere byte for byte, so that git can apply it. Returns 0."""
        if self.json:
            return self.result(*text.split("\n"))
        if not (sys.stdout and sys.stdout.isatty()):
            click.echo(text.encode(errors="surrogateescape"), nl=False)
        else:
            colours = {"+": "green", "-": "red", "@": "cyan"}
            for line in text.split("\n")[:-1]:
                click.echo(click.style(_visible(line), fg=colours.get(line[:1])), color=_COLOURED)
        return 0

    def error(self, error: ToolError) -> int:
        """Print `error` to standard error, and with --json to standard output too. Returns its exit code."""
        steps = [self._command(step) for step in error.next_steps]
        _say(f"error: {error.message}", *(f"  {line}" for line in error.findings), *(f"next: {step}" for step in steps))
        if self.json:
            with suppress(OSError):
                body = {"error": error.message, "details": error.findings, "next": steps, **error.body}
                self._document(body, error.exit_code)
        return error.exit_code

    def _command(self, step: str | Next) -> str:
        """`step` as a command for make or Python, with those of the user's options that its verb takes."""
        if isinstance(step, str):
            return step
        verb = step.verb or self.verb
        takes = [option.name for option in self.verbs[verb].params]
        given = {name: value for name, value in self.given.items() if name in takes}
        by_make = "DSU_PATCHES_BY_MAKE" in os.environ  # set by the Makefile
        words = ["make" if by_make else "python -m tools", verb]
        for name, value in (given | dict(step.options)).items():
            if value:
                text = shlex.quote(" ".join(value) if isinstance(value, tuple) else str(value))
                option = f"--{name.replace('_', '-')}" + ("" if value is True else f" {text}")
                words.append(f"{name.upper()}={1 if value is True else text}" if by_make else option)
        return " ".join(words) + (f"  # {step.why}" if step.why else "")

    def _document(self, body: Mapping[str, object], code: int) -> None:
        head = {"schema": 3, "verb": self.verb or None, "ok": code == 0, "exit_code": code}
        click.echo(without_secrets(json.dumps({**head, **body}, indent=2)))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """`rows` of cells as lines, in columns."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]


def listen() -> None:
    """Print progress and warnings to standard error from now on."""
    log.handlers = [_Lines()]
    log.setLevel(logging.INFO)
    if isinstance(sys.stdout, TextIOWrapper):
        # Letters that the terminal lacks must not stop the run.
        sys.stdout.reconfigure(errors="backslashreplace")


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(("warning: " if record.levelno >= logging.WARNING else "") + record.getMessage())


def _visible(text: str) -> str:
    """`text` with control characters escaped, and without passwords in URLs."""
    shown = (char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
    return without_secrets("".join(shown))


def _styled(text: str) -> str:
    """`_visible(text)` with colours; click removes them where there is no terminal."""
    return _WORDS.sub(lambda found: click.style(found[0], fg=found.lastgroup), _visible(text))


def _say(*lines: str) -> None:
    # A closed standard error must not stop the run.
    with suppress(OSError):
        for line in lines:
            click.echo(_styled(line), err=True, color=_COLOURED)
