"""`--results FOLDER`: keep what a run of the model tests gave, for the table of versions in the documents."""

import json
import platform
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.versions import SCHEMA, file_name, tree_hash, write
from tools.lock import load

SUITE = "tests/models"


class Recorder:
    """A pytest plugin that writes one file of results for this torch and this Python, and names no place or machine."""

    def __init__(self, folder: Path, note: str) -> None:
        self.folder = folder
        self.note = note
        self.outcomes: Counter[str] = Counter()
        # reason: test function: number of its variants
        self.skipped: dict[str, Counter[str]] = defaultdict(Counter)
        self.failed: dict[str, Counter[str]] = defaultdict(Counter)
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
        elif report.failed:
            self.outcomes["failed"] += 1
            crash = getattr(report.longrepr, "reprcrash", None)
            self.failed[plain(crash.message if crash else str(report.longrepr))][name] += 1
        elif report.passed and report.when == "call":
            self.outcomes["passed"] += 1

    def pytest_runtest_logfinish(self) -> None:
        self.finished += 1

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        chosen = [Path(word).resolve() for word in session.config.args]
        whole = chosen == [ROOT / SUITE] and not self.left_out["others"] and self.finished == session.testscollected
        if not whole or exitstatus not in (0, 1):
            print(f"\nno results are kept: not all of {SUITE} was run", file=sys.stderr)
            return
        import torch

        python = platform.python_version()
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        body = {
            "schema": SCHEMA,
            "torch": torch.__version__,
            "python": python,
            "numpy": version("numpy"),
            "platform": f"{platform.system()} {platform.machine()}",
            "device": gpu,
            "note": self.note,
            "date": date.today().isoformat(),
            "tree": tree_hash(load(ROOT)),
            **{outcome: self.outcomes[outcome] for outcome in ("passed", "failed", "skipped")},
            "left_out": dict(sorted(self.left_out.items())),
            "failures": tidy(self.failed),
            "skips": tidy(self.skipped),
        }
        path = self.folder / file_name(torch.__version__, python)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        write(ROOT)


def tidy(groups: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {reason: dict(sorted(groups[reason].items())) for reason in sorted(groups)}


def plain(message: str) -> str:
    """The first line of a failure, without this machine's folders and without addresses of objects."""
    line = next(iter(message.strip().splitlines()), "")
    places = (str(ROOT), sys.prefix, sys.base_prefix, tempfile.gettempdir(), str(Path.home()))
    for place in sorted(places, key=len, reverse=True):
        line = line.replace(place, "…")
    return re.sub(r"0x[0-9a-f]+", "0x…", line)[:200]
