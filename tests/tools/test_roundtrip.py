"""`refresh` and then `vendor` give back the bytes that somebody left in the tree, whatever they are."""

import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.tools.conftest import FILES, Project, write
from tools.__main__ import main

# One that ends without a newline, one that is empty, and one of several lines; two of them have no patch yet.
CORE, EMPTY, EXTRA = "models/alpha/core.py", "models/beta/__init__.py", "models/alpha/extra.py"
ODD = [
    "",
    "\t",
    "x = 1 ",
    "\r",
    "a\rb",
    "x\r",
    "\x0c",
    "\u2028",
    "é\u0301 日本 🐍",
    "+",
    "-",
    "@@ -1 +1 @@",
    "\\ No newline",
]
LINES = st.lists(
    st.sampled_from(ODD) | st.text(st.characters(exclude_characters="\n\0", codec="utf-8"), max_size=8), max_size=5
)


@st.composite
def edits(draw: st.DrawFn, path: str) -> bytes:
    """Upstream's text with lines inserted, deleted and replaced, with or without its last newline, or another text."""
    lines = FILES[path].decode().split("\n")
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(lines)))
        end = draw(st.integers(start, min(len(lines), start + 2)))
        lines[start:end] = draw(LINES)
    if draw(st.booleans()):
        lines = draw(LINES)
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def workshop(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project to wear out; each use begins with `reset`."""
    where = tmp_path_factory.mktemp("roundtrip")
    shutil.copytree(template.store, where / "store")
    return Project(where / "project", template.upstream, template.commit, where / "store")


def run(project: Project, *words: str) -> None:
    said = StringIO()
    with redirect_stdout(StringIO()), redirect_stderr(said):
        code = main(["--root", str(project.root), "--store", str(project.store), *words])
    assert code == 0, said.getvalue()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(core=edits(CORE), empty=edits(EMPTY), extra=edits(EXTRA))
@example(core=b"", empty=b"", extra=b"")
@example(core=b"\r\n\t\r", empty=b"\n", extra=b"# nothing to see")
def test_any_edit_comes_back(workshop: Project, template: Project, core: bytes, empty: bytes, extra: bytes) -> None:
    shutil.rmtree(workshop.root, ignore_errors=True)
    shutil.copytree(template.root, workshop.root)
    edited = {CORE: core, EMPTY: empty, EXTRA: extra}
    # An edit that undoes a patch is refused: see test_refresh.
    edited = {path: data for path, data in edited.items() if path != CORE or data != FILES[CORE]}
    write(workshop.tree, edited)
    adopted = [path for path in edited if path != CORE and edited[path] != FILES[path]]
    options = [word for path in adopted for word in ("--adopt", path)]
    run(workshop, "refresh", *options, "--description", "Anything.", "--offline")
    run(workshop, "verify")
    shutil.rmtree(workshop.tree)
    run(workshop, "vendor", "--offline")
    for path, data in edited.items():
        assert (workshop.tree / path).read_bytes() == data
    before = {path: path.read_bytes() for path in workshop.root.rglob("*") if path.is_file()}
    run(workshop, "refresh", "--offline")
    assert {path: path.read_bytes() for path in workshop.root.rglob("*") if path.is_file()} == before
