"""Saves the results of the model tests (`--results FOLDER`), and writes their table in MODEL_CHANGES.md."""

import json
import platform
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from tests.conftest import ROOT
from tools.files import sha256
from tools.lock import load

SUITE = "tests/models"
MARK = "<!-- made by `make test-torch` -->\n"


class Recorder:
    """A pytest plugin that writes one file of results for this torch and Python, without names of machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        # Reason: test function: number of its variants.
        self.skipped: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.left_out: Counter[str] = Counter()
        self.finished = 0

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            marks = [mark.name for mark in item.iter_markers() if mark.name in ("cuda", "sage")]
            self.left_out[marks[0] if marks else "others"] += 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0].removeprefix(f"{SUITE}/")
        if report.skipped and isinstance(report.longrepr, tuple):
            self.outcomes["skipped"] += 1
            self.skipped[report.longrepr[2].removeprefix("Skipped: ")][name] += 1
        elif report.passed and report.when == "call":
            self.outcomes["passed"] += 1

    def pytest_runtest_logfinish(self) -> None:
        self.finished += 1

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        chosen = [Path(word).resolve() for word in session.config.args]
        whole = chosen == [ROOT / SUITE] and not self.left_out["others"] and self.finished == session.testscollected
        if not whole or exitstatus:
            print(f"\nno results are kept: not all of {SUITE} was run and passed", file=sys.stderr)
            return
        import torch

        body = {
            "schema": 1,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "platform": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "date": date.today().isoformat(),
            "tree": tree_hash(),
            **{outcome: self.outcomes[outcome] for outcome in ("passed", "skipped")},
            "left_out": dict(sorted(self.left_out.items())),
            "skips": {reason: dict(sorted(self.skipped[reason].items())) for reason in sorted(self.skipped)},
        }
        path = self.folder / "torch-{}-python{}.json".format(*versions(body))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        write_table()


def versions(result: Mapping[str, Any]) -> tuple[str, str]:
    """The versions of torch and Python, short."""
    return result["torch"].partition("+")[0], result["python"].rpartition(".")[0]


def tree_hash() -> str:
    """One hash for what a whole vendored tree holds, with all extras: no patch changes without it."""
    lock = load(ROOT)
    return sha256("".join(f"{file.result(lock.decisions.extras)}  {file.path}\n" for file in lock.files).encode())


def write_table() -> None:
    """Write the table in MODEL_CHANGES.md, oldest torch first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "tests/results").glob("*.json")]
    results = sorted(found, key=lambda result: (Version(result["torch"]), Version(result["python"])))
    path = ROOT / "MODEL_CHANGES.md"
    before, mark, rest = path.read_text(encoding="utf-8").partition(MARK)
    assert mark, "MODEL_CHANGES.md has no place for the table"
    text = table(results) + reasons(results)
    path.write_text(f"{before}{mark}{text}<!-- end -->{rest.partition('<!-- end -->')[2]}", "utf-8", newline="\n")


def table(results: Sequence[Mapping[str, Any]]) -> str:
    head = ("torch", "Python", "NumPy", "on", "passed", "skipped", "left out", "patches")
    rows = [head, ["---"] * len(head)]
    for result in results:
        where = f"{result['platform']}, {result['device']}"
        counts = [result[key] for key in ("passed", "skipped")]
        left_out = ", ".join(f"{count} {marker}" for marker, count in result["left_out"].items()) or 0
        patches = "these" if result["tree"] == tree_hash() else f"**others**, of {result['date']}"
        rows.append([*(result[key] for key in ("torch", "python", "numpy")), where, *counts, left_out, patches])
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def reasons(results: Sequence[Mapping[str, Any]]) -> str:
    """A line for each reason of a skip, with versions and tests."""
    found: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
    for result in results:
        for reason, tests in result["skips"].items():
            names = ", ".join(
                f"`{name.partition('::')[2]}`" + (f" ({n})" if n > 1 else "") for name, n in tests.items()
            )
            torch, python = versions(result)
            found[f"{reason}: {names}"].setdefault(torch, []).append(python)
    lines = ""
    for what, places in found.items():
        where = "; ".join(f"{torch} on Python {' and '.join(on)}" for torch, on in places.items())
        lines += f"- {where}: {what}\n"
    return f"\nSkipped:\n\n{lines}" if lines else ""
