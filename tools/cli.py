"""The command line: each verb reads its options, calls one function and reports. In make, options are in capitals."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import click
from click import Option

from tools import audit, rebase, refresh, relock, sources, vendor, verify
from tools.carry import Choice, Rebase
from tools.errors import EXIT_CODES, Drift, Next, ToolError, UsageError, log
from tools.files import held
from tools.lock import DECISIONS, NAME, REBASE, meant
from tools.relock import Plan
from tools.show import Show, aligned, listen
from tools.sources import Project
from tools.store import Store

ROOT = Path(__file__).resolve().parents[1]
Names = tuple[str, ...]


# The Makefile passes options in capitals, as in --ALLOW_LOSS.
@click.group(
    no_args_is_help=False,
    epilog="Exit codes: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items()) + ".",
    context_settings={"token_normalize_func": lambda name: name.lower().replace("_", "-")},
)
@click.option("--root", type=Path, default=ROOT, help=f"Folder with {NAME} and patches/; by default this project.")
@click.option("--store", type=Path, help="Folder of the store.")
@click.pass_context
def cli(context: click.Context, root: Path, store: Path | None) -> None:
    """Get pinned upstream models, patch them, and check every byte.

    Start with `python -m tools vendor` and `python -m tools verify`. With make, write options in capitals, as in DEST=.
    """
    listen()
    root = root.expanduser().resolve()
    context.obj = (Project(root, Store(store), root / "vendor"), context.obj)


JSON = Option(["--json"], is_flag=True, expose_value=False, help="Report as JSON.")


def verb(*options: click.Parameter, writes: bool = False) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a function a verb, with its docstring as help. It gets project, printer and options, and returns the code.

    --dest, --upstream and --offline become part of the project. writes: patches, lock or documents, one run at a time.
    """

    def register(function: Callable[..., int]) -> Callable[..., int]:
        name = function.__name__.strip("_").replace("_", "-")

        @cli.command(name, params=[*options, JSON], help=function.__doc__)
        @click.pass_obj
        def command(place: tuple[Project, Show], /, **given: Any) -> int:
            project, show = place
            show.verb, show.given = name, {**given}
            if dest := given.pop("dest", None):
                project = attrs.evolve(project, tree=_tree(project, Path(dest).expanduser().resolve()))
            places = {name: given.pop(name) for name in ("upstream", "offline") if name in given}
            with held(project.root / "build/project.lock") if writes else nullcontext():
                return function(attrs.evolve(project, **places), show, **given)

        return function

    return register


def _tree(project: Project, tree: Path) -> Path:
    """`tree`, which DEST= names. Raises UsageError for a folder inside a tree."""
    folders = [Path(component.path) for component in project.lock.components]
    for inside in (inside for folder in folders for inside in (folder, *folder.parents[:-1])):
        if tree.match(str(inside)) and not (tree / inside.parts[0]).exists():
            step = Next("", options={"dest": str(tree.parents[len(inside.parts) - 1])})
            raise UsageError(f"{tree} is inside a tree; DEST= is the folder around it", (), [step])
    return tree


def names(name: str, text: str) -> Option:
    """An option with a list of names, separated by blanks or commas."""

    def words(_: click.Context, __: click.Parameter, values: Sequence[str]) -> Names:
        return tuple(" ".join(values).replace(",", " ").split())

    return Option([name], help=text, multiple=True, callback=words)


DEST = Option(["--dest"], help="The tree, a folder with models/ in it; by default vendor/.")
COMPONENTS = names("--components", "Only these components.")
EXTRAS = names("--extras", "Also the patches of these extras; by default those in the tree. none: no extra.")
OFFLINE = Option(["--offline"], is_flag=True, help="Ask no network.")
UPSTREAM = Option(
    ["--upstream"], help="Ask this first: a clone, a URL or a bundle; for the pinned files also a folder."
)
FORCE = Option(["--force"], is_flag=True, help="vendor: replace others' files; clean: remove edits. Copies are kept.")


@verb(DEST, COMPONENTS, EXTRAS, UPSTREAM, OFFLINE, FORCE)
def _vendor(project: Project, show: Show, components: Names, extras: Names, force: bool) -> int:
    """Get the pinned files, patch and verify them, and put them in place.

    With --dest, put them into another project: files there with our names are replaced, all else stays.
    """
    parts, tree = project.lock.select(components), project.tree
    known, there = project.lock.decisions.extras, verify.extras_in(tree, project.lock)
    for name in (name for name, places in there.items() if places and not extras and name not in known):
        log.warning(f"the extra {name}, which is in the tree, is not in {DECISIONS} any more")
    extras = extras or tuple(name for name in known if there[name])
    extras = () if extras == ("none",) else tuple(meant("extra", extras, known))
    origins = vendor.vendor(project, parts, extras, force=force)
    patched = [file.is_patched(extras) for part in parts for file in part.files]
    total = f"{len(patched)} files, {sum(patched)} patched, in {tree}"
    return show.result(*([f"nothing to do: {total}"] if origins is None else [total, origins]))


@verb(DEST, COMPONENTS)
def _verify(project: Project, show: Show, components: Names) -> int:
    """Check a tree against the lock: modified, missing, extra, incomplete. Offline."""
    tree, parts = project.tree, project.lock.select(components)
    if not components:
        parts = tuple(part for part in parts if verify.vendored(tree, part)) or parts
    here, count = [part.name for part in parts], sum(len(part.files) for part in parts)
    found = [finding for part in parts for finding in verify.check(tree, project.lock, part)]
    body = {"findings": [it._asdict() for it in found], "components": here, "files": count, "tree": str(tree)}
    if found:
        # Without FORCE=1 vendor would stop for files that the manifest does not name.
        force = {"force": any(finding.foreign for finding in found)}
        steps = [Next("diff", "shows edits")] if {finding.kind for finding in found} == {"modified"} else []
        steps.append(Next("vendor", "makes the tree again, and keeps copies of edits", force))
        raise Drift(f"{tree} is not what the lock says", map(str, found), steps, body)
    return show.result(f"{count} files as locked: {', '.join(here)}, in {tree}", body=body)


@verb(
    DEST,
    Option(["--context"], type=click.IntRange(0), default=3, help="Lines around each change."),
    names("--file", "Only these files; the end of the path is enough."),
    Option(["--export"], type=Path, help="Write patches for `git apply` and `patch -p1` to this folder."),
    UPSTREAM,
    OFFLINE,
)
def _diff(project: Project, show: Show, context: int, file: Names, export: Path | None) -> int:
    """Show upstream against the vendored tree, edits included."""
    lock, tree = project.lock, project.tree
    there = [it for part in lock.components if verify.vendored(tree, part) for it in part.files]
    paths = meant("pinned file", file, [it.path for it in lock.files])
    files = [it for it in lock.files if it.path in paths] if file else there
    if not files:
        raise Drift(f"nothing is vendored in {tree}", next_steps=[Next("vendor")])
    found = verify.differences(tree, files, sources.pinned(project, lock, files).files, context)
    if export:
        written = verify.export(project.root, lock, found, export.expanduser())
        return show.result(*(f"written: {path}" for path in written))
    return show.diff("".join(found.values()))


@verb(DEST)
def _status(project: Project, show: Show) -> int:
    """Show pin, tree, patches, extras and a rebase in five lines."""
    found = verify.status(project)
    # Patches of extras are listed only when they have a fault.
    extra = {file.patch for file in project.lock.patched if file.extra}
    patches = [f"{name} {text}" for name, text in found["patches"].items() if name not in extra or text[0] != "+"]
    rows = [
        ["pin", f"{project.lock.pin}, {found['stored']} of {found['total']} files in the store"],
        ["tree", "; ".join(f"{name} {text}" for name, text in found["tree"].items()) + f", in {project.tree}"],
        ["patches", "; ".join(patches)],
        ["extras", "; ".join(f"{name} {text}" for name, text in found["extras"].items()) or "none"],
        ["rebase", f"under way in {REBASE}" if found["rebase"] else "none"],
    ]
    return show.result(*aligned(rows), body=found)


@verb(DEST, FORCE)
def _clean(project: Project, show: Show, force: bool) -> int:
    """Take it back: remove our files, and put back those that they replaced. All else stays, the store too."""
    removed, restored = vendor.clean(project, force=force)
    lines = [f"put back: {path}" for path in restored]
    return show.result(*lines, f"{len(removed)} files removed from {project.tree}")


@verb(
    DEST,
    Option(["--baseline"], default="", help="Compare with another commit, branch or tag of the baseline's repository."),
    Option(["--baseline-from"], default="", help="A clone of the baseline's repository, a path or URL."),
    Option(["--html"], default="", help="Write the diffs side by side to this HTML file or folder."),
    Option(["--check"], is_flag=True, help="Check lock and documents: exit 1 for a false claim, 5 if not checked."),
    UPSTREAM,
    OFFLINE,
)
def _audit(project: Project, show: Show, baseline: str, baseline_from: str, html: str, check: bool) -> int:
    """Compare upstream, baseline and vendored tree, and check what we claim of them.

    A file that the tree lacks counts as the lock has it. Differences are no error.
    """
    upstream = sources.pinned(project, project.lock, project.lock.files).files
    if check:
        audit.check(project, upstream, baseline_from)
    commit, sides, why = audit.baseline_of(project, baseline, baseline_from)
    files = audit.audit(project, upstream, sides)
    rows, below = audit.table(commit, files)
    lines = [*aligned(rows), *below, *(["all claims of the lock and the documents hold"] if check else [])]
    lines += [f"no diffs with the baseline: {why}"] if why else []
    if html:
        # Loading this takes time, for Jinja2 and Pygments.
        from tools import page

        lines.append(f"written: {page.written(project, html, commit, files)}")
    listed = [{"path": it.path, "status": it.status, "sha256": it.hashes, "diffs": it.diffs} for it in files]
    steps = [Next("audit", "uses your own clone", {"baseline_from": "PATH"})] if why else []
    return show.result(*lines, body={"baseline": commit, "files": listed, "unread": why}, steps=steps)


@verb(
    DEST,
    names("--adopt", "Edited files that get a first patch; the end of the path is enough."),
    names("--drop", "Patches to remove."),
    Option(["--description"], help="Description of first patches; without it, write it into the patch later."),
    UPSTREAM,
    OFFLINE,
    writes=True,
)
def _refresh(project: Project, show: Show, adopt: Names, drop: Names, description: str | None) -> int:
    """Turn edits in a vendored tree into patches, or drop patches. Lock and documents follow."""
    paths = meant("pinned file", adopt, [file.path for file in project.lock.files])
    changed, to_describe = refresh.refresh(project, paths, description, drop)
    written = [f"{'written' if (project.root / path).exists() else 'removed'}: {path}" for path in changed]
    lines = [f"write the Description in {path}" for path in to_describe]
    steps = [Next("lock", "once it is written")] if lines else []
    steps += [Next("vendor", "removes the dropped patch from the tree")] if drop else []
    return show.result(*(written or ["no edits"]), *lines, steps=steps)


@verb(UPSTREAM, writes=True)
def _lock(project: Project, show: Show) -> int:
    """Compute upstream.lock, and the documents' tables. It needs pyproject.toml, upstream, the wheels, the patches."""
    lines = [f"written: {path}" for path in relock.relock(project)]
    return show.result(*(lines or [f"{NAME} and the documents are up to date"]))


@verb()
def _lint(project: Project, show: Show) -> int:
    """Check lock, patches and the documents' tables. Offline."""
    lines = [f"{path}: not in the store, so its patch was checked and not applied" for path in relock.lint(project)]
    return show.result(*lines, f"{len(project.lock.patched)} patches and the documents are in order")


@verb(UPSTREAM, OFFLINE)
def _outdated(project: Project, show: Show) -> int:
    """Show what upstream has that the pin has not, and what a rebase would meet."""
    pin = project.lock.pin
    body, met = rebase.outdated(project)
    here = f"the pin, {pin},"
    if not met:
        return show.result(f"current: {here} is the newest on {pin.branch}", body=body)
    newest, commits = body["newest"], body["commits"]
    how = "ahead of" if body["ahead"] else "no part of" if body["diverged"] else "behind"
    count = "an unknown number of" if commits is None else len(commits)
    rows = [
        ["*" if it["touches"] else " ", it["commit"][:12], it["date"][:10], it["subject"][:51]] for it in commits or []
    ]
    lines = [
        f"{here} is {how} {pin.branch}, which is at {newest['commit'][:12]} of {newest['date'][:10]}",
        f"{count} commits between, * where a pinned file changes:",
        *aligned(rows[:20]),
        *([f"  and {len(rows) - 20} more"] if rows[20:] else []),
        *aligned(met.rows),
    ]
    return show.result(*lines, body=body, steps=[Next("rebase", options={"to": pin.branch, "dry_run": True})], code=1)


CHOICES = (
    names("--add", "New files of a component to pin."),
    names("--drop", "Patches to remove, and files that are gone upstream."),
    Option(["--allow-loss"], is_flag=True, help="Accept that lines which a patch added are lost."),
    OFFLINE,
)


@verb(
    Option(["--to"], required=True, help="A branch, tag or commit of upstream."),
    Option(["--dry-run"], is_flag=True, help="Write nothing; print and exit as the real run would."),
    *CHOICES,
    UPSTREAM,
    writes=True,
)
def _rebase(project: Project, show: Show, to: str, dry_run: bool, **choice: Any) -> int:
    """Carry the patches to another commit of upstream, and move the pin there.

    Stops with exit code 3, and writes no patch, when a person has to decide something. To follow another repository or
    branch, write it into pyproject.toml first.
    """
    return _rebased(show, *rebase.rebase(project, to, Choice(**choice), dry_run=dry_run), dry_run=dry_run)


@verb(*CHOICES, writes=True)
def _rebase_continue(project: Project, show: Show, **choice: Any) -> int:
    """Go on with a rebase that stopped, once it is resolved."""
    return _rebased(show, *rebase.rebase(project, None, Choice(**choice)))


def _rebased(show: Show, found: Rebase, plan: Plan, *, dry_run: bool = False) -> int:
    if not plan:
        return show.result(f"nothing to do: the pin is {found.pin}")
    written, removed, moved = ("would write", "would remove", "would be") if dry_run else ("written", "removed", "is")
    lines = [f"{removed if data is None else written}: {path}" for path, data in plan.items()]
    lines = [*aligned(found.rows), *lines, f"the pin {moved} {found.pin}"]
    return show.result(*lines, steps=[] if dry_run else [Next("vendor")])


@verb(writes=True)
def _rebase_status(project: Project, show: Show) -> int:
    """Show the rebase that is under way, and what it waits for."""
    if not (found := rebase.resume(project.root, Choice())):
        return show.result("no rebase is under way")
    left = list(found.undecided())
    way = f"from {found.lock.pin.commit[:12]} to {found.pin}"
    lines = ["to decide:", *(f"  {text}" for text, _ in left)] if left else ["nothing is left to decide"]
    lines = [f"{way}, in {found.repo.folder}", *aligned(found.rows), *lines]
    return show.result(*lines, steps=rebase.ways(left, found.choice))


@verb(writes=True)
def _rebase_abort(project: Project, show: Show) -> int:
    """Forget the rebase that is under way. Patches and lock stay as they are."""
    rebase.abort(project.root)
    return show.result("the rebase is forgotten; patches and lock stay as they are")


def main() -> int:
    """Run the command line; the exit code. A fault of a user, a network or a disk never raises."""
    show = Show("--json" in map(str.lower, sys.argv), cli.commands)
    try:
        with cli.make_context("python -m tools", sys.argv[1:], obj=show) as context:
            return int(cli.invoke(context))
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        step = f"{error.ctx.command_path if error.ctx else 'python -m tools'} --help"
        return show.error(UsageError(error.format_message(), next_steps=[step]))
    except ToolError as error:
        return show.error(error)
    except BrokenPipeError:
        # As in `make diff | head`.
        return 0
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return show.error(ToolError(text, (), ["check the path, its permissions and the disk"]))
