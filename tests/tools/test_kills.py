"""Runs cut off at random moments, and many at once: a few of what `make stress` does often."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.faults import KILL, Case, at_once, many, measured

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs process groups")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return measured(tmp_path_factory.mktemp("cases"), runs=1)


@pytest.mark.parametrize(("sent", "hits"), [(KILL, 24), (signal.SIGINT, 10)], ids=["kill", "ctrl-c"])
def test_cut_off_at_a_random_moment_all_is_old_or_new_and_the_next_run_needs_no_help(
    cases: list[Case], tmp_path: Path, sent: signal.Signals, hits: int
) -> None:
    tally = many(cases, tmp_path, hits, sent, seed=20260131, each=4)
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.counts["in time"] >= hits


def test_eight_at_once_on_one_store_or_one_project(tmp_path: Path) -> None:
    # test_swap.py has one tree.
    tally = at_once(tmp_path, 1, trees=False)
    assert not tally.failures, "\n".join(tally.failures)


def test_every_temporary_folder_is_one_that_a_later_run_removes() -> None:
    makers = {
        path.name
        for path in (ROOT / "tools").rglob("*.py")
        if re.search(r"tempfile\.TemporaryDirectory", path.read_text(encoding="utf-8"))
    }
    assert makers == {"temporary.py"}
