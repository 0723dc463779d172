"""Tests the computed parts of documents: `lock` writes them, and `lint` finds stale ones."""

import re

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import CORE, EDITED, EXTRA, FILES, Project
from tools.cli import cli
from tools.docs import DOCUMENTS
from tools.errors import EXIT_CODES
from tools.files import sha256

PARTS = ("exit-codes", "pins", "files", "patches")
DOCUMENT = "# Title\n\n" + "\n".join(f"<!-- computed: {name} -->\n<!-- end -->\n\nProse.\n" for name in PARTS)


@pytest.fixture
def documented(vendored: Project) -> Project:
    """A project with all documents, every part in them, all up to date."""
    (vendored.root / "docs").mkdir()
    for name in DOCUMENTS:
        (vendored.root / name).write_text(DOCUMENT, encoding="utf-8")
    vendored.run("lock")
    return vendored


def test_this_projects_documents_have_all_computed_parts() -> None:
    """No other check notices a part that lost its markers."""
    found = {
        name: re.findall("^<!-- computed: (.+) -->$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        for name in DOCUMENTS
    }
    assert found == {
        "README.md": [],
        "MODEL_CHANGES.md": ["pins", "files", "patches"],
        "docs/json.md": ["exit-codes"],
    }


def test_readme_describes_each_verb_as_its_help_does() -> None:
    described = re.findall(
        r"^\| `([a-z-]+)` \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert described == [(name, command.get_short_help_str(200)) for name, command in cli.commands.items()]


def test_lock_fills_every_part_and_keeps_the_rest(documented: Project) -> None:
    text = (documented.root / "README.md").read_text(encoding="utf-8")
    assert text.count("\nProse.\n") == len(PARTS)
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |\n" in text
    assert f"| upstream | {documented.upstream.as_uri()} | `{documented.commit}` | 2026-01-02 |\n" in text
    base, result = sha256(FILES[CORE]), sha256(EDITED[CORE])
    assert f"| `{CORE}` | `{base[:12]}` | patched: `{result[:12]}` | agrees | none |\n" in text
    assert f"| `{EXTRA}` | `{sha256(FILES[EXTRA])[:12]}` | unchanged | agrees | none |\n" in text
    assert f"| `patches/core.patch` | no | 1 | +1 -2 | `{result[:16]}` | Change core. |\n" in text
    documented.run("lint")


@pytest.mark.parametrize("old", ["+1 -2", "Change core.", "| agrees |"])
def test_an_edited_part_is_stale_until_lock_writes_it(old: str, documented: Project) -> None:
    path = documented.root / "MODEL_CHANGES.md"
    good = path.read_bytes()
    path.write_bytes(good.replace(old.encode(), b"typed"))
    done = documented.run("lint", code=1)
    assert "stale: MODEL_CHANGES.md" in done.stderr
    assert "README.md" not in done.stderr
    assert documented.run("lock").stdout == "written: MODEL_CHANGES.md\n"
    assert path.read_bytes() == good


@pytest.mark.parametrize("content", [b"<!-- computed: nope -->\n<!-- end -->\n", b"<!-- computed: pins -->\nno end\n"])
def test_a_document_that_cannot_be_computed_stays_as_it_is(content: bytes, vendored: Project) -> None:
    path = vendored.root / "README.md"
    path.write_bytes(content)
    said = vendored.run("lock", code=2).stderr
    assert "README.md has a computed part" in said
    assert "known names: exit-codes, pins" in said
    assert path.read_bytes() == content


def test_windows_line_ends_no_parts_and_no_document_are_not_stale(documented: Project) -> None:
    """git on Windows may check documents out so."""
    path = documented.root / "README.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    documented.run("lint")
    path.write_bytes(b"prose\n<!-- a comment -->\n<!-- end -->\n")
    (documented.root / "MODEL_CHANGES.md").unlink()
    assert documented.run("lint").stdout == "2 patches and the documents are in order\n"
