"""The audit as one HTML page that needs nothing else: no network, no font, no library. Pure: values in, bytes out."""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, String, _TokenType, is_token_subtype

from tools.audit import PAIRS, SIDES, STATUS_WORDS, Comparison, FileAudit, lf
from tools.lock import Lock

# Only what helps to read a diff has a colour: plain names and punctuation would be most of the page's bytes.
_COLOURED = (
    (Comment, "tc"),
    (String, "ts"),
    (Number, "tm"),
    (Keyword, "tk"),
    (Name.Builtin, "tb"),
    (Name.Function, "td"),
    (Name.Class, "td"),
    (Name.Decorator, "td"),
)
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
NO_NEWLINE = Markup('<span class="eof">no newline at the end</span>')


@dataclass(frozen=True)
class Row:
    """A line of each side, with its number, or None: `kind` is `same`, `old`, `new` or `both` (replaced)."""

    kind: str
    left: int | None
    old: Markup
    right: int | None
    new: Markup


@dataclass(frozen=True)
class Chunk:
    """Lines that are shown (`folded` False), or a run of equal lines that is not, until somebody asks."""

    folded: bool
    rows: list[Row]


@dataclass(frozen=True)
class View:
    """A comparison as the page shows it: its anchor, and chunks, or the view whose reverse or equal it is."""

    anchor: str
    made: Comparison
    chunks: tuple[Chunk, ...]
    same_as: "View | None" = None


def page(lock: Lock, baseline: str, files: Sequence[FileAudit]) -> bytes:
    """The page for `files`, audited against commit `baseline`. The same values give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csp"] = _csp
    environment.filters["anchor"] = _anchor
    commits = {"upstream": (lock.pin.url, lock.pin.commit), "baseline": (lock.baseline.url, baseline)}
    shown = [word for word in STATUS_WORDS if any(word in file.status for file in files)]
    text = environment.get_template("audit.html.j2").render(
        files=files,
        views={file.path: _views(file) for file in files},
        sides=[*SIDES, *(["tree"] if any("tree" in file.sides for file in files) else [])],
        pairs=PAIRS,
        words={word: STATUS_WORDS[word] for word in shown},
        commits={name: (url, commit, web_page(url, commit)) for name, (url, commit) in commits.items()},
        differs=[file for file in files if "baseline differs" in file.status],
        hidden=sum("baseline unknown" in file.status for file in files),
        kept=[file for file in files if {"baseline differs", "unchanged"} <= {*file.status}],
        patched=[file for file in files if "patched" in file.status],
        blob_page=lambda name, path: web_page(*commits[name], path) if name in commits else None,
    )
    return text.encode(errors="replace")


def web_page(url: str, commit: str, path: str = "") -> str | None:
    """Where people read `commit`, or `path` in it, of a repository on GitHub; None for any other."""
    if not (match := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?", url)):
        return None
    return f"https://github.com/{match[1]}/" + (f"blob/{commit}/{path}" if path else f"commit/{commit}")


def _csp(script: str) -> str:
    """The source by which a Content-Security-Policy admits `script` and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _anchor(path: str) -> str:
    """An id for `path` that no other path has, of letters that need no escape in an address."""
    return re.sub(r"[^A-Za-z0-9_./]", lambda at: f"~{ord(at[0]):x}~", path).replace("/", "-")


def _views(file: FileAudit) -> list[View]:
    """A view for each comparison that found a difference; the same two blobs are laid out once."""
    seen: dict[tuple[frozenset[str | None], bool], View] = {}
    views = []
    for made in file.comparisons:
        if made.diff:
            old, new = file.sides[made.old], file.sides[made.new]
            anchor = f"{_anchor(file.path)}-{made.old}-{made.new}"
            same = seen.get(key := (frozenset((old.blob, new.blob)), made.crlf_aside))
            before, after = (lf(side.data or b"") if made.crlf_aside else side.data or b"" for side in (old, new))
            laid = () if same else tuple(chunks(before, after, made.diff))
            views.append(View(anchor, made, laid, same))
            seen.setdefault(key, views[-1])
    return views


def chunks(old: bytes, new: bytes, diff: str) -> Iterator[Chunk]:
    """All lines of `old` and `new`, in the order of their git `diff`; none when that says they are no text."""
    before, after = _highlighted(old), _highlighted(new)
    left = right = 0

    def fold(until: int) -> Iterator[Chunk]:
        nonlocal left, right
        if count := until - left:
            rows = [Row("same", left + n + 1, before[left + n], right + n + 1, Markup("")) for n in range(count)]
            yield Chunk(True, rows)
            left, right = left + count, right + count

    lines = diff.removesuffix("\n").split("\n")
    starts = [place for place, line in enumerate(lines) if _HUNK.match(line)]
    for start, end in zip(starts, [*starts, len(lines)][1:], strict=True):
        match = _HUNK.match(lines[start])
        assert match
        # A side without lines is numbered by the line before it.
        yield from fold(int(match[1]) - (match[2] != "0"))
        rows: list[Row] = []
        gone: list[tuple[int, Markup]] = []
        come: list[tuple[int, Markup]] = []
        for line in lines[start + 1 : end]:
            if line.startswith("-"):
                gone.append((left + 1, before[left]))
                left += 1
            elif line.startswith("+"):
                come.append((right + 1, after[right]))
                right += 1
            elif not line.startswith("\\"):
                rows += [*_paired(gone, come), Row("same", left + 1, before[left], right + 1, Markup(""))]
                left, right, gone, come = left + 1, right + 1, [], []
            elif side := come or gone:
                side[-1] = (side[-1][0], side[-1][1] + NO_NEWLINE)
        yield Chunk(False, [*rows, *_paired(gone, come)])
    if starts:
        yield from fold(len(before))


def _paired(gone: list[tuple[int, Markup]], come: list[tuple[int, Markup]]) -> Iterator[Row]:
    """Removed lines beside added ones."""
    for (left, old), (right, new) in zip_longest(gone, come, fillvalue=(None, Markup(""))):
        yield Row("both" if left and right else "old" if left else "new", left, old, right, new)


def _highlighted(data: bytes) -> list[Markup]:
    """The lines of `data`, as Python, without their line ends."""
    # Pygments takes a carriage return for a line's end, git does not; shown, it also explains itself.
    text = data.decode(errors="replace").replace("\r", "\u240d").replace("\ufeff", "\ufffd")
    lines: list[list[Markup]] = [[]]
    for kind, value in PythonLexer(stripnl=False, ensurenl=False).get_tokens(text):
        for number, part in enumerate(value.split("\n")):
            if number:
                lines.append([])
            if part:
                lines[-1].append(_token(kind, part))
    if not lines[-1]:
        lines.pop()
    return [Markup("").join(line) for line in lines]


def _token(kind: _TokenType, text: str) -> Markup:
    name = next((name for of, name in _COLOURED if is_token_subtype(kind, of)), "")
    return Markup('<span class="{}">{}</span>').format(name, text) if name and text.strip() else escape(text)
