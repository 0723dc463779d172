"""What both halves of the suite share: running the command line as a user does."""

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

if not find_spec("tomllib"):
    # The model tests run on Python 3.10, the app's, and read the lock there as well.
    sys.modules["tomllib"] = importlib.import_module("tomli")

ROOT = Path(__file__).resolve().parents[1]


def run_tools(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """`python -m tools ARGUMENTS` in a process of its own, with `env` on top of this one's environment."""
    return subprocess.run(
        [sys.executable, "-m", "tools", *map(str, arguments)],
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("results")
    group.addoption("--results", metavar="FOLDER", type=Path, help="keep what this run of the model tests gave")
    group.addoption("--results-note", metavar="TEXT", default="", help="what the results should say about this run")


def pytest_configure(config: pytest.Config) -> None:
    if folder := config.getoption("--results"):
        from tests.record import Recorder

        config.pluginmanager.register(Recorder(folder, config.getoption("--results-note")))


# Tests that need what few machines have are left out of a run, and named at its end, rather than skipped: a skip means
# that upstream's files could not be had, or that this torch lacks what is tested. REQUIRE_UPSTREAM=1 wants none of the
# former, nor those on real histories left out.
CLOSING_LINES = pytest.StashKey[list[str]]()
# A package index has every pinned file, and no history: rebases on real commits, and what the baseline has instead.
ON_HISTORY = ("test_real_upstream.py", "test_walkthrough.py", "test_baseline.py")


def without(marker: str) -> str | None:
    """Why tests with `marker` cannot run here, or None."""
    if marker == "cuda":
        import torch

        return None if torch.cuda.is_available() else "this machine has no NVIDIA GPU"
    if marker == "sage" and not find_spec("sageattention"):
        return "sageattention is not installed, `make test-sage` installs it"
    if marker == "frozen" and not find_spec("cx_Freeze"):
        return "cx_Freeze is not installed, `make test-frozen` installs it"
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lines = config.stash.setdefault(CLOSING_LINES, [])
    for marker in ("cuda", "sage", "frozen"):
        if (marked := [item for item in items if item.get_closest_marker(marker)]) and (why := without(marker)):
            items[:] = [item for item in items if item not in marked]
            config.hook.pytest_deselected(items=marked)
            lines.append(f"left out, {len(marked)} tests marked {marker}: {why}")
    history = [item for item in items if item.path.name in ON_HISTORY]
    if history and os.environ.get("REQUIRE_UPSTREAM") != "1" and (why := without_history()):
        items[:] = [item for item in items if item not in history]
        config.hook.pytest_deselected(items=history)
        names = ", ".join(sorted({getattr(item, "originalname", item.name) for item in history}))
        lines.append(f"left out, {len(history)} tests on real histories, {names}: {why}")


def without_history() -> str | None:
    """Why tests on upstream's and the baseline's histories cannot run here, or None."""
    from tools.errors import NoSource
    from tools.git import tip
    from tools.lock import load

    lock = load(ROOT)
    for url in (lock.pin.url, lock.baseline.url):
        try:
            tip(url, "HEAD")
        except NoSource as error:
            return f"{url} cannot be reached: {error}"
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(CLOSING_LINES, []):
        terminalreporter.write_line(line)
