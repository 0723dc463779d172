"""The command line: `python -m tools VERB`. The only module that prints; each `make` target is one call of it."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from io import TextIOWrapper
from pathlib import Path
from typing import Any

try:
    import click
except ModuleNotFoundError as missing:
    sys.exit(f"error: Python package {missing.name!r} is not installed here\nnext: make vendor, which sets up its own")

from tools import __version__
from tools.errors import EXIT_CODES, Drift, MalformedLock, ToolError, UsageError
from tools.git import forget_outer_repository
from tools.lock import LOCK_NAME, Lock, load
from tools.progress import Progress
from tools.store import ENV, Store, default_root

JSON_SCHEMA = 1
_PROJECT = Path(__file__).resolve().parents[1]


@dataclass
class Context:
    """What every verb needs, made when it is first asked for."""

    root: Path
    store_root: Path | None
    progress: Progress
    json: bool = False

    @property
    def lock(self) -> Lock:
        return load(self.root)

    @property
    def store(self) -> Store:
        return Store(self.store_root or default_root(), self.progress.warn)

    def tree(self, dest: Path | None) -> Path:
        return dest or self.root / "vendor"

    def report(self, verb: str, body: dict[str, Any], text: str) -> None:
        """The result, on standard output: as JSON where it was asked for, as text otherwise."""
        if self.json:
            print(json.dumps({"schema": JSON_SCHEMA, "verb": verb, "ok": True, **body}, indent=2))
        elif text:
            click.echo(text)


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
    ctx.obj = Context(root.resolve(), store, Progress(quiet=quiet))


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.obj.json = value
    return value


def _words(_: click.Context, __: click.Parameter, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in value.replace(",", " ").split()]


with_json = click.option(
    "--json", "as_json", is_flag=True, callback=_set_json, expose_value=False, help="Report as JSON."
)
with_dest = click.option(
    "--dest", type=click.Path(path_type=Path, file_okay=False), help="The tree; vendor/ by default. [make: DEST=]"
)
with_components = click.option(
    "--components", "names", multiple=True, callback=_words, help="Only these components. [make: COMPONENTS=]"
)
with_offline = click.option("--offline", is_flag=True, help="Ask no network. [make: OFFLINE=1]")
with_upstream = click.option(
    "--upstream", help="A repository (path or URL) or bundle to ask before the lock's sources. [make: UPSTREAM=]"
)
with_force = click.option("--force", is_flag=True, help="Foreign files do not stop the run. [make: FORCE=1]")
pass_context = click.make_pass_decorator(Context)


@cli.command()
@with_dest
@with_components
@with_upstream
@with_offline
@with_force
@with_json
@pass_context
def vendor(
    context: Context, dest: Path | None, names: list[str], upstream: str | None, offline: bool, force: bool
) -> None:
    """Get the pinned files, patch them, verify them, and swap them in.

    With --dest, another project's tree: only the component folders in it are replaced, and PROVENANCE.json is written
    beside them. A file there that we did not make stops the run; with --force it is carried over untouched.
    """
    from tools.sources import sources_for
    from tools.vendor import Place
    from tools.vendor import vendor as run

    lock = context.lock
    done = run(
        context.root,
        lock,
        lock.select(names),
        Place(context.tree(dest), force),
        sources_for(lock, upstream),
        context.store,
        context.progress,
        offline=offline,
    )
    rows = [(row.path, row.status, f"+{row.added}", f"-{row.removed}", row.source) for row in done.rows]
    total = f"{len(rows)} files, {sum(row.status == 'patched' for row in done.rows)} patched"
    state = "vendored" if done.changed else "nothing to do, all as locked"
    text = _columns([("file", "status", "added", "removed", "source"), *rows])
    text += "".join(f"\ncarried over: {path}" for path in done.carried)
    context.report(
        "vendor",
        {"changed": done.changed, "files": [asdict(row) for row in done.rows], "carried": list(done.carried)},
        f"{text}\n{total}: {state} in {context.tree(dest)}",
    )


@cli.command()
@with_dest
@with_components
@with_json
@pass_context
def verify(context: Context, dest: Path | None, names: list[str]) -> None:
    """Check a tree against the lock: modified, missing, extra, incomplete. Offline.

    Without --components, those that were vendored there are checked.
    """
    from tools.verify import check

    lock = context.lock
    tree = context.tree(dest)
    found = check(tree, lock, lock.select(names), named=bool(names))
    if found:
        raise _ReportedError(
            Drift(
                f"{tree} is not what the lock says",
                map(str, found),
                ["make diff, to see edits", "make vendor, to put the tree right"],
            ),
            {"findings": [asdict(finding) for finding in found]},
        )
    checked = [
        part.name for part in lock.components if (tree / part.path).exists() and part.name in (names or [part.name])
    ]
    count = sum(len(part.files) for part in lock.components if part.name in checked)
    context.report(
        "verify",
        {"findings": [], "components": checked, "files": count},
        f"{count} files as locked: {', '.join(checked)}",
    )


@cli.command()
@with_dest
@click.option(
    "--context", "around", type=click.IntRange(0), default=3, help="Lines around each change. [make: CONTEXT=]"
)
@click.option("--file", "files", multiple=True, callback=_words, help="Only these; a name is enough. [make: FILE=]")
@click.option(
    "--export", "folder", type=click.Path(path_type=Path, file_okay=False), help="Write patches here. [make: EXPORT=]"
)
@with_upstream
@with_offline
@with_json
@pass_context
def diff(
    context: Context,
    dest: Path | None,
    around: int,
    files: list[str],
    folder: Path | None,
    upstream: str | None,
    offline: bool,
) -> None:
    """Show upstream against the vendored tree, edits included.

    --export writes the same as conventional patches, with context, that `git apply` and `patch -p1` take.
    """
    from tools.refresh import differences, export

    lock = context.lock
    tree = context.tree(dest)
    chosen = [file for file in lock.files if not files or any(f"/{file.path}".endswith(f"/{name}") for name in files)]
    unknown = [name for name in files if not any(f"/{file.path}".endswith(f"/{name}") for file in chosen)]
    if unknown:
        raise UsageError(
            f"no pinned file is called {', '.join(unknown)}", next_steps=["make status; MODEL_CHANGES.md lists them"]
        )
    if not files:
        chosen = [file for part in lock.components if (tree / part.path).is_dir() for file in part.files]
        if not chosen:
            raise Drift(f"nothing is vendored in {tree}", next_steps=["make vendor"])
    found = differences(tree, chosen, _pinned(context, lock, chosen, upstream, offline), around)
    body = {"files": [asdict(difference) for difference in found if difference.text]}
    if folder:
        written = [str(path) for path in export(context.root, lock, found, folder)]
        context.report("diff", {**body, "written": written}, "\n".join(written))
    else:
        text = "".join(difference.text for difference in found)
        context.report("diff", body, _coloured(text.removesuffix("\n")))


@cli.command()
@with_dest
@with_json
@pass_context
def status(context: Context, dest: Path | None) -> None:
    """Show pin, store, tree and patches at a glance."""
    from tools.status import status as look

    lock = context.lock
    found = look(context.root, lock, context.tree(dest), context.store)
    rows = [
        ("pin", f"{found.pin} of {found.date[:10]}"),
        ("store", f"{found.stored} of {found.total} pinned files in {context.store.root}"),
        *((f"tree {name}", text) for name, text in found.tree.items()),
        *((name, text) for name, text in found.patches.items()),
    ]
    context.report("status", found.as_json(), _columns(rows))


@cli.command()
@with_dest
@with_force
@with_json
@pass_context
def clean(context: Context, dest: Path | None, force: bool) -> None:
    """Remove what we made from a tree; the store stays."""
    from tools.vendor import Place
    from tools.vendor import clean as remove

    removed = remove(context.lock, Place(context.tree(dest), force))
    context.report("clean", {"removed": removed}, f"{len(removed)} files removed from {context.tree(dest)}")


@cli.command()
@click.argument("source", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("dest", type=click.Path(path_type=Path, file_okay=False))
@with_components
@with_force
@with_json
@click.pass_context
def apply(ctx: click.Context, source: Path, dest: Path, names: list[str], force: bool) -> None:
    """Patch a folder that holds upstream's files, SOURCE, into the tree DEST. No network.

    SOURCE is laid out as upstream: SOURCE/models/scnet/scnet.py. Its files are admitted by their hashes; the store
    is not asked for them.
    """
    import tempfile

    from tools.sources import FolderSource
    from tools.vendor import Place
    from tools.vendor import vendor as run

    context: Context = ctx.obj
    lock = context.lock
    with tempfile.TemporaryDirectory(prefix="dsu-patches-") as nothing:
        store = Store(Path(nothing), context.progress.warn)
        done = run(
            context.root,
            lock,
            lock.select(names),
            Place(dest, force),
            [FolderSource(source)],
            store,
            context.progress,
            keep=context.store,
        )
    context.report(
        "apply",
        {"changed": done.changed, "files": [asdict(row) for row in done.rows], "carried": list(done.carried)},
        f"{len(done.rows)} files, {sum(row.status == 'patched' for row in done.rows)} patched, in {dest}",
    )


@cli.command()
@with_dest
@with_components
@with_upstream
@with_offline
@with_json
@pass_context
def refresh(context: Context, dest: Path | None, names: list[str], upstream: str | None, offline: bool) -> None:
    """Turn edits in a vendored tree into patches and lock entries."""
    from tools.refresh import refresh as run

    lock = context.lock
    tree = context.tree(dest)
    components = [part for part in lock.select(names) if names or (tree / part.path).is_dir()]
    if not components:
        raise Drift(f"nothing is vendored in {tree}", next_steps=["make vendor"])
    pinned = _pinned(context, lock, [file for part in components for file in part.files], upstream, offline)
    patches = run(context.root, lock, components, tree, pinned, date.today())
    changed = [patch.name for patch in patches]
    todo = [patch.name for patch in patches if not patch.described]
    lines = [f"written: {name}" for name in changed]
    lines += [f"write the Description in {name}, then run: python -m tools lock" for name in todo]
    context.report("refresh", {"changed": changed, "to_describe": todo}, "\n".join(lines or ["no edits"]))


@cli.command("lock")
@with_upstream
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if the lock would change.")
@with_json
@pass_context
def relock(context: Context, upstream: str | None, check: bool) -> None:
    """Compute upstream.lock anew: pinned files, dates, wheels and patches, from the real things."""
    from tools.lock import parse
    from tools.relock import relock as run
    from tools.store import write_atomically

    path = context.root / LOCK_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}", next_steps=["start one from README.md, The lock"]) from error
    except UnicodeDecodeError as error:
        raise MalformedLock(f"{path} cannot be read", [str(error)]) from error
    fresh = run(text, context.root, context.progress, upstream=upstream, keep=context.store.put)
    parse(fresh)
    changed = fresh != text
    if check and changed:
        raise Drift(f"{path} is not what upstream and the patches give", next_steps=["python -m tools lock"])
    if changed:
        write_atomically(path, fresh.encode())
    context.report("lock", {"changed": changed}, f"{path} " + ("written" if changed else "is up to date"))


@cli.command()
@click.option("--write", is_flag=True, help="Bring the documents up to date instead of failing.")
@with_json
@pass_context
def lint(context: Context, write: bool) -> None:
    """Check lock, patches and the computed parts of the documents. Offline."""
    from tools.apply import read_patches
    from tools.docs import stale
    from tools.store import write_atomically

    lock = context.lock
    read_patches(context.root, lock)
    found = stale(
        context.root, lock, [(name, command.get_short_help_str(200)) for name, command in cli.commands.items()]
    )
    if write:
        for path, text in found.items():
            write_atomically(path, text.encode())
    elif found:
        raise Drift("documents are stale", [f"stale: {path.name}" for path in found], ["make docs"])
    text = f"{len(lock.patches)} patches and the documents are in order"
    context.report("lint", {"patches": len(lock.patches), "written": [path.name for path in found]}, text)


class _ReportedError(Exception):
    """An error that also has a body for --json."""

    def __init__(self, error: ToolError, body: dict[str, Any]) -> None:
        super().__init__(error.message)
        self.error = error
        self.body = body


def _pinned(context: Context, lock: Lock, files: Sequence[Any], upstream: str | None, offline: bool) -> Any:
    from tools.sources import gather, require, sources_for

    gathered = gather(files, sources_for(lock, upstream), context.store, context.progress, offline=offline)
    return require(gathered, (), len(files))


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _coloured(text: str) -> str:
    """A diff with colours, which click drops again where standard output is no terminal."""
    colours = {"+": "green", "-": "red", "@": "cyan"}
    return "\n".join(
        click.style(line, fg=colours[line[0]]) if line[:1] in colours else line for line in text.split("\n")
    )


def _fail(error: ToolError, body: dict[str, Any], as_json: bool) -> int:
    click.echo(click.style("error:", fg="red", bold=True) + f" {error.message}", err=True)
    for finding in error.findings:
        click.echo(f"  {finding}", err=True)
    for step in error.next_steps:
        click.echo(f"next: {step}", err=True)
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
    try:
        code = cli.main(arguments, prog_name="python -m tools", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return _fail_as_json(UsageError(error.format_message()), {}) if as_json else 2
    except _ReportedError as reported:
        return _fail(reported.error, reported.body, as_json)
    except ToolError as error:
        return _fail(error, {}, as_json)
    except ModuleNotFoundError as error:
        return _fail(
            ToolError(
                f"Python package {error.name!r} is not installed here",
                next_steps=["make vendor, which sets up its own"],
            ),
            {},
            as_json,
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(
            ToolError(f"{where}{error.strerror or error}", next_steps=["check the path, its rights and the disk"]),
            {},
            as_json,
        )
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; what stood before stands still", err=True)
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
    sys.exit(main())
