"""Verbs that follow upstream: outdated, and rebase with its three companions."""

from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from tools.console import (
    Context,
    ReportedError,
    columns,
    pass_context,
    pinned_bytes,
    verb_lines,
    with_json,
    with_offline,
    with_upstream,
)
from tools.lock import Lock

if TYPE_CHECKING:
    from tools.carry import Survey
    from tools.rebase import Rebase

# As many commits as a terminal shows beside the rest; --json has all.
_SHOWN = 20


@click.command()
@with_upstream
@with_offline
@with_json
@pass_context
def outdated(context: Context, upstream: str | None, offline: bool) -> int:
    """Show what upstream has that the pin has not, and what a rebase would meet.

    Reads, never writes. Exit code 0 when the pin is the newest commit of its branch, 1 when it is not. --offline asks
    only a repository on this machine.
    """
    from tools.outdated import outdated as run

    lock = context.lock
    found = run(
        context.root,
        lock,
        upstream,
        lambda: pinned_bytes(context, lock, lock.files, upstream, offline),
        context.progress,
        offline=offline,
    )
    ours = {file.path for file in lock.files}
    body: dict[str, Any] = {
        "current": found.current,
        "pin": {"commit": lock.pin.commit, "date": lock.pin.date},
        "newest": {"commit": found.tip, "date": found.date, "branch": lock.pin.branch},
        "ahead": found.ahead,
        "diverged": found.diverged,
        "commits": None
        if found.steps is None
        else [
            {"commit": step.commit, "date": step.date, "subject": step.subject, "touches": sorted(ours & {*step.paths})}
            for step in found.steps
        ],
        **(_survey_as_json(found.survey) if found.survey else {"patches": [], "files": [], "new_files": []}),
    }
    pin = f"{lock.pin.commit[:12]} of {lock.pin.date[:10]}"
    if found.current or not found.survey:
        return context.report("outdated", body, f"current: the pin, {pin}, is the newest on {lock.pin.branch}")
    lines = columns([("pin", pin), ("newest", f"{found.tip[:12]} of {found.date[:10]}, on {lock.pin.branch}")]).split(
        "\n"
    )
    if found.ahead:
        lines.append(f"the pin is ahead of {lock.pin.branch}")
    if found.diverged:
        lines.append(f"the pin is no part of {lock.pin.branch}, which was rewritten, or the pin is of another branch")
    if found.steps is None:
        why = "what was asked has too little of the history" if found.diverged is None else "the pin is not there"
        lines += ["", f"the commits between are unknown: {why}"]
    else:
        lines += ["", f"{len(found.steps)} commits between, * where a pinned file changes:"]
        lines += [
            f"{'*' if ours & {*step.paths} else ' '} {step.commit[:12]} {step.date[:10]} {step.subject}"
            for step in found.steps[:_SHOWN]
        ]
        if len(found.steps) > _SHOWN:
            lines.append(f"  and {len(found.steps) - _SHOWN} more")
    lines += ["", _survey_as_text(found.survey), "", f"next: make rebase TO={lock.pin.branch} DRY_RUN=1"]
    return context.report("outdated", body, "\n".join(lines), code=1)


with_add = click.option("--add", multiple=True, help="New files of a component to take up. [make: ADD=]")
with_drop = click.option("--drop", multiple=True, help="Patches, or files that are gone, to do without. [make: DROP=]")
with_allow_loss = click.option(
    "--allow-loss", is_flag=True, help="Go on although added lines are lost. [make: ALLOW_LOSS=1]"
)


@click.command()
@click.argument("to")
@click.option("--url", help="Another repository to follow from now on; the lock will name it. [make: URL=]")
@with_upstream
@with_offline
@with_add
@with_drop
@with_allow_loss
@click.option("--dry-run", is_flag=True, help="Write nothing; exit as the real run would. [make: DRY_RUN=1]")
@with_json
@pass_context
def rebase(
    context: Context,
    to: str,
    url: str | None,
    upstream: str | None,
    offline: bool,
    add: tuple[str, ...],
    drop: tuple[str, ...],
    allow_loss: bool,
    dry_run: bool,
) -> None:
    """Carry the patches to TO, a branch, tag or commit of upstream, and move the pin there.

    Git merges each patch with what changed upstream, in a scratch repository. When nothing is left to decide, patches,
    lock and documents are written in one step; vendored trees stay as they are until `make vendor`. Otherwise the run
    stops with exit code 3, and goes on with rebase-continue. --offline asks only repositories on this machine.
    """
    from tools.addresses import insist_on_repository
    from tools.rebase import begin, chosen, problems, steps, undecided
    from tools.rebase_state import refuse_second, save

    if url:
        insist_on_repository(url)
    with context.writing():
        refuse_second(context.root)
        lock = context.lock
        pinned = pinned_bytes(context, lock, lock.files, None if url else upstream, offline)
        found = begin(context.root, lock, to, url, upstream, pinned, context.progress, offline=offline)
        found = chosen(found, add, drop, allow_loss)
        if found.nothing_to_do:
            text = f"nothing to do: the pin is at {lock.pin.commit[:12]}"
            body = {**_as_json(found, finished=True, dry_run=dry_run), "changed": False, "written": [], "removed": []}
            context.report("rebase", body, text)
            return
        if left := problems(found):
            if dry_run:
                given = {"URL": url, "UPSTREAM": upstream, "ADD": " ".join(add), "DROP": " ".join(drop)}
                options = "".join(f' {name}="{value}"' for name, value in given.items() if value)
                then = [f"make rebase TO={to}{options}, to resolve that"]
            else:
                save(context.root, found)
                then = steps(left)
            click.echo(_survey_as_text(found), err=True)
            raise ReportedError(undecided(left, then), _as_json(found, dry_run=dry_run))
        _finish(context, "rebase", lock, found, offline=offline, dry_run=dry_run)


@click.command("rebase-continue")
@with_offline
@with_add
@with_drop
@with_allow_loss
@with_json
@pass_context
def rebase_continue(
    context: Context, offline: bool, add: tuple[str, ...], drop: tuple[str, ...], allow_loss: bool
) -> None:
    """Go on with a rebase that stopped, once its files are resolved and its choices made.

    The files to resolve lie in build/rebase/resolve. What was added and dropped is remembered from one run to the next;
    leave to lose lines is not.
    """
    from tools.apply import read_patches
    from tools.rebase import chosen, problems, steps, undecided
    from tools.rebase_state import remember, resume

    with context.writing():
        lock = context.lock
        found = chosen(resume(context.root, lock), add, drop, allow_loss)
        read_patches(context.root, lock)
        remember(context.root, found)
        if left := problems(found):
            raise ReportedError(undecided(left, steps(left)), _as_json(found))
        _finish(context, "rebase-continue", lock, found, offline=offline)


@click.command("rebase-status")
@with_json
@pass_context
def rebase_status(context: Context) -> None:
    """Show the rebase that is under way, and what it waits for."""
    from tools.rebase import listed, problems, steps
    from tools.rebase_state import resume, under_way

    lock = context.lock
    if not under_way(context.root):
        context.report("rebase-status", {"under_way": False}, "no rebase is under way")
        return
    found = resume(context.root, lock)
    left = problems(found)
    lines = [f"from {_commit(found.old)} to {_commit(found.new)}", "", _survey_as_text(found), ""]
    lines += ["to decide:", *listed(left)] if left else ["nothing is left to decide"]
    lines += [f"next: {step}" for step in steps(left)]
    context.report("rebase-status", {"under_way": True, **_as_json(found)}, "\n".join(lines))


@click.command("rebase-abort")
@with_json
@pass_context
def rebase_abort(context: Context) -> None:
    """Forget the rebase that is under way; patches and lock stand as they stood."""
    from tools.rebase_state import abort

    with context.writing():
        abort(context.root)
    context.report("rebase-abort", {}, "forgotten; patches and lock stand as they stood before")


def _finish(context: Context, verb: str, lock: Lock, found: "Rebase", *, offline: bool, dry_run: bool = False) -> None:
    from tools.rebase import finish

    context.progress.line("building and verifying a tree from the new patches")
    done = finish(
        context.root,
        lock,
        found,
        verb_lines(),
        context.store,
        context.progress,
        date.today(),
        offline=offline,
        dry_run=dry_run,
    )
    for patch in found.survey.patches:
        if patch.file not in found.dropped_patches:
            for line in patch.taken_over:
                context.progress.line(f"{patch.file}: upstream has such a line now: {line.strip()}")
            for line in patch.lost:
                context.progress.warn(f"{patch.file}: lost: {line.strip()}")
    for line in done.blemishes:
        context.progress.warn(f"{line} (make check refuses that)")
    lines = [_survey_as_text(found), ""]
    lines += [f"{'would write' if dry_run else 'written'}: {name}" for name in done.written]
    lines += [f"{'would remove' if dry_run else 'removed'}: {name}" for name in done.removed]
    lines.append(f"the pin {'would be' if dry_run else 'is'} {_commit(found.new)}")
    if not dry_run:
        lines.append("next: make vendor test")
    body = {"changed": not dry_run, "written": list(done.written), "removed": list(done.removed)}
    context.report(verb, {**_as_json(found, finished=True, dry_run=dry_run), **body}, "\n".join(lines))


def _commit(pin: Any) -> str:
    return f"{pin.commit[:12]} of {pin.date[:10]}"


def _survey_as_json(survey: "Survey") -> dict[str, Any]:
    return {
        "patches": [
            {
                "file": patch.file,
                "target": patch.target,
                "outcome": patch.outcome,
                "path": patch.path,
                "lost": list(patch.lost),
                "taken_over": list(patch.taken_over),
                "note": patch.note,
            }
            for patch in survey.patches
        ],
        "files": [
            {"path": file.old, "outcome": file.outcome, "now": file.path, "note": file.note} for file in survey.files
        ],
        "new_files": list(survey.added),
    }


def _as_json(found: "Rebase", **more: Any) -> dict[str, Any]:
    from tools.rebase import FOLDER, problems

    return {
        "finished": False,
        "dry_run": False,
        "from": asdict(found.old),
        "to": asdict(found.new),
        **_survey_as_json(found.survey),
        "to_decide": [asdict(problem) for problem in problems(found)],
        "folder": FOLDER,
        **more,
    }


def _survey_as_text(found: "Survey | Rebase") -> str:
    from tools.carry import Survey

    survey = found if isinstance(found, Survey) else found.survey
    added, dropped = (
        (frozenset(), frozenset()) if isinstance(found, Survey) else (found.choices.add, found.dropped_patches)
    )
    meanings = {
        "clean": "applies as it is",
        "merged": "merges cleanly",
        "conflict": "conflicts",
        "already upstream": "already upstream",
        "gone": "its file is gone",
    }
    rows = [
        (patch.file, "dropped", "")
        if patch.file in dropped
        else (patch.file, meanings[patch.outcome], _where(patch.target, patch.path, patch.note))
        for patch in survey.patches
    ]
    rows += [
        (file.old, f"{file.outcome} upstream", _where(file.old, file.path, file.note))
        for file in survey.files
        if file.outcome != "same"
    ]
    rows += [(path, "new upstream", "ADD= takes it up") for path in survey.added if path not in added]
    rows += [(path, "taken up", "") for path in sorted(added)]
    same = sum(file.outcome == "same" for file in survey.files)
    return "\n".join([*([columns(rows)] if rows else []), f"{same} of {len(survey.files)} pinned files are the same"])


def _where(old: str, new: str | None, note: str) -> str:
    return note or (f"now {new}" if new and new != old else "")


VERBS = (outdated, rebase, rebase_continue, rebase_status, rebase_abort)
