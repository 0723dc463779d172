"""Verbs on a vendored tree: vendor, verify, diff, status, clean, apply."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from tools.console import (
    Context,
    ReportedError,
    coloured,
    columns,
    pass_context,
    pinned_bytes,
    pinned_named,
    with_components,
    with_dest,
    with_force,
    with_json,
    with_offline,
    with_upstream,
    words,
)
from tools.errors import Drift
from tools.store import Store


@click.command()
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
        sources_for(context.root, lock, upstream),
        context.store,
        context.progress,
        offline=offline,
    )
    rows = [(row.path, row.status, f"+{row.added}", f"-{row.removed}") for row in done.rows]
    total = f"{len(rows)} files, {sum(row.status == 'patched' for row in done.rows)} patched"
    state = "vendored" if done.changed else "nothing to do, all as locked"
    text = columns([("file", "status", "added", "removed"), *rows])
    text += "".join(f"\n{line}" for line in _summed_up(row.source for row in done.rows))
    text += "".join(f"\ncarried over: {path}" for path in done.carried)
    context.report(
        "vendor",
        {"changed": done.changed, "files": [asdict(row) for row in done.rows], "carried": list(done.carried)},
        f"{text}\n{total}: {state} in {context.tree(dest)}",
    )


def _summed_up(origins: Iterable[str]) -> list[str]:
    """A line for each kind of source: how many files came from it, and what it is called."""
    kinds: dict[str, list[list[str]]] = {}
    for origin in origins:
        kind, _, names = origin.partition(" ")
        kinds.setdefault(kind, []).append(names.split(", "))
    return [
        f"{len(found)} from {kind} {', '.join(sorted({name for names in found for name in names}))}".rstrip()
        for kind, found in kinds.items()
    ]


@click.command()
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
        raise ReportedError(
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


@click.command()
@with_dest
@click.option(
    "--context", "around", type=click.IntRange(0), default=3, help="Lines around each change. [make: CONTEXT=]"
)
@click.option("--file", "files", multiple=True, callback=words, help="Only these; a name is enough. [make: FILE=]")
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
    chosen = pinned_named(lock, files)
    if not files:
        chosen = [file for part in lock.components if (tree / part.path).is_dir() for file in part.files]
        if not chosen:
            raise Drift(f"nothing is vendored in {tree}", next_steps=["make vendor"])
    found = differences(tree, chosen, pinned_bytes(context, lock, chosen, upstream, offline), around)
    body = {"files": [asdict(difference) for difference in found if difference.text]}
    if folder:
        written = [str(path) for path in export(context.root, lock, found, folder)]
        context.report("diff", {**body, "written": written}, "\n".join(written))
    else:
        text = "".join(difference.text for difference in found)
        context.report("diff", body, coloured(text.removesuffix("\n")))


@click.command()
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
    context.report("status", found.as_json(), columns(rows))


@click.command()
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


@click.command()
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
    from tools.sources import FolderSource
    from tools.temporary import TemporaryFolder
    from tools.vendor import Place
    from tools.vendor import vendor as run

    context: Context = ctx.obj
    lock = context.lock
    with TemporaryFolder() as nothing:
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


VERBS = (vendor, verify, diff, status, clean, apply)
