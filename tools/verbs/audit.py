"""The verb audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tools.console import (
    Context,
    ReportedError,
    coloured,
    columns,
    pass_context,
    verb_lines,
    with_dest,
    with_json,
    with_offline,
    with_upstream,
)
from tools.errors import Drift, NoSource, ToolError
from tools.store import write_atomically

if TYPE_CHECKING:
    from tools.audit import FileAudit, Side

HTML = "build/audit/index.html"


@click.command()
@click.option(
    "--tree",
    "checkout",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Audit this checkout too: a folder with models/ in it, or that folder. [make: TREE=]",
)
@click.option("--baseline", "revision", help="Another commit, branch or tag of the baseline. [make: BASELINE=]")
@click.option("--baseline-from", help="A copy of the baseline's repository to ask instead. [make: BASELINE_FROM=]")
@click.option("--html", is_flag=True, help=f"Also write {HTML}. [make: HTML=1]")
@click.option("--check", is_flag=True, help="Exit 1 unless lock and documents hold. [make: CHECK=1]")
@with_dest
@with_upstream
@with_offline
@with_json
@pass_context
def audit(
    context: Context,
    checkout: Path | None,
    revision: str | None,
    baseline_from: str | None,
    html: bool,
    check: bool,
    dest: Path | None,
    upstream: str | None,
    offline: bool,
) -> None:
    """Show what differs between upstream, baseline and vendored tree, and whether what we claim is so.

    The vendored file is the one in the tree; where the tree has none, what the lock promises stands in for it, and its
    status says "not vendored". Differences are no failure: exit 0, also with --tree. Where the baseline's repository
    cannot be reached, the lock's hashes give each file's status, and only the diffs are missing. What else could not be
    had is null, the rest is shown all the same, and the exit code is 5.

    --check reads both commits anew, or with --offline takes what the store has, and holds them against the lock's
    hashes and dates, the patches' results, and the documents: computed parts, ids, paths, and the files that headings
    name. `verify` checks the tree.
    """
    from tools.audit import Wanted, gather_sides, unknown
    from tools.audit import audit as run
    from tools.claims import claims, not_checked

    lock = context.lock
    wanted = Wanted(context.tree(dest), checkout, revision, baseline_from, upstream, offline, anew=check)
    sides = gather_sides(context.root, lock, wanted, context.store, context.progress)
    found = claims(context.root, lock, sides, verb_lines()) if check else []
    false = [claim for claim in found if not claim.holds]
    body: dict[str, Any] = {
        "pins": {
            "upstream": {"url": lock.pin.url, "commit": lock.pin.commit},
            "baseline": {"url": lock.baseline.url, "commit": sides.baseline},
        }
    }
    skipped = not_checked(lock, sides) if check else []
    if check:
        body["claims"] = {
            "checked": len(found),
            "false": [vars(claim) for claim in false],
            "not_checked": skipped,
        }
    lines = []
    missing = []
    steps: list[str] = []
    if not (check and sides.broken):
        files = run(lock, sides)
        missing = unknown(files, bytes_too=check)
        steps = _steps(lock.baseline.url, files, revision, offline)
        body["files"] = [file.as_json() for file in files]
        lines.append(_table(files, sides.baseline))
        undone = [side for file in files if (side := file.sides["baseline"]).why and side.locked]
        if undone and not missing:
            lines.append(f"the baseline's diffs of {len(undone)} files are missing: {undone[0].why}")
            lines.append("next: make audit BASELINE_FROM=<path or URL of a clone of the baseline's repository>")
        if html:
            from tools.audit_page import page

            path = context.root / HTML
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, page(lock, sides.baseline, files))
            lines.append(f"written: {path}")
            body["html"] = str(path)
    lines += skipped
    error: ToolError | None = None
    if false:
        error = Drift(
            f"{len(false)} of {len(found)} claims are not borne out",
            map(str, [*false, *missing]),
            ["make audit", *steps],
        )
    elif missing:
        error = NoSource("bytes could not be had; everything else is shown", missing, steps)
    elif check:
        lines.append(f"{len(found)} claims of the lock and the documents hold")
    if error and context.json:
        raise ReportedError(error, body)
    context.report("audit", body, "\n".join(lines))
    if error:
        raise error


def _steps(baseline: str, files: "list[FileAudit]", revision: str | None, offline: bool) -> list[str]:
    """What helps to have each side that could not be had. baseline: the URL of its repository."""
    hidden = {name for file in files for name, side in file.sides.items() if side.why}
    steps = ["make audit, without OFFLINE=1"] if offline and hidden else []
    if "baseline" in hidden and not offline:
        steps.append(f"reach {baseline}, or make audit BASELINE_FROM=<path or URL of a clone of it>")
        if revision:
            steps.append(f"make audit, without BASELINE={revision}")
    if "upstream" in hidden:
        steps.append("make audit UPSTREAM=<clone or bundle of upstream>")
    return steps


def _table(files: "list[FileAudit]", baseline: str) -> str:
    """The files by folder, their blobs, the three comparisons, and the checkout where there is one."""
    from tools.audit import PAIRS, SIDES

    with_tree = any("tree" in file.sides for file in files)
    rows = [("", *SIDES, "patch", "app", "move", *(("tree", "nearest") if with_tree else ()), "status")]
    folder = ""
    for file in files:
        here, _, name = file.path.rpartition("/")
        if here != folder:
            rows.append((here, *[""] * (len(rows[0]) - 1)))
            folder = here
        cells = [_blob(file.sides[side]) for side in SIDES]
        cells += [_change(file, *pair) for pair in PAIRS]
        if with_tree:
            near = file.nearest
            aside = " CRLF aside" if near and near.crlf_aside else ""
            change = f"{near.old} {_change(file, near.old, near.new)}{aside}" if near else "-"
            cells += [_blob(file.sides["tree"]), change]
        rows.append((f"  {name}", *cells, ", ".join(file.status)))
    differs = [file for file in files if "baseline differs" in file.status]
    kept = [file for file in differs if "unchanged" in file.status]
    promised = sum("not vendored" in file.status for file in files)
    known = [file for file in files if "baseline unknown" not in file.status]
    hidden = len(files) - len(known)
    found = (
        f"the baseline {baseline[:12]} differs from upstream in {len(differs)} of {len(known)} files"
        + (f", {len(kept)} of them unchanged here" if kept else "")
        + (f"; of {hidden} more it is unknown" if hidden else "")
        if known
        else f"whether the baseline {baseline[:12]} differs from upstream is unknown for all {hidden} files"
    )
    lines = [
        columns(rows),
        "patch: upstream to vendored; app: upstream to baseline; move: baseline to vendored",
        found,
    ]
    if promised:
        lines.append(f"{promised} files are not vendored: for them, what the lock promises is shown")
    for file in files:
        if file.nearest and "is something else" in file.status:
            lines += [f"{file.path}: CRLF is taken for LF, on both sides"] if file.nearest.crlf_aside else []
            lines.append(coloured(file.nearest.diff.removesuffix("\n")))
    return "\n".join(lines)


def _blob(side: "Side") -> str:
    return side.blob[:7] if side.blob else "?" if side.why else "-"


def _change(file: "FileAudit", old: str, new: str) -> str:
    if found := file.comparison(old, new):
        lines = f"+{found.added} -{found.removed}" if found.added or found.removed else "binary"
        return lines if found.diff else "="
    return "?" if file.sides[old].why or file.sides[new].why else "-"


VERBS = (audit,)
