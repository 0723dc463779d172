"""What long runs found: the files in docs/figures/, and the sections of docs/reliability.md that are made of them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tools.errors import UsageError

SCHEMA = 1
FOLDER = "docs/figures"

# The sections that the page always has, in order: by the name of their file, the heading, and what stands there until
# there is one.
_NONE = "No run has left its figures here."
SECTIONS = {
    "kills": ("Killed processes", _NONE),
    "faults": ("Interruptions, and many at once", _NONE),
    "hostile": ("Hostile input", _NONE),
    "fuzz": ("Fuzzed input", _NONE),
    "frozen": ("Frozen programs", f"{_NONE} `make test-frozen KEEP=1` leaves them."),
    "cuda": (
        "NVIDIA GPUs",
        "**Nothing was run:** no GPU was at hand. `pytest -m cuda -s` and `make bench` are for one.",
    ),
    "mps": ("Apple GPUs", "**Nothing was run:** no such machine was at hand."),
    "windows": ("Windows", "**Nothing was run:** `.github/workflows/tests.yml` runs the suite there, on GitHub."),
    "macos": ("macOS", "**Nothing was run:** `.github/workflows/tests.yml` runs the suite there, on GitHub."),
}
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]


@dataclass(frozen=True)
class Figures:
    """One run. about: a sentence on what was run. command: what gives these figures again. on: the machine, in general
    words. rows: what was counted, and how many or how much."""

    about: str
    command: str
    date: str
    on: str
    rows: tuple[tuple[str, int | str], ...]


def read(root: Path) -> dict[str, Figures]:
    """All figures below `root` by name, those of SECTIONS first. Raises UsageError for a file that holds none."""
    found = {path.stem: _one(path) for path in sorted((root / FOLDER).glob("*.json"))}
    return {name: found[name] for name in (*SECTIONS, *found) if name in found}


def _one(path: Path) -> Figures:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        rows = tuple((what, figure) for what, figure in data.pop("rows"))
        figures = Figures(**data, rows=rows)
        words = (figures.about, figures.command, figures.on, *(what for what, _ in rows))
        if not all(isinstance(word, str) and word.strip() and "\n" not in word for word in words):
            raise ValueError("a text is empty or of several lines")
        if not rows or not all(type(figure) in (int, str) for _, figure in rows):
            raise ValueError("a row holds no figure")
        date.fromisoformat(figures.date)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{FOLDER}/{path.name} holds no figures", [str(error)], ["run again what wrote it; nobody edits it"]
        ) from error
    return figures


def text(found: dict[str, Figures], table: Table) -> str:
    """A section for each of SECTIONS, with its figures or without, and for whatever else is in `found`.

    table: (head, rows) to Markdown.
    """
    return "\n".join(_section(name, found.get(name), table) for name in dict.fromkeys((*SECTIONS, *found)))


def _section(name: str, figures: Figures | None, table: Table) -> str:
    heading, without = SECTIONS.get(name, (name.replace("-", " ").capitalize(), ""))
    if figures is None:
        return f"## {heading}\n\n{without}\n"
    rows = [(what, f"{figure:,}" if isinstance(figure, int) else figure) for what, figure in figures.rows]
    made = f"`{figures.command}`, on {figures.date}: {figures.on}."
    return f"## {heading}\n\n{figures.about}\n\n{made}\n\n" + table(("what", "figure"), rows)
