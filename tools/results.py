"""What test runs on several versions of torch gave: the files in tests/results/, and the table made of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.errors import UsageError

SCHEMA = 1
FOLDER = "tests/results"


@dataclass(frozen=True)
class Result:
    """One run of the model tests. `tree`: the hash of the vendored files it was run on. `failures` and `skips`:
    for each reason the test functions, with the number of their variants."""

    torch: str
    python: str
    numpy: str
    where: str
    date: str
    tree: str
    passed: int
    failed: int
    skipped: int
    left_out: Mapping[str, int]
    failures: Mapping[str, Mapping[str, int]]
    skips: Mapping[str, Mapping[str, int]]

    @property
    def order(self) -> tuple[list[int], list[int]]:
        return _numbers(self.torch), _numbers(self.python)


def file_name(torch: str, python: str) -> str:
    """Where the results for these versions lie: one file for each torch and each minor Python."""
    return f"torch-{torch.partition('+')[0]}-python{'.'.join(python.split('.')[:2])}.json"


def read(root: Path) -> list[Result]:
    """All results below `root`, oldest torch first. Raises UsageError for a file that holds none."""
    found = []
    for path in (root / FOLDER).glob("*.json"):
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("schema") != SCHEMA:
                raise ValueError(f"its schema is not {SCHEMA}")
            where = [data.pop(key) for key in ("platform", "device", "note")]
            found.append(Result(where=", ".join(filter(None, where)), **data))
            _ = found[-1].order
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f"{FOLDER}/{path.name} holds no results of a test run", [str(error)], ["`make test-torch` writes them"]
            ) from error
    return sorted(found, key=lambda result: result.order)


Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]


def summary(results: list[Result], tree: str, table: Table) -> str:
    """The results as a table. tree: the hash of today's tree. table: (head, rows) to Markdown."""
    rows = [
        (
            result.torch,
            result.python,
            result.numpy,
            result.where,
            result.passed,
            result.skipped,
            result.failed,
            ", ".join(f"{count} {marker}" for marker, count in result.left_out.items()) or 0,
            "these" if result.tree == tree else f"**others**, of {result.date}",
        )
        for result in results
    ]
    return table(("torch", "Python", "NumPy", "on", "passed", "skipped", "failed", "left out", "patches"), rows)


def text(results: list[Result], tree: str, table: Table) -> str:
    """The same, and what was skipped and what failed."""
    out = summary(results, tree, table)
    for word, groups in (("Skipped", "skips"), ("Failed", "failures")):
        lines = _reasons(results, groups)
        if lines:
            out += f"\n{word}:\n\n" + "".join(f"- {line}\n" for line in lines)
    return out


def _reasons(results: list[Result], groups: str) -> list[str]:
    """A line a reason: on which versions, and which tests."""
    found: dict[tuple[str, tuple[str, ...]], dict[str, list[str]]] = {}
    for result in results:
        torch, python = result.torch.partition("+")[0], ".".join(result.python.split(".")[:2])
        for reason, tests in getattr(result, groups).items():
            names = tuple(f"`{name.partition('::')[2]}`" + (f" ({n})" if n > 1 else "") for name, n in tests.items())
            found.setdefault((reason, names), {}).setdefault(torch, []).append(python)
    lines = []
    for (reason, names), versions in found.items():
        where = "; ".join(f"{torch} on Python {' and '.join(on)}" for torch, on in versions.items())
        lines.append(f"{where}: {reason}: {', '.join(names)}")
    return lines


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.partition("+")[0].split(".") if part.isdigit()]
