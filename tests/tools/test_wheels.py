"""Getting a file back out of a wheel: what a packager did is undone exactly, or it does not pass its hash."""

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.conftest import make_project
from tests.tools.servers import make_wheel, pip_environment, wheel_table
from tools.wheels import STEPS, UndoStep, parse_step, read_member

calmly = settings(deadline=None, max_examples=50)
LF, OPEN = UndoStep("lf"), UndoStep("no-final-newline")
PREFIX = UndoStep("import-prefix", ("pkg.models.", "models."))
source = st.text(st.characters(codec="utf-8", exclude_characters="\r")).map(str.encode)
module = st.from_regex(r"models\.[a-z_]{1,8}(\.[a-z]{1,5})?", fullmatch=True)
line = st.one_of(
    module.map("from {} import x".format),
    module.map("    import {}".format),
    module.map("import {} as y  # models.z".format),
    st.text(st.characters(codec="utf-8", categories=["L", "Zs"])).map("x = '{}'".format),
)


def wheel(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


@calmly
@given(source)
def test_lf_undoes_crlf(data: bytes) -> None:
    assert LF(data.replace(b"\n", b"\r\n")) == data
    assert LF(data) == data


@calmly
@given(st.binary())
def test_no_final_newline_undoes_exactly_one(data: bytes) -> None:
    assert OPEN(data + b"\n") == data


@calmly
@given(st.lists(line))
def test_import_prefix_undoes_a_packagers_rename_and_touches_nothing_else(lines: list[str]) -> None:
    text = "\n".join(lines)
    packed = "\n".join(
        found.replace("models.", "pkg.models.", 1) if found.lstrip().startswith(("from ", "import ")) else found
        for found in lines
    )
    assert PREFIX(packed.encode()).decode() == text
    assert PREFIX(text.encode()).decode() == text


@calmly
@given(source, st.booleans(), st.booleans())
def test_all_steps_together_give_the_pinned_bytes_back(data: bytes, crlf: bool, newline: bool) -> None:
    packed = data + b"\n" if newline else data
    packed = packed.replace(b"\n", b"\r\n") if crlf else packed
    undo = [*([LF] if crlf else []), *([OPEN] if newline else [])]
    assert read_member(wheel({"pkg/x.py": packed}), "pkg/x.py", undo) == data


@pytest.mark.parametrize("step", [LF, OPEN, PREFIX])
def test_a_step_is_written_as_it_is_read(step: UndoStep) -> None:
    assert parse_step(str(step)) == step
    assert step.name in STEPS


@pytest.mark.parametrize("text", ["rot13", "lf lf", "import-prefix one", "import-prefix a b c", "LF"])
def test_a_step_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="undo step"):
        parse_step(text)


@calmly
@given(st.binary(max_size=200))
def test_what_is_no_wheel_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a wheel"):
        read_member(data, "x.py", [])


def test_a_member_that_is_absent_huge_or_damaged_is_refused() -> None:
    whole = wheel({"x.py": b"# some text, and then some more of it\n" * 50, "big.py": b"#" * (5 << 20)})
    with pytest.raises(KeyError):
        read_member(whole, "y.py", [])
    with pytest.raises(ValueError, match="larger than"):
        read_member(whole, "big.py", [])
    start = whole.index(b"x.py") + 10
    with pytest.raises(ValueError, match="not a wheel"):
        read_member(whole[:start] + bytes(20) + whole[start + 20 :], "x.py", [])


def test_a_wrong_guess_cannot_pass_its_hash(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"models/gamma/a.py": b"a = 1\r\n"}, {})
    digest = make_wheel(tmp_path / "wheels", "tiny", "1.0", {"a.py": b"a = 1\r\n"})
    table = wheel_table("tiny", "1.0", digest, [("models/gamma/a.py", "a.py", ["lf"])])
    project.sources(['kind = "index"\n\n' + table])
    project.env = pip_environment(tmp_path / "wheels")
    assert "models/gamma/a.py: wrong bytes" in project.run("vendor", code=5).stderr
    lock = project.lock.read_text(encoding="utf-8")
    project.lock.write_text(lock.replace("undo = ['lf']\n", ""), encoding="utf-8")
    project.run("vendor")
    assert (project.tree / "models/gamma/a.py").read_bytes() == b"a = 1\r\n"
