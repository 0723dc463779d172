"""Settings of the whole test suite: running the command line, and leaving out tests that cannot run here."""

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not find_spec("tomllib"):
    # The model tests also run on the app's Python, 3.10, and read the lock there.
    sys.modules["tomllib"] = importlib.import_module("tomli")

ROOT = Path(__file__).resolve().parents[1]


def ran(*command: str | Path, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Run `command`, by default in this project, and keep what it prints."""
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 280, "check": False, **more}
    return subprocess.run([*map(str, command)], **options)


def run_tools(*arguments: str | Path, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `python -m tools ARGUMENTS` with `env` added to the environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return ran(sys.executable, "-m", "tools", *arguments, env=environment)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("results")
    group.addoption("--results", metavar="FOLDER", type=Path, help="keep what this run of the model tests gave")


def pytest_configure(config: pytest.Config) -> None:
    if folder := config.getoption("--results"):
        from tests.record import Recorder

        config.pluginmanager.register(Recorder(folder))


# Tests that need a GPU or an optional package are left out, and listed at the end. A skip means that upstream's files
# were not found, or that this torch lacks a feature. With REQUIRE_UPSTREAM=1, missing files and repositories are
# failures.
CLOSING_LINES = pytest.StashKey[list[str]]()
# Tests that need the real repositories; a package index has only the pinned files.
ON_HISTORY = ("test_walkthrough.py", "test_baseline.py", "test_app.py")


def without(marker: str) -> str | None:
    """Why tests with `marker` cannot run here, or None."""
    if marker == "cuda":
        import torch

        return None if torch.cuda.is_available() else "this machine has no NVIDIA GPU"
    if marker == "app":
        names = [name for name in ("ml_collections", "tqdm") if not find_spec(name)]
        return f"{', '.join(names)} not installed, requirements/models.txt names them" if names else None
    package = {"sage": "sageattention", "frozen": "cx_Freeze"}[marker]
    return None if find_spec(package) else f"{package} is not installed, `make test-{marker}` installs it"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lines = config.stash.setdefault(CLOSING_LINES, [])
    for marker in ("app", "cuda", "sage", "frozen"):
        if (marked := [item for item in items if item.get_closest_marker(marker)]) and (why := without(marker)):
            items[:] = [item for item in items if item not in marked]
            config.hook.pytest_deselected(items=marked)
            lines.append(f"left out, {len(marked)} tests marked {marker}: {why}")
    history = [item for item in items if item.path.name in ON_HISTORY]
    if history and os.environ.get("REQUIRE_UPSTREAM") != "1" and (why := without_history()):
        items[:] = [item for item in items if item not in history]
        config.hook.pytest_deselected(items=history)
        lines.append(f"left out, {len(history)} tests on real histories, in {', '.join(ON_HISTORY)}: {why}")


def without_history() -> str | None:
    """Why tests on the real repositories cannot run here, or None."""
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
