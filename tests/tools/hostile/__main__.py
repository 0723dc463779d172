"""`make hostile`: the whole corpus, and how many of each kind were refused, kept as figures."""

import re
import sys
from collections import Counter

import pytest

from tests.conftest import ROOT
from tests.figures import record


class Counting:
    """A plugin of pytest's that counts what passed, by the kind that its id begins with."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and (kind := re.search(r"refused\[([a-z]+): ", report.nodeid)):
            self.refused[kind[1]] += 1


def run(arguments: list[str]) -> int:
    counting = Counting()
    tests = str(ROOT / "tests/tools/hostile/test_hostile.py")
    code = int(pytest.main([tests, *arguments], plugins=[counting]))
    # One input let in, and there are no figures; nor are there for a part of the corpus.
    if code == 0 and not arguments:
        rows: list[tuple[str, int | str]] = [(f"refused: {kind}", count) for kind, count in counting.refused.items()]
        path = record(
            "hostile",
            command="make hostile",
            about="Hostile inputs given to the command line, each refused by name before anything was written.",
            rows=[("inputs refused", counting.refused.total()), *rows],
        )
        print(f"written: {path}")
    return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
