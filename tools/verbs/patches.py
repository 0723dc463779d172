"""Verbs on the patches, the lock and the documents: refresh, lock, lint."""

from datetime import date
from pathlib import Path

import click

from tools.console import (
    Context,
    pass_context,
    pinned_bytes,
    pinned_named,
    verb_lines,
    with_components,
    with_dest,
    with_json,
    with_offline,
    with_upstream,
    words,
)
from tools.errors import Drift, MalformedLock, MalformedPatch, UsageError
from tools.lock import LOCK_NAME
from tools.transaction import recover, write_together


@click.command()
@with_dest
@with_components
@with_upstream
@with_offline
@click.option(
    "--adopt",
    multiple=True,
    callback=words,
    help="Pinned files without a patch whose edits become one; a name is enough. [make: ADOPT=]",
)
@click.option("--description", help="What the new patch's header says; to be written otherwise. [make: DESCRIPTION=]")
@with_json
@pass_context
def refresh(
    context: Context,
    dest: Path | None,
    names: list[str],
    upstream: str | None,
    offline: bool,
    adopt: list[str],
    description: str | None,
) -> None:
    """Turn edits in a vendored tree into patches and lock entries.

    Patches, lock, documents and the tree's manifest are written together, so that the tree verifies again. An edited
    file that has no patch yet is refused, unless --adopt names it.
    """
    from tools.rebase_state import refuse_second
    from tools.refresh import Adopt
    from tools.refresh import refresh as run

    lock = context.lock
    tree = context.tree(dest)
    paths = [file.path for file in pinned_named(lock, adopt)] if adopt else []
    components = [part for part in lock.select(names) if names or (tree / part.path).is_dir()]
    if not components:
        raise Drift(f"nothing is vendored in {tree}", next_steps=["make vendor"])
    with context.writing():
        refuse_second(context.root)
        lock = context.lock
        components = list(lock.select(part.name for part in components))
        pinned = pinned_bytes(context, lock, [file for part in components for file in part.files], upstream, offline)
        done = run(context.root, lock, components, tree, pinned, Adopt(paths, description), verb_lines(), date.today())
    changed = [patch.name for patch in done.patches]
    todo = [patch.name for patch in done.patches if not patch.described]
    for line in done.blemishes:
        context.progress.warn(f"{line} (make check refuses that)")
    for path in done.extra:
        context.progress.warn(f"{path} is no pinned file: no patch can hold it, so no other tree will have it")
    for path in done.to_find:
        context.progress.warn(f"a package index alone does not give {path} now: make lock looks for its pieces")
    lines = [f"written: {name}" for name in (*changed, *([LOCK_NAME] if changed else ()), *done.documents)]
    lines += [f"write the Description in {name}, then run: make lock docs" for name in todo]
    context.report(
        "refresh",
        {"changed": changed, "documents": list(done.documents), "to_describe": todo},
        "\n".join(lines or ["no edits"]),
    )


@click.command("lock")
@with_upstream
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if the lock would change.")
@with_json
@pass_context
def relock(context: Context, upstream: str | None, check: bool) -> None:
    """Compute upstream.lock anew: pinned files, dates, wheels and patches, from the real things."""
    from tools.lock import parse
    from tools.relock import relock as run
    from tools.store import write_atomically

    recover(context.root)
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
        raise Drift(f"{path} is not what upstream and the patches give", next_steps=["make lock docs"])
    if changed:
        with context.writing():
            if path.read_text(encoding="utf-8") != text:
                raise UsageError(f"{path} was changed meanwhile", next_steps=["make lock docs"])
            write_atomically(path, fresh.encode())
    context.report("lock", {"changed": changed}, f"{path} " + ("written" if changed else "is up to date"))


@click.command()
@click.option("--write", is_flag=True, help="Bring the documents up to date instead of failing.")
@with_json
@pass_context
def lint(context: Context, write: bool) -> None:
    """Check lock, patches and the computed parts of the documents. Offline."""
    from tools.apply import read_patches
    from tools.docs import stale
    from tools.patchset import blemishes

    lock = context.lock
    patches = read_patches(context.root, lock)
    if found := [line for patch in patches.values() for line in blemishes(patch)]:
        raise MalformedPatch("patches add what they should not", found, ["mend it in the tree, then: make refresh"])
    fresh = stale(context.root, lock, patches, verb_lines())
    if write and fresh:
        with context.writing():
            write_together(context.root, {context.root / name: text.encode() for name, text in fresh.items()})
    elif fresh:
        raise Drift("documents are stale", [f"stale: {name}" for name in fresh], ["make docs"])
    text = f"{len(lock.patches)} patches and the documents are in order"
    context.report("lint", {"patches": len(lock.patches), "written": list(fresh)}, text)


VERBS = (refresh, relock, lint)
