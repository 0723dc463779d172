"""Computed parts of documents: filled in, found stale, and never guessed at."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project
from tools.docs import DOCUMENTS, render, table
from tools.errors import EXIT_CODES, UsageError
from tools.hashes import blob_id, sha256

PARTS = (
    "verbs",
    "exit-codes",
    "pins",
    "files",
    "baseline",
    "patches",
    "index",
    "versions",
    "versions-table",
    "figures",
)
DOCUMENT = "# Title\n\n" + "\n".join(f"<!-- computed: {name} -->\n<!-- end -->\n\nProse.\n" for name in PARTS)

# Without its markers a part is prose that nothing computes, and no check misses it.
OWN_PARTS = {
    "README.md": ["verbs", "exit-codes"],
    "MODEL_CHANGES.md": ["pins", "files", "patches", "baseline", "versions", "index"],
    "docs/reliability.md": ["versions-table", "figures"],
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_this_projects_documents_have_their_computed_parts(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.findall("^<!-- computed: (.+) -->$", text, re.MULTILINE) == OWN_PARTS[name]


def test_parts_are_filled_in_and_the_rest_stays() -> None:
    text = "a\n<!-- computed: one -->\nold\nlines\n<!-- end -->\nb\n<!-- computed: two -->\n<!-- end -->\nc"
    known = {"one": lambda: "new\n", "two": lambda: "\\1 \\g<0>\n"}
    fresh = render(text, known, "README.md")
    assert fresh == (
        "a\n<!-- computed: one -->\nnew\n<!-- end -->\nb\n<!-- computed: two -->\n\\1 \\g<0>\n<!-- end -->\nc"
    )
    assert render(fresh, known, "README.md") == fresh


@pytest.mark.parametrize("text", ["", "prose\n", "<!-- a comment -->\n<!-- end -->\n"])
def test_a_document_without_parts_stays_as_it_is(text: str) -> None:
    assert render(text, {}, "README.md") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- computed: nope -->\n<!-- end -->\n", "README.md asks for a computed part 'nope'"),
        ("<!-- computed: one -->\nno end\n", "is not ended"),
        ("<!-- computed: one -->\n<!-- end --> \n", "is not ended"),
        ("<!-- computed: one -->\n <!-- end -->\n", "is not ended"),
        ("<!-- computed: one -->\n<!-- computed: one -->\n<!-- end -->\n", "is not ended"),
        ("x <!-- computed: one -->\n<!-- end -->\n", "is not ended"),
        ("<!-- computed: One -->\n<!-- end -->\n", "is not ended"),
    ],
    ids=["unknown", "open", "a blank behind", "a blank before", "one in another", "not at the start", "capitals"],
)
def test_a_part_that_is_unknown_or_not_closed_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        render(text, {"one": lambda: ""}, "README.md")
    assert "README.md" in caught.value.message
    assert message in caught.value.message


def test_a_bar_does_not_end_a_cell() -> None:
    assert table(["a"], [["x | y"]]) == "| a |\n| --- |\n| x \\| y |\n"


@pytest.fixture
def documented(vendored: Project) -> Project:
    """A project with both documents, every part in them, all up to date."""
    for name in ("README.md", "MODEL_CHANGES.md"):
        (vendored.root / name).write_text(DOCUMENT, encoding="utf-8")
    vendored.run("lint", "--write")
    return vendored


def test_every_part_says_what_is_so(documented: Project) -> None:
    text = (documented.root / "README.md").read_text(encoding="utf-8")
    assert text.count("\nProse.\n") == len(PARTS)
    assert "| `vendor` | Get the pinned files, patch them, verify them, and swap them in. |" in text
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |\n" in text
    assert f"| upstream | {documented.upstream.as_uri()} | `{documented.commit}` | 2026-01-02 |" in text
    core, extra = "models/alpha/core.py", "models/alpha/extra.py"
    base, result = blob_id(FILES[core])[:12], blob_id(EDITED[core])[:12]
    assert f"| `{core}` | `{base}` | patched: `{result}` |" in text
    assert f"| `{extra}` | `{blob_id(FILES[extra])[:12]}` | unchanged |" in text
    assert f"| `patches/core.patch` | 1 | +1 -2 | `{sha256(EDITED[core])[:16]}` | Change core. |" in text
    assert f"| `{core}` |  | none |" in text
    assert documented.json("lint") == {"schema": 1, "verb": "lint", "ok": True, "patches": 2, "written": []}


def test_a_stale_document_is_exit_1_until_it_is_written(documented: Project) -> None:
    path = documented.root / "MODEL_CHANGES.md"
    good = path.read_text(encoding="utf-8")
    path.write_text(good.replace("+1 -2", "+9 -9"), encoding="utf-8")
    done = documented.run("lint", code=1)
    assert "stale: MODEL_CHANGES.md" in done.stderr
    assert "stale: README.md" not in done.stderr
    assert "next: make docs" in done.stderr
    assert "+9 -9" in path.read_text(encoding="utf-8")
    assert documented.json("lint", "--write")["written"] == ["MODEL_CHANGES.md"]
    assert path.read_text(encoding="utf-8") == good
    documented.run("lint")


def test_a_document_goes_stale_with_the_patch_it_tells_of(documented: Project) -> None:
    path = documented.root / "patches" / "net.patch"
    path.write_text(path.read_text(encoding="utf-8").replace("Change net.", "Use | the pi."), encoding="utf-8")
    documented.run("lock")
    documented.run("lint", code=1)
    documented.run("lint", "--write")
    assert "| Use \\| the pi. |" in (documented.root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!-- computed: nope -->\n<!-- end -->\n", "next: there are verbs, exit-codes"),
        (b"<!-- computed: verbs -->\n", "README.md has a computed part that is not ended"),
        (b"\xff\xfe", "README.md cannot be read"),
    ],
    ids=["unknown", "open", "not UTF-8"],
)
def test_a_document_that_cannot_be_computed_is_exit_2(content: bytes, message: str, vendored: Project) -> None:
    path = vendored.root / "README.md"
    path.write_bytes(content)
    assert message in vendored.run("lint", "--write", code=2).stderr
    assert path.read_bytes() == content


def test_no_documents_are_in_order(vendored: Project) -> None:
    done = vendored.run("lint")
    assert done.stdout == "2 patches and the documents are in order\n"


def test_a_document_with_windows_line_ends_is_not_torn(documented: Project) -> None:
    path = documented.root / "README.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    documented.run("lint")
    assert path.read_bytes().count(b"\r\n") > 10


def test_lint_reads_no_network(documented: Project, tmp_path: Path) -> None:
    documented.env["PATH"] = str(tmp_path)
    documented.run("lint")
