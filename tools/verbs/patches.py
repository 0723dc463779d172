"""Verbs on the patches, the lock and the documents: refresh, lock, lint."""

from datetime import date
from pathlib import Path

import click

from tools.console import (
    Context,
    pass_context,
    pinned_bytes,
    verb_lines,
    with_components,
    with_dest,
    with_json,
    with_offline,
    with_upstream,
)
from tools.errors import Drift, MalformedLock, UsageError
from tools.lock import LOCK_NAME


@click.command()
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
    pinned = pinned_bytes(context, lock, [file for part in components for file in part.files], upstream, offline)
    patches = run(context.root, lock, components, tree, pinned, date.today())
    changed = [patch.name for patch in patches]
    todo = [patch.name for patch in patches if not patch.described]
    lines = [f"written: {name}" for name in changed]
    lines += [f"write the Description in {name}, then run: python -m tools lock" for name in todo]
    context.report("refresh", {"changed": changed, "to_describe": todo}, "\n".join(lines or ["no edits"]))


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


@click.command()
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
    found = stale(context.root, lock, verb_lines())
    if write:
        for path, text in found.items():
            write_atomically(path, text.encode())
    elif found:
        raise Drift("documents are stale", [f"stale: {path.name}" for path in found], ["make docs"])
    text = f"{len(lock.patches)} patches and the documents are in order"
    context.report("lint", {"patches": len(lock.patches), "written": [path.name for path in found]}, text)


VERBS = (refresh, relock, lint)
