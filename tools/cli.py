"""The command line: each verb reads its options, calls one function and reports. In make, options are in capitals."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import click
from click import Option

from tools.errors import EXIT_CODES, Drift, Next, NoSource, ToolError, UsageError
from tools.files import held
from tools.lock import NAME, Lock, load
from tools.show import Show, aligned, listen
from tools.store import Store

PROJECT = Path(__file__).resolve().parents[1]
Names = tuple[str, ...]


@dataclass
class Run:
    """What every verb gets: the project's folder, the store, and the printer."""

    root: Path
    store: Store
    show: Show

    @cached_property
    def lock(self) -> Lock:
        """The lock of the project, read on first use."""
        return load(self.root)

    def tree(self, dest: str | None) -> Path:
        """The whole path of DEST=, by default vendor/. Raises UsageError for a folder inside a tree."""
        if not dest:
            return self.root / "vendor"
        tree = Path(dest).expanduser().resolve()
        for path in (Path(component.path) for component in self.lock.components):
            for inside in (path, *path.parents[:-1]):
                depth = len(inside.parts)
                if tree.parts[-depth:] == inside.parts and not (tree / inside.parts[0]).exists():
                    step = Next(self.show.verb, options={"dest": str(tree.parents[depth - 1])})
                    raise UsageError(f"{tree} is inside a tree; DEST= is the folder around it", (), [step])
        return tree

    def writing(self) -> AbstractContextManager[None]:
        """Lock the project while patches, lock or documents are written. Raises UsageError as `files.held` does."""
        return held(self.root / "build" / "project.lock")


# The Makefile passes options in capitals, as in --ALLOW_LOSS.
@click.group(
    epilog="Exit codes: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items()) + ".",
    context_settings={"token_normalize_func": lambda name: name.lower().replace("_", "-")},
)
@click.option("--root", type=Path, default=PROJECT, help=f"Folder with {NAME} and patches/; by default this project.")
@click.option("--store", type=Path, help="Folder of the store.")
@click.pass_context
def cli(context: click.Context, root: Path, store: Path | None) -> None:
    """Get pinned upstream models, patch them, and check every byte.

    Start with `python -m tools vendor` and `python -m tools verify`. With make, write options in capitals, as in DEST=.
    """
    listen()
    context.obj = Run(root.expanduser().resolve(), Store(store and store.expanduser().absolute()), context.obj)


JSON = Option(["--json"], is_flag=True, expose_value=False, help="Report as JSON.")


def verb(*options: click.Parameter) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a function a verb, with its docstring as help: it gets the Run and option values, returns the exit code."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        @click.pass_context
        def command(context: click.Context, /, **given: Any) -> int:
            run: Run = context.obj
            run.show.verb, run.show.given = str(context.info_name), given
            return function(run, **given)

        name = function.__name__.replace("_", "-")
        cli.command(name, params=[*options, JSON], help=function.__doc__)(command)
        return function

    return register


def names(name: str, text: str) -> Option:
    """An option with a list of names, separated by blanks or commas."""

    def words(_: click.Context, __: click.Parameter, values: Sequence[str]) -> Names:
        return tuple(" ".join(values).replace(",", " ").split())

    return Option([name], help=text, multiple=True, callback=words)


DEST = Option(["--dest"], help="The tree, a folder with models/ in it; by default vendor/.")
COMPONENTS = names("--components", "Only these components.")
EXTRAS = names(
    "--extras", "Also apply the patches of these extras; by default of those in the tree. none: of no extra."
)
OFFLINE = Option(["--offline"], is_flag=True, help="Ask no network.")
UPSTREAM = Option(["--upstream"], help="Ask this first: a clone, a URL, a bundle, or a folder with upstream's files.")
FORCE = Option(["--force"], is_flag=True, help="vendor: replace others' files; clean: remove edits. Copies are kept.")


def verb_lines() -> list[tuple[str, str]]:
    """(name, description) of each verb, as README.md lists them."""
    return [(name, command.get_short_help_str(200)) for name, command in cli.commands.items()]


@verb(DEST, COMPONENTS, EXTRAS, UPSTREAM, OFFLINE, FORCE)
def vendor(run: Run, dest: str | None, components: Names, extras: Names, **how: Any) -> int:
    """Get the pinned files, patch and verify them, and put them in place.

    With --dest, put them into another project: files there with our names are replaced, all else stays.
    """
    from tools import vendor as work
    from tools.verify import extras_in

    parts, tree = run.lock.select(components), run.tree(dest)
    if not extras:
        extras = tuple(name for name, there in extras_in(tree, run.lock).items() if there)
    extras = () if extras == ("none",) else run.lock.extras(extras)
    order = work.Order(run.root, run.lock, parts, tree, run.store, extras=extras, **how)
    sources = work.vendor(order)
    words = {file.path: "patched" if file.is_patched(extras) else "unchanged" for part in parts for file in part.files}
    files = [{"path": path, "status": word} for path, word in words.items()]
    body = {"changed": sources is not None, "tree": str(order.tree), "sources": sources or "", "files": files}
    total = f"{len(words)} files, {list(words.values()).count('patched')} patched, in {order.tree}"
    return run.show.result(body, *([f"nothing to do: {total}"] if sources is None else [total, sources]))


@verb(DEST, COMPONENTS)
def verify(run: Run, dest: str | None, components: Names) -> int:
    """Check a tree against the lock: modified, missing, extra, incomplete. Offline."""
    from tools import verify as work

    tree = run.tree(dest)
    parts = work.expected(tree, run.lock.select(components), named=bool(components))
    here, count = [part.name for part in parts], sum(len(part.files) for part in parts)
    found = work.check(tree, run.lock, parts)
    body = {"findings": [attrs.asdict(it) for it in found], "components": here, "files": count, "tree": str(tree)}
    if found:
        # Without FORCE=1 vendor would stop for files that the manifest does not name.
        force = {"force": True} if any(finding.foreign for finding in found) else {}
        steps = [Next("diff", "shows edits"), Next("vendor", "makes the tree again, and keeps copies of edits", force)]
        raise Drift(f"{tree} is not what the lock says", map(str, found), steps, body)
    return run.show.result(body, f"{count} files as locked: {', '.join(here)}, in {tree}")


@verb(
    DEST,
    Option(["--context"], type=click.IntRange(0), default=3, help="Lines around each change."),
    names("--file", "Only these files; the end of the path is enough."),
    Option(["--export"], type=Path, help="Write patches for `git apply` and `patch -p1` to this folder."),
    UPSTREAM,
    OFFLINE,
)
def diff(run: Run, dest: str | None, context: int, file: Names, export: Path | None, **how: Any) -> int:
    """Show upstream against the vendored tree, edits included."""
    from tools import diff as work
    from tools.sources import pinned
    from tools.verify import vendored

    lock, tree = run.lock, run.tree(dest)
    there = (it for part in lock.components if vendored(tree, part) for it in part.files)
    files = lock.named(file) if file else tuple(there)
    if not files:
        raise Drift(f"nothing is vendored in {tree}", next_steps=[Next("vendor")])
    base = pinned(lock, run.root, files, run.store, **how).files
    found = work.differences(tree, files, base, context)
    body = {"files": [attrs.asdict(difference) for difference in found]}
    if export:
        written = work.export(run.root, lock, found, export.expanduser())
        return run.show.result(body, *(f"written: {path}" for path in written))
    return run.show.result(body, diff="".join(difference.text for difference in found))


@verb(DEST)
def status(run: Run, dest: str | None) -> int:
    """Show pin, tree, patches, extras and a rebase in five lines."""
    from tools import verify as work

    tree = run.tree(dest)
    found = work.status(run.root, run.lock, tree, run.store)
    stored = f"{found['stored']} of {found['total']} files in the store"
    # A patch of an extra has a word of its own only where something is wrong with it.
    extra = {file.patch for file in run.lock.patched if file.extra}
    patches = [f"{name} {text}" for name, text in found["patches"].items() if name not in extra or text[0] != "+"]
    rows = [
        ["pin", f"{found['pin'][:12]} of {found['date'][:10]}, {stored}"],
        ["tree", "; ".join(f"{name} {text}" for name, text in found["tree"].items()) + f", in {tree}"],
        ["patches", "; ".join(patches)],
        ["extras", "; ".join(f"{name} {text}" for name, text in found["extras"].items()) or "none"],
        ["rebase", f"under way in {work.REBASE}" if found["rebase"] else "none"],
    ]
    return run.show.result(found, *aligned(rows))


@verb(DEST, FORCE)
def clean(run: Run, dest: str | None, force: bool) -> int:
    """Take it back: remove our files, and put back those that they replaced.

    All else stays, the store too.
    """
    from tools import vendor as work

    tree = run.tree(dest)
    removed, restored = work.clean(run.lock, tree, run.store, force=force)
    lines = [f"put back: {path}" for path in restored]
    body = {"removed": removed, "restored": restored}
    return run.show.result(body, *lines, f"{len(removed)} files removed from {tree}")


@verb(
    DEST,
    Option(["--tree"], type=Path, help="Say for each file there: upstream's, the baseline's, ours, or different."),
    Option(["--baseline"], default="", help="Compare with another commit, branch or tag of the baseline's repository."),
    Option(["--baseline-from"], default="", help="A clone of the baseline's repository, a path or URL."),
    Option(["--html"], default="", help="Write the diffs side by side to this HTML file or folder."),
    Option(["--check"], is_flag=True, help="Check lock and documents: exit 1 for a false claim, 5 if not checked."),
    UPSTREAM,
    OFFLINE,
)
def audit(run: Run, dest: str | None, tree: Path | None, html: str, check: bool, offline: bool, **places: Any) -> int:
    """Compare upstream, baseline and vendored tree, and check what we claim of them.

    A file that the tree lacks counts as the lock has it. Differences are no error.
    """
    from tools import audit as work
    from tools.apply import read_patches
    from tools.files import write
    from tools.sources import pinned

    lock, clone = run.lock, places["baseline_from"]
    upstream = pinned(lock, run.root, lock.files, run.store, places["upstream"], offline=offline).files
    if check:
        false, unread = work.commit_claims(lock, (places["upstream"] or "", clone), offline=offline)
        false += work.claims(run.root, lock, upstream, verb_lines())
        body: dict[str, Any] = {"false": false, "not_checked": unread}
        if false:
            steps = [Next("lock", "computes the lock, and the documents' tables")]
            raise Drift(f"{len(false)} claims are false", false + unread, steps, body)
        if unread:
            steps = [Next("audit", "uses your own clones", {"upstream": "PATH", "baseline_from": "PATH"})]
            raise NoSource("some claims could not be checked; all others hold", unread, steps, body)
    commit, sides, why = work.baseline_of(lock, run.store, places["baseline"], clone, offline)
    files = work.audit(run.root, lock, run.tree(dest), upstream, sides)
    checkout = tree and work.checkout(lock, tree.expanduser().absolute(), files)
    rows, below = work.table(lock, commit, files)
    lines = aligned([("/".join(Path(path).parts[-2:]), word) for path, word in (checkout or {}).items()])
    lines = lines or [*aligned(rows), *below]
    lines += ["all claims of the lock and the documents hold"] * check
    lines += [f"no diffs with the baseline: {why}"] * bool(why)
    if html:
        from tools.page import page, place

        path = place(run.root, html)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, page(lock, commit, files, read_patches(run.root, lock.patched)))
        lines.append(f"written: {path}")
    listed = []
    for file in files:
        diffs = {"_".join(pair): text for pair, text in file.diffs.items()}
        listed.append({"path": file.path, "status": file.status, "sha256": file.hashes, "diffs": diffs})
    body = {"baseline": commit, "files": listed, "checkout": checkout, "unread": why}
    steps = [Next("audit", "uses your own clone", {"baseline_from": "PATH"})] if why else []
    return run.show.result(body, *lines, next_steps=steps)


@verb(
    DEST,
    COMPONENTS,
    names("--adopt", "Edited files that get a first patch; the end of the path is enough."),
    names("--drop", "Patches to remove."),
    Option(["--description"], help="Description of first patches; without it, write it into the patch later."),
    UPSTREAM,
    OFFLINE,
)
def refresh(run: Run, dest: str | None, components: Names, adopt: Names, drop: Names, **asked: Any) -> int:
    """Turn edits in a vendored tree into patches, or drop patches.

    Lock and documents are updated.
    """
    from tools import refresh as work
    from tools.vendor import Order

    description = asked.pop("description")
    with run.writing():
        order = Order(run.root, run.lock, run.lock.select(components), run.tree(dest), run.store, **asked)
        paths = [file.path for file in run.lock.named(adopt)] if adopt else []
        changed, to_describe = work.refresh(order, work.Wish(paths, description, drop), verb_lines())
    lines = [f"{'written' if (run.root / path).exists() else 'removed'}: {path}" for path in changed] or ["no edits"]
    lines += [f"write the Description in {path}, then run: make lock" for path in to_describe]
    steps = [Next("vendor", "removes the dropped patch from the tree")] if drop else []
    return run.show.result({"changed": changed, "to_describe": to_describe}, *lines, next_steps=steps)


@verb(UPSTREAM)
def lock(run: Run, upstream: str | None) -> int:
    """Compute upstream.lock, and the documents' tables.

    It depends on pyproject.toml, upstream, the baseline, the wheels and the patches.
    """
    from tools.relock import relock as work

    with run.writing():
        changed = work(run.root, run.store, upstream, verb_lines())
    lines = [f"written: {path}" for path in changed] or [f"{NAME} and the documents are up to date"]
    return run.show.result({"changed": changed}, *lines)


@verb()
def lint(run: Run) -> int:
    """Check lock, patches and the documents' tables. Offline."""
    from tools.relock import lint as work

    untried = work(run.root, run.lock, run.store, verb_lines())
    lines = [f"{path}: not in the store, so its patch was checked and not applied" for path in untried]
    count = len(run.lock.patched)
    body = {"patches": count, "untried": untried}
    return run.show.result(body, *lines, f"{count} patches and the documents are in order")


@verb(UPSTREAM, OFFLINE)
def outdated(run: Run, upstream: str | None, offline: bool) -> int:
    """Show what upstream has that the pin has not, and what a rebase would meet."""
    from tools.outdated import outdated as work

    pin = run.lock.pin
    body, met = work(run.root, run.lock, run.store, upstream, offline=offline)
    here = f"the pin, {pin.commit[:12]} of {pin.date[:10]},"
    if not met:
        return run.show.result(body, f"current: {here} is the newest on {pin.branch}")
    newest, commits = body["newest"], body["commits"]
    how = "ahead of" if body["ahead"] else "no part of" if body["diverged"] else "behind"
    count = "an unknown number of" if commits is None else len(commits)
    rows = []
    for it in commits or []:
        rows.append(["*" if it["touches"] else " ", it["commit"][:12], it["date"][:10], it["subject"][:51]])
    lines = [
        f"{here} is {how} {pin.branch}, which is at {newest['commit'][:12]} of {newest['date'][:10]}",
        f"{count} commits between, * where a pinned file changes:",
        *aligned(rows[:20]),
        *([f"  and {len(rows) - 20} more"] if rows[20:] else []),
        *aligned(met.rows()),
    ]
    steps = [Next("rebase", options={"to": pin.branch, "dry_run": True})]
    return run.show.result(body, *lines, next_steps=steps, code=1)


CHOICES = (
    names("--add", "New files of a component to pin."),
    names("--drop", "Patches to remove, and files that are gone upstream."),
    Option(["--allow-loss"], is_flag=True, help="Accept that lines which a patch added are lost."),
    OFFLINE,
)


@verb(
    Option(["--to"], required=True, help="A branch, tag or commit of upstream."),
    Option(["--url"], help="Follow this repository from now on."),
    Option(["--dry-run"], is_flag=True, help="Write nothing; print and exit as the real run would."),
    *CHOICES,
    UPSTREAM,
)
def rebase(run: Run, **asked: Any) -> int:
    """Carry the patches to another commit of upstream, and move the pin there.

    Stops with exit code 3, and writes no patch, when a person has to decide something.
    """
    from tools.rebase import begin

    return _rebased(run, begin, **asked)


@verb(*CHOICES)
def rebase_continue(run: Run, **asked: Any) -> int:
    """Go on with a rebase that stopped, once it is resolved."""
    from tools.rebase import go_on

    return _rebased(run, go_on, **asked)


def _rebased(run: Run, work: Callable[..., Any], dry_run: bool = False, **asked: Any) -> int:
    from tools.rebase import Order

    with run.writing():
        found, plan = work(Order(run.root, run.store, verb_lines(), dry_run=dry_run, **asked))
    pin, body = f"{found.pin.commit[:12]} of {found.pin.date[:10]}", {**found.body, "changed": [*plan]}
    if not plan:
        return run.show.result(body, f"nothing to do: the pin is {pin}")
    written, removed, moved = ("would write", "would remove", "would be") if dry_run else ("written", "removed", "is")
    lines = [f"{removed if data is None else written}: {path}" for path, data in plan.items()]
    lines = [*aligned(found.survey.rows(found.add, found.drop)), *lines, f"the pin {moved} {pin}"]
    return run.show.result(body, *lines, next_steps=[] if dry_run else [Next("vendor")])


@verb()
def rebase_status(run: Run) -> int:
    """Show the rebase that is under way, and what it waits for."""
    from tools.rebase import resume, ways

    if not (found := resume(run.root)):
        return run.show.result({"under_way": False}, "no rebase is under way")
    left = list(found.undecided())
    body = {"under_way": True, **found.body}
    way = f"from {found.lock.pin.commit[:12]} to {found.pin.commit[:12]} of {found.pin.date[:10]}"
    lines = ["to decide:", *(f"  {text}" for text, _ in left)] if left else ["nothing is left to decide"]
    lines = [f"{way}, in {found.repo.folder}", *aligned(found.survey.rows(found.add, found.drop)), *lines]
    return run.show.result(body, *lines, next_steps=ways(left))


@verb()
def rebase_abort(run: Run) -> int:
    """Forget the rebase that is under way. Patches and lock stay as they are."""
    from tools.rebase import abort

    with run.writing():
        abort(run.root)
    return run.show.result({}, "the rebase is forgotten; patches and lock are as before")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. A fault of a user, a network or a disk never raises."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    takes = {name: [str(it.name) for it in command.params] for name, command in cli.commands.items()}
    show = Show("--json" in map(str.lower, arguments), takes)
    try:
        with cli.make_context("python -m tools", arguments, obj=show) as context:
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
