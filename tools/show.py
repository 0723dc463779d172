"""The only place that prints: results on standard output, all else on standard error."""

import json
import logging
import os
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

JSON_SCHEMA = 2
# Set by the Makefile: next steps are then its targets.
BY_MAKE = "DSU_PATCHES_BY_MAKE"
# None: on a terminal. See https://no-color.org.
_COLOURED = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


@dataclass
class Show:
    """Shows one run. takes: the options of each verb; verb, given: what the user asked for, with options by name."""

    json: bool
    takes: Mapping[str, Sequence[str]]
    verb: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)

    def result(
        self, body: Mapping[str, Any], *lines: str, diff: str = "", next_steps: Sequence[str | Next] = (), code: int = 0
    ) -> int:
        """The result on standard output, `body` as JSON if that was asked for, else all the rest; returns `code`."""
        if self.json:
            self._document(body, code)
        else:
            for line in [*lines, *(f"next: {step}" for step in self._commands(next_steps))]:
                click.echo(_visible(line))
            _show_diff(diff)
        return code

    def error(self, error: ToolError) -> int:
        """`error` on standard error, with --json on standard output too; its exit code."""
        steps = self._commands(error.next_steps)
        _say(click.style("error: ", fg="red", bold=True) + _visible(error.message))
        for line in [*(f"  {line}" for line in error.findings), *(f"next: {step}" for step in steps)]:
            _say(_visible(line))
        if self.json:
            body: dict[str, object] = {"error": error.message, "details": error.findings, "next": steps}
            with suppress(OSError):
                self._document({**body, **error.body}, error.exit_code)
        return error.exit_code

    def _commands(self, steps: Iterable[str | Next]) -> list[str]:
        return [step if isinstance(step, str) else self._command(step) for step in steps]

    def _command(self, step: Next) -> str:
        """The command of `step`, as make or Python takes it, with the options that the user gave and the verb takes."""
        verb = step.verb or self.verb
        given = {name: value for name, value in self.given.items() if name in self.takes[verb]}
        by_make = BY_MAKE in os.environ
        words = ["make" if by_make else "python -m tools", verb]
        for name, value in (given | dict(step.options)).items():
            if value:
                text = shlex.quote(" ".join(value) if isinstance(value, tuple) else str(value))
                if by_make:
                    words.append(f"{name.upper()}={1 if value is True else text}")
                else:
                    words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {text}"))
        return " ".join(words) + (f"  # {step.why}" if step.why else "")

    def _document(self, body: Mapping[str, Any], code: int) -> None:
        head = {"schema": JSON_SCHEMA, "verb": self.verb or None, "ok": code == 0, "exit_code": code}
        click.echo(without_secrets(json.dumps(head | {**body}, indent=2)))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines for `rows` of cells, with two blanks between columns; a row may be short, and none is cut."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]


def listen() -> None:
    """Show progress and warnings on standard error from now on."""
    log.handlers = [_Lines()]
    log.setLevel(logging.INFO)
    if isinstance(sys.stdout, TextIOWrapper):
        # A letter that a terminal does not know is no reason to stop.
        sys.stdout.reconfigure(errors="backslashreplace")


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(_visible(("warning: " if record.levelno >= logging.WARNING else "") + record.getMessage()))


def _visible(text: str) -> str:
    """`text` as a terminal may be given it: others' control characters written out, and no password in a URL."""
    shown = (char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
    return without_secrets("".join(shown))


def _show_diff(text: str) -> None:
    if not (sys.stdout and sys.stdout.isatty()):
        # Byte for byte, as for a file that git is to apply.
        click.echo(text.encode(errors="surrogateescape"), nl=False)
        return
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in text.split("\n")[:-1]:
        click.echo(click.style(_visible(line), fg=colours.get(line[:1])), color=_COLOURED)


def _say(text: str) -> None:
    # That nobody is there to read is no reason to stop.
    with suppress(OSError):
        click.echo(text, err=True, color=_COLOURED)
