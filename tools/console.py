"""What the verbs share: their options, the context that every one gets, and how a result is shown.

With `__main__` the only place that prints: results on standard output, all else on standard error.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tools.errors import ToolError, UsageError, visible
from tools.lock import LOCK_NAME, Lock, PinnedFile, is_called, load, words_in
from tools.progress import Progress
from tools.store import Store, default_root
from tools.transaction import project_lock, recover

JSON_SCHEMA = 1
# What `click.style` writes, which a text may hold of its own as well: to colour is all that it does.
_COLOUR = re.compile(r"(\x1b\[(?:0|3[126])m)")


@dataclass
class Context:
    """What every verb needs, made when it is first asked for."""

    root: Path
    store_root: Path | None
    progress: Progress
    json: bool = False

    @property
    def lock(self) -> Lock:
        """The project's lock, once what a killed run had begun to write is finished."""
        if finished := recover(self.root):
            self.progress.line(f"finished what a killed run had begun to write: {', '.join(finished)}")
        return load(self.root)

    def writing(self) -> AbstractContextManager[None]:
        """Hold the project while a verb writes to it. Raises as `lock` does where there is none, and `project_lock`."""
        if not (self.root / LOCK_NAME).exists():
            load(self.root)
        return project_lock(self.root)

    @property
    def store(self) -> Store:
        return Store(self.store_root or default_root(), self.progress.warn)

    def tree(self, dest: Path | None) -> Path:
        return dest or self.root / "vendor"

    def report(self, verb: str, body: dict[str, Any], text: str, code: int = 0) -> int:
        """The result, on standard output: as JSON where it was asked for, as text otherwise; the exit code `code`.

        A terminal obeys nothing in `text` but the colours of `coloured`.
        """
        if self.json:
            outcome = {"ok": True} if code == 0 else {"ok": False, "exit_code": code}
            print(json.dumps({"schema": JSON_SCHEMA, "verb": verb, **outcome, **body}, indent=2))
        elif text:
            click.echo(_harmless(text) if sys.stdout.isatty() else text)
        return code


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.obj.json = value
    return value


def words(_: click.Context, __: click.Parameter, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in words_in(value)]


with_json = click.option(
    "--json", "as_json", is_flag=True, callback=_set_json, expose_value=False, help="Report as JSON."
)
with_dest = click.option(
    "--dest", type=click.Path(path_type=Path, file_okay=False), help="The tree; vendor/ by default. [make: DEST=]"
)
with_components = click.option(
    "--components", "names", multiple=True, callback=words, help="Only these components. [make: COMPONENTS=]"
)
with_offline = click.option("--offline", is_flag=True, help="Ask no network. [make: OFFLINE=1]")
with_upstream = click.option(
    "--upstream", help="A repository (path or URL) or bundle to ask before the lock's sources. [make: UPSTREAM=]"
)
with_force = click.option("--force", is_flag=True, help="Foreign files do not stop the run. [make: FORCE=1]")
pass_context = click.make_pass_decorator(Context)


class ReportedError(Exception):
    """An error that also has a body for --json."""

    def __init__(self, error: ToolError, body: dict[str, Any]) -> None:
        super().__init__(error.message)
        self.error = error
        self.body = body


def verb_lines() -> list[tuple[str, str]]:
    """(name, one line) of each verb there is, as README.md lists them. Only while a verb runs."""
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    return [(name, command.get_short_help_str(200)) for name, command in group.commands.items()]


def pinned_named(lock: Lock, names: Sequence[str]) -> list[PinnedFile]:
    """The pinned files that `names` call by their path or its end, in lock order; all of them for no names.

    Raises UsageError for a name that fits none.
    """

    unknown = [name for name in names if not any(is_called(file.path, name) for file in lock.files)]
    if unknown:
        raise UsageError(
            f"no pinned file is called {', '.join(unknown)}", next_steps=["make status; MODEL_CHANGES.md lists them"]
        )
    return [file for file in lock.files if not names or any(is_called(file.path, name) for name in names)]


def pinned_bytes(
    context: Context, lock: Lock, files: Sequence[PinnedFile], upstream: str | None, offline: bool
) -> Mapping[str, bytes]:
    """The bytes of `files` by path, from the store or a source. Raises NoSource."""
    from tools.sources import gather, require, sources_for

    gathered = gather(
        files, sources_for(context.root, lock, upstream), context.store, context.progress, offline=offline
    )
    return require(gathered, (), len(files))


def columns(rows: Sequence[Sequence[str]]) -> str:
    """`rows` of cells as a table for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _harmless(text: str) -> str:
    """`text` with control characters written out, all but those of our own colours."""
    return "".join(part if _COLOUR.fullmatch(part) else visible(part) for part in _COLOUR.split(text))


def coloured(text: str) -> str:
    """A diff with colours, which click drops again where standard output is no terminal."""
    colours = {"+": "green", "-": "red", "@": "cyan"}
    return "\n".join(
        click.style(line, fg=colours[line[0]]) if line[:1] in colours else line for line in text.split("\n")
    )
