"""The command line: `python -m tools VERB`. Each `make` target is one call of it."""

from tools import interrupt

if __name__ == "__main__":
    interrupt.arm()

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

try:
    import click
except ModuleNotFoundError as missing:
    sys.exit(f"error: Python package {missing.name!r} is not installed here\nnext: make vendor, which sets up its own")

from tools import __version__
from tools.console import JSON_SCHEMA, Context, ReportedError
from tools.errors import EXIT_CODES, ToolError, UsageError, visible
from tools.git import forget_outer_repository
from tools.lock import LOCK_NAME
from tools.progress import Progress
from tools.store import ENV
from tools.verbs import audit, patches, tree, upstream

_PROJECT = Path(__file__).resolve().parents[1]


class _Verbs(click.Group):
    """Lists verbs in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


_EPILOG = "Exit codes: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items()) + "."


@click.group(cls=_Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dsu-patches")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=_PROJECT,
    help=f"Folder with {LOCK_NAME} and patches/; this project by default.",
)
@click.option("--store", type=click.Path(path_type=Path, file_okay=False), envvar=ENV, help="Folder of the store.")
@click.option("--quiet", is_flag=True, help="No progress; warnings and errors stay.")
@click.pass_context
def cli(ctx: click.Context, root: Path, store: Path | None, quiet: bool) -> None:
    """Fetch the pinned upstream models, patch them, and account for every byte.

    A first run: `python -m tools vendor`, then `python -m tools verify`.
    """
    ctx.color = _colour()
    ctx.obj = Context(root.resolve(), store, Progress(quiet=quiet))


for _verb in (*tree.VERBS, *audit.VERBS, *patches.VERBS, *upstream.VERBS):
    cli.add_command(_verb)


def _colour() -> bool | None:
    """What click is told: no colours at all, or None, for colours on a terminal. See https://no-color.org."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _fail(error: ToolError, body: dict[str, Any], as_json: bool) -> int:
    click.echo(click.style("error:", fg="red", bold=True) + f" {visible(error.message)}", err=True, color=_colour())
    for finding in error.findings:
        click.echo(f"  {visible(finding)}", err=True)
    for step in error.next_steps:
        click.echo(f"next: {visible(step)}", err=True)
    return _fail_as_json(error, body) if as_json else error.exit_code


def _fail_as_json(error: ToolError, body: dict[str, Any]) -> int:
    document = {
        "schema": JSON_SCHEMA,
        "ok": False,
        "exit_code": error.exit_code,
        "error": error.message,
        "details": list(error.findings),
        "next": list(error.next_steps),
        **body,
    }
    with suppress(OSError):
        print(json.dumps(document, indent=2))
    return error.exit_code


def _run(arguments: list[str], as_json: bool) -> int:
    named: dict[str, Any] = {"verb": next((word for word in arguments if word in cli.commands), None)}
    try:
        code = cli.main(arguments, prog_name="python -m tools", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return _fail_as_json(UsageError(error.format_message()), named) if as_json else 2
    except ReportedError as reported:
        return _fail(reported.error, {**named, **reported.body}, as_json)
    except ToolError as error:
        return _fail(error, named, as_json)
    except ModuleNotFoundError as error:
        return _fail(
            ToolError(
                f"Python package {error.name!r} is not installed here",
                next_steps=["make vendor, which sets up its own"],
            ),
            named,
            as_json,
        )
    except UnicodeEncodeError as error:
        what = f"{error.object[:200]!r} cannot be a file's name in this locale's encoding, {error.encoding}"
        return _fail(ToolError(what, next_steps=["choose a UTF-8 locale: LC_ALL=C.UTF-8"]), named, as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(
            ToolError(f"{where}{error.strerror or error}", next_steps=["check the path, its rights and the disk"]),
            named,
            as_json,
        )
    except (KeyboardInterrupt, click.Abort):
        interrupt.ignore()
        click.echo(interrupt.LINE, err=True)
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code. Prints, and never raises what a user, a network or a disk can cause."""
    forget_outer_repository()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    code = 0
    try:
        if isinstance(sys.stdout, TextIOWrapper):
            # A letter that a terminal does not know is no reason to stop.
            sys.stdout.reconfigure(errors="backslashreplace")
        code = _run(arguments, "--json" in arguments)
        if sys.stdout:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # `make diff | head`: whoever read us has read enough. click makes the second of the first.
        _drop_output()
    except OSError as error:
        _drop_output()
        click.echo(f"error: the result could not be written: {error.strerror}", err=True)
        return code or 2
    return code


def _drop_output() -> None:
    """What is still to be written to standard output goes nowhere, or Python complains when it ends."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(interrupt.answering(main))
