"""The audit as one HTML page that needs nothing else: no network, no font, no script."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from tools.audit import PAIRS, FileAudit
from tools.diff import line_counts
from tools.lock import Lock
from tools.patch import lines_of
from tools.sources import on_github

# The number and text of a line on each side, None and "" where the other alone has it.
Row = tuple[int | None, str, int | None, str]


def page(lock: Lock, baseline: str, files: Sequence[FileAudit]) -> bytes:
    """The page for `files`, audited against the commit `baseline`. The same values give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    commits = {"upstream": (lock.pin.url, lock.pin.commit), "baseline": (lock.baseline.url, baseline)}
    text = environment.get_template("audit.html.j2").render(
        files=files,
        runs=_runs,
        counts=line_counts,
        pairs=PAIRS,
        commits={side: (url, commit, on_github(url)) for side, (url, commit) in commits.items()},
    )
    return text.encode(errors="replace")


def _runs(before: bytes, after: bytes) -> Iterator[tuple[bool, list[Row]]]:
    """All lines of two sides, side by side, in runs: (whether they are the same, rows)."""
    left, right = list(enumerate(_highlighted(before), 1)), list(enumerate(_highlighted(after), 1))
    matcher = SequenceMatcher(None, lines_of(before), lines_of(after), autojunk=False)
    for kind, old, old_end, new, new_end in matcher.get_opcodes():
        pairs = zip_longest(left[old:old_end], right[new:new_end], fillvalue=(None, ""))
        yield kind == "equal", [(*one, *other) for one, other in pairs]


def _highlighted(data: bytes) -> list[str]:
    """The lines of `data`, as Python, in HTML, without their ends."""
    # Pygments takes a carriage return for a line's end, git does not; shown, it also explains itself.
    text = data.decode(errors="replace").replace("\r", "\u240d").replace("\ufeff", "\ufffd")
    html = highlight(text, PythonLexer(stripnl=False, ensurenl=False), HtmlFormatter(nowrap=True))
    lines = html.split("\n")[:-1]
    if lines and not text.endswith("\n"):
        lines[-1] += '<i class="eof">no newline at the end</i>'
    return [Markup(line) for line in lines]
