"""What `make test-torch` gave on several versions: the files in tests/results/, and the table in MODEL_CHANGES.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.files import sha256
from tools.lock import Lock, load

SCHEMA = 1
FOLDER = "tests/results"
MARK = "<!-- made by `make test-torch` -->\n"


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
    """All results below `root`, oldest torch first."""
    found = []
    for path in (root / FOLDER).glob("*.json"):
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        assert data.pop("schema") == SCHEMA, path
        where = [data.pop(key) for key in ("platform", "device", "note")]
        found.append(Result(where=", ".join(filter(None, where)), **data))
    return sorted(found, key=lambda result: result.order)


def tree_hash(lock: Lock) -> str:
    """One hash for what a whole vendored tree holds."""
    return sha256("".join(f"{file.result()}  {file.path}\n" for file in lock.files).encode())


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def write(root: Path) -> None:
    """Bring the table in MODEL_CHANGES.md up to date."""
    path = root / "MODEL_CHANGES.md"
    before, mark, rest = path.read_text(encoding="utf-8").partition(MARK)
    after = rest.partition("<!-- end -->")[2]
    if mark:
        fresh = f"{before}{mark}{text(read(root), tree_hash(load(root)))}<!-- end -->{after}"
        path.write_text(fresh, encoding="utf-8", newline="\n")


def summary(results: list[Result], tree: str) -> str:
    """The results as a table. tree: the hash of today's tree."""
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


def text(results: list[Result], tree: str) -> str:
    """The same, and what was skipped and what failed."""
    out = summary(results, tree)
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
