"""docs/reliability.md: whatever was run is on it as its file says, and what was not run is said to be so."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.figures import record
from tests.tools.conftest import Project
from tools.docs import table
from tools.errors import UsageError
from tools.figures import FOLDER, SECTIONS, read, text

GOOD: dict[str, Any] = {
    "schema": 1,
    "command": "make it",
    "about": "What was run.",
    "date": "2026-01-31",
    "on": "Linux, 2 cores",
    "rows": [["kills", 12345], ["longest", "1.5 s"]],
}


def keep(root: Path, name: str, **changes: Any) -> None:
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    (root / FOLDER / f"{name}.json").write_text(json.dumps({**GOOD, **changes}), encoding="utf-8")


def page(root: Path) -> dict[str, str]:
    """The sections by their headings."""
    parts = ("\n" + text(read(root), table)).split("\n## ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}


def test_where_nothing_was_run_every_section_says_so(tmp_path: Path) -> None:
    sections = page(tmp_path)
    assert list(sections) == [heading for heading, _ in SECTIONS.values()]
    assert sections["Killed processes"] == "No run has left its figures here."
    for heading in ("NVIDIA GPUs", "Apple GPUs", "Windows", "macOS"):
        assert sections[heading].startswith("**Nothing was run:**")
    assert "`pytest -m cuda -s` and `make bench`" in sections["NVIDIA GPUs"]


def test_what_was_run_is_told_with_its_command_and_numbers(tmp_path: Path) -> None:
    keep(tmp_path, "kills")
    keep(tmp_path, "of-another-kind")
    sections = page(tmp_path)
    assert sections["Killed processes"] == (
        "What was run.\n\n`make it`, on 2026-01-31: Linux, 2 cores.\n\n"
        "| what | figure |\n| --- | --- |\n| kills | 12,345 |\n| longest | 1.5 s |"
    )
    assert list(sections)[-1] == "Of another kind"
    assert sections["macOS"].startswith("**Nothing was run:**")


def test_what_the_recorder_writes_is_read(tmp_path: Path) -> None:
    record("fuzz", command="make fuzz", about="Bytes.", rows=[("inputs", 7)], folder=tmp_path / FOLDER)
    [(name, figures)] = read(tmp_path).items()
    assert (name, figures.command, figures.rows) == ("fuzz", "make fuzz", (("inputs", 7),))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({**GOOD, "schema": 2}),
        json.dumps({**GOOD, "more": 1}),
        json.dumps({**GOOD, "rows": []}),
        json.dumps({**GOOD, "rows": [["kills"]]}),
        json.dumps({**GOOD, "rows": [["kills", None]]}),
        json.dumps({**GOOD, "rows": [["kills", True]]}),
        json.dumps({**GOOD, "about": " "}),
        json.dumps({**GOOD, "command": "a\n<!-- end -->"}),
        json.dumps({**GOOD, "date": "yesterday"}),
        "\ud800",
    ],
)
def test_a_file_that_holds_no_figures_is_named(tmp_path: Path, content: str) -> None:
    keep(tmp_path, "kills")
    (tmp_path / FOLDER / "kills.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match=r"docs/figures/kills\.json holds no figures"):
        read(tmp_path)


def test_the_page_goes_stale_with_a_figure(vendored: Project) -> None:
    keep(vendored.root, "kills")
    path = vendored.root / "docs" / "reliability.md"
    path.write_bytes((ROOT / "docs" / "reliability.md").read_bytes())
    vendored.run("lint", "--write")
    assert "| kills | 12,345 |" in path.read_text(encoding="utf-8")
    vendored.run("lint")
    keep(vendored.root, "kills", rows=[["kills", 6]])
    assert "stale: docs/reliability.md" in vendored.run("lint", code=1).stderr
    (vendored.root / FOLDER / "kills.json").write_text("{}", encoding="utf-8")
    assert "docs/figures/kills.json holds no figures" in vendored.run("lint", code=2).stderr


def test_no_figure_is_typed_into_the_page() -> None:
    source = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    prose, computed = "", False
    for line in source.splitlines():
        computed = line.startswith("<!-- computed:") or (computed and line != "<!-- end -->")
        prose += "" if computed else line
    assert not any(letter.isdigit() for letter in prose)
