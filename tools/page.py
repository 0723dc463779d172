"""Writes the audit as one HTML page without scripts, fonts or links to other files."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache
from itertools import count, groupby, zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

from tools.apply import read_patches
from tools.audit import PAIRS, FileAudit
from tools.errors import UsageError
from tools.files import write
from tools.lock import ABSENT
from tools.patch import lines_of
from tools.sources import Project, on_github

TITLE = "<title>Audit of the vendored models</title>"
ALIKE = 0.6  # two lines that share this much of their words are shown as one changed line
LONG = 10_000  # pairs of words, or of lines, beyond which it is not worth the time to compare them
# A line has a number (None: no line on this side) and words: HTML element, class, text.
Words = Sequence[tuple[str, str, str]]
Line = tuple[int | None, Words]
# Rows of two lines, and their kind: difflib's, or "fold" for equal lines far from a change.
Run = tuple[str, Sequence[tuple[Line, Line]]]


def written(project: Project, asked: str, baseline: str, files: Sequence[FileAudit]) -> Path:
    """Write the page to the path that HTML=`asked` means, and return that. Raises UsageError for another file there."""
    path, lock = Path(asked).expanduser().absolute(), project.lock
    if asked.lower() in ("1", "yes", "true", "on"):
        path = project.root / "build/audit/index.html"
    elif path.is_dir() or asked.endswith("/"):
        path /= "index.html"
    if path.exists() and TITLE.encode() not in path.read_bytes():
        raise UsageError(f"{path} exists, and is no audit page", next_steps=["choose another file with HTML="])
    environment = Environment(loader=PackageLoader("tools", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = _code
    commits = {"upstream": (lock.pin.url, lock.pin.commit), "baseline": (lock.baseline.url, baseline)}
    text = environment.get_template("audit.html.j2").render(
        files=files,
        views={pair: _views(files, *pair) for pair in (*PAIRS[2:], *PAIRS[:2])},
        patches=read_patches(project.root, lock.patched),
        commits={side: (url, commit, on_github(url)) for side, (url, commit) in commits.items()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, text.encode(errors="replace"))
    return path


def _views(files: Sequence[FileAudit], old: str, new: str) -> dict[str, Any]:
    """For each file that differs, by path: lines added and removed, and numbered changes."""
    views, numbers = {}, count(1)
    for file in files:
        one, other = (file.data.get(side, b"" if file.hashes[side] == ABSENT else None) for side in (old, new))
        if one is not None and other is not None and one != other:
            counts = file.counts(old, new) or (len(lines_of(other)), len(lines_of(one)))
            views[file.path] = (*counts, list(zip(_changes(one, other), numbers, strict=False)))
    return views


@cache
def _changes(before: bytes, after: bytes) -> list[list[Run]]:
    """All lines of two sides, as changes with the lines around them."""
    left, right = list(enumerate(_lines(before), 1)), list(enumerate(_lines(after), 1))
    matcher = SequenceMatcher(None, lines_of(before), lines_of(after), autojunk=False)
    parts: list[list[Run]] = []
    old_end = new_end = 0
    for group in matcher.get_grouped_opcodes():
        parts.append([("fold", list(zip(left[old_end : group[0][1]], right[new_end : group[0][3]], strict=True)))])
        for kind, old, old_end, new, new_end in group:
            rows = zip if kind == "equal" else _rows
            parts[-1].append((kind, list(rows(left[old:old_end], right[new:new_end]))))
    parts[-1].append(("fold", list(zip(left[old_end:], right[new_end:], strict=True))))
    return parts


def _rows(old: Sequence[Line], new: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    """Rows of lines that differ: the most alike pair side by side, with the same for the lines before and after it."""
    alike = ((_likeness(one[1], other[1]), i, j) for i, one in enumerate(old) for j, other in enumerate(new))
    # For a long block this takes too long.
    best, i, j = max(alike, default=(0, 0, 0)) if len(old) * len(new) < LONG else (0, 0, 0)
    if best < ALIKE:
        yield from zip_longest(old, new, fillvalue=(None, ()))
        return
    yield from _rows(old[:i], new[:j])
    one, other = _marked(old[i][1], new[j][1])
    yield (old[i][0], one), (new[j][0], other)
    yield from _rows(old[i + 1 :], new[j + 1 :])


@cache
def _likeness(old: Words, new: Words) -> float:
    one, other = ([text for _, _, text in line if text.strip()] for line in (old, new))
    if len(one) * len(other) > LONG:
        return 0
    return SequenceMatcher(None, one, other, autojunk=False).ratio() if one or other else ALIKE


def _marked(old: Words, new: Words) -> tuple[Words, Words]:
    """Two lines, with the words in <b> that the other line lacks."""
    one, other = ([("b", css, text) for _, css, text in line] for line in (old, new))
    for i, j, size in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        # A blank between two marked words is marked too.
        if i == 0 or any(text.strip() for _, _, text in old[i : i + size]):
            one[i : i + size], other[j : j + size] = old[i : i + size], new[j : j + size]
    return one, other


def _lines(data: bytes) -> list[Words]:
    """The lines of `data` as coloured Python."""
    # Pygments ends a line at a carriage return, git does not; so it is shown as a character.
    text = data.decode(errors="replace").replace("\r", "\u240d")
    text = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
    lines: list[list[tuple[str, str, str]]] = [[]]
    for kind, piece in PythonLexer(stripnl=False, ensurenl=False).get_tokens(text):
        # Names, operators and blanks get no colour.
        css = re.sub("^[nopw]$", "", STANDARD_TYPES.get(kind, ""))
        for word in re.findall(r"\n|[^\S\n]+|\w+|[^\w\s]", piece):
            if word == "\n":
                lines.append([])
            else:
                lines[-1].append(("span", css, word))
    last = lines.pop()
    return [*map(tuple, lines), *([(*last, ("i", "eof", "no newline at the end"))] if last else [])]


def _code(line: Words) -> Markup:
    """A line as HTML."""
    html = Markup()
    for (element, css), words in groupby(line, lambda word: word[:2]):
        form = '<{0} class="{1}">{2}</{0}>' if css or element != "span" else "{2}"
        html += Markup(form).format(element, css, "".join(word[2] for word in words))
    return html
