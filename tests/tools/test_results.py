"""Results of runs on other versions of torch: kept whole or not at all, and told with the patches they are of."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.record import Recorder, plain, tidy
from tests.tools.conftest import Project
from tools.docs import table
from tools.errors import UsageError
from tools.lock import load
from tools.results import FOLDER, file_name, read, text

RESULT: dict[str, Any] = {
    "schema": 1,
    "torch": "2.2.2+cu121",
    "python": "3.11.7",
    "numpy": "1.26.4",
    "platform": "Linux x86_64",
    "device": "CPU",
    "note": "",
    "date": "2026-01-31",
    "tree": "a" * 64,
    "passed": 10,
    "failed": 0,
    "skipped": 2,
    "left_out": {"cuda": 3},
    "failures": {},
    "skips": {"no such thing": {"test_a.py::test_x": 2}},
}


def keep(root: Path, **changes: Any) -> None:
    body = {**RESULT, **changes}
    path = root / FOLDER / file_name(body["torch"], body["python"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body), encoding="utf-8")


def test_versions_are_in_their_order_with_what_was_skipped_and_what_failed(tmp_path: Path) -> None:
    keep(tmp_path, torch="2.10.0", failed=1, failures={"Boom": {"test_b.py::test_y": 1}}, note="a note")
    keep(tmp_path, torch="2.10.0", python="3.10.13")
    keep(tmp_path)
    said = text(read(tmp_path), "a" * 64, table)
    rows = [line.split(" | ")[:3] for line in said.splitlines() if line.startswith("| 2")]
    assert rows == [
        ["| 2.2.2+cu121", "3.11.7", "1.26.4"],
        ["| 2.10.0", "3.10.13", "1.26.4"],
        ["| 2.10.0", "3.11.7", "1.26.4"],
    ]
    assert "| Linux x86_64, CPU, a note | 10 | 2 | 1 | 3 cuda | these |" in said
    assert "- 2.2.2 on Python 3.11; 2.10.0 on Python 3.10 and 3.11: no such thing: `test_x` (2)\n" in said
    assert "- 2.10.0 on Python 3.11: Boom: `test_y`\n" in said


def test_results_of_other_patches_say_so(vendored: Project) -> None:
    keep(vendored.root, tree=load(vendored.root).tree_sha256)
    page = vendored.root / "MODEL_CHANGES.md"
    page.write_text("<!-- computed: versions -->\n<!-- end -->\n", encoding="utf-8")
    vendored.run("lint", "--write")
    assert "| these |" in page.read_text(encoding="utf-8")
    vendored.run("lint")
    path = vendored.tree / "models/beta/net.py"
    path.write_bytes(path.read_bytes() + b"\n# more\n")
    vendored.run("refresh")
    assert "| **others**, of 2026-01-31 |" in page.read_text(encoding="utf-8")


def test_without_results_there_is_an_empty_table(tmp_path: Path) -> None:
    assert text(read(tmp_path), "", table).count("\n") == 2


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({**RESULT, "schema": 2}), json.dumps({**RESULT, "more": 1}), '{"schema": 1}'],
    ids=["nothing", "a list", "empty", "another schema", "an unknown key", "missing keys"],
)
def test_a_file_that_holds_no_results_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "torch-1.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"tests/results/torch-1\.json holds no results"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("args", "collected", "exit_code", "kept"),
    [
        (["tests/models"], 1, 0, True),
        (["tests/models/"], 1, 1, True),
        (["tests/models/test_scnet.py"], 1, 0, False),
        (["tests"], 1, 0, False),
        (["tests/models"], 2, 1, False),  # stopped at the first failure
        (["tests/models"], 1, 2, False),  # interrupted
    ],
)
def test_only_a_whole_run_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], collected: int, exit_code: int, kept: bool
) -> None:
    monkeypatch.chdir(ROOT)
    recorder = Recorder(tmp_path / FOLDER, "a note")
    recorder.pytest_runtest_logreport(report("t.py::passes", "passed"))
    recorder.pytest_runtest_logfinish()
    session: Any = SimpleNamespace(config=SimpleNamespace(args=args), testscollected=collected)
    recorder.pytest_sessionfinish(session, exit_code)
    assert [(result.passed, result.tree) for result in read(tmp_path)] == [(1, load(ROOT).tree_sha256)] * kept


def report(name: str, outcome: Any, longrepr: Any = None, when: Any = "call") -> pytest.TestReport:
    return pytest.TestReport(f"tests/models/{name}", ("f", 1, name), {}, outcome, longrepr, when)


def test_outcomes_are_counted_by_reason_and_function(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "")
    for variant in "ab":
        recorder.pytest_runtest_logreport(report("t.py::passes", "passed", when="setup"))
        recorder.pytest_runtest_logreport(report("t.py::passes", "passed"))
        recorder.pytest_runtest_logreport(report(f"t.py::lacks[{variant}]", "skipped", ("t.py", 3, "Skipped: no x")))
        recorder.pytest_runtest_logreport(report(f"t.py::fails[{variant}]", "failed", "Error: at 0xabc\nmore"))
    assert recorder.outcomes == {"passed": 2, "skipped": 2, "failed": 2}
    assert tidy(recorder.skipped) == {"no x": {"t.py::lacks": 2}}
    assert tidy(recorder.failed) == {"Error: at 0x…": {"t.py::fails": 2}}


def test_a_failure_names_no_place_of_this_machine() -> None:
    assert plain(f"{ROOT}/a {sys.prefix}/b {Path.home()}/c") == "…/a …/b …/c"


def test_what_is_kept_here_names_no_place() -> None:
    for path in (ROOT / FOLDER).glob("*.json"):
        assert not any(word in path.read_text(encoding="utf-8") for word in ("/home/", "/root/", "/tmp/", "/Users/"))
