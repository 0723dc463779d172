"""Tests the pieces of wheels: finding them, building files from them, and reading wheels."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.servers import make_wheel
from tools.pieces import assemble, find, python_members

calmly = settings(deadline=None, max_examples=200)
NAMES = ("one:a.py", "one:b/c.py", "two:a+1|.py", "plain")
# Few letters, so that there is much in common.
texts = st.text("ab\n", max_size=40).map(str.encode)
libraries = st.dictionaries(st.sampled_from(NAMES), texts, max_size=4)


@calmly
@given(texts, libraries)
def test_the_pieces_found_give_the_file(data: bytes, members: dict[str, bytes]) -> None:
    text = find(data, members)
    if text is None:
        assert set(data) - set(b"".join(members.values()))
    else:
        assert assemble(text, members) == data
        needed = text.partition(" | ")[0].split()
        assert assemble(text, {name: members[name] for name in needed}) == data
        assert len(set(needed)) == len(needed)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=30))
def test_each_changed_line_costs_at_most_one_piece(places: list[int]) -> None:
    lines = [f"line {number}\n".encode() for number in range(401)]
    changed = list(lines)
    for place in places:
        changed[place] = b"@@@" + lines[place]
    text = find(b"".join(lines), {"x:y.py": b"".join(changed)})
    assert text is not None
    assert text.count("+") <= 1 + len(set(places))


def test_a_file_that_takes_too_many_pieces_has_none() -> None:
    members = {"x:y.py": b"a-b-c"}
    assert find(b"abc", members, most=3) == "x:y.py | 0:0+1 0:2+1 0:4+1"
    assert find(b"abc", members, most=2) is None
    assert find(b"abcd", members) is None
    assert find(b"", {}) == " | "
    assert assemble(" | ", {}) == b""


@pytest.mark.parametrize("name", ["x:y z.py", "x:y\n.py", 'x:".py', "x:\\y.py", "x:\x1b.py", ""])
def test_members_with_unusable_names_are_not_used(name: str) -> None:
    assert find(b"abc", {name: b"abc", "x:w.py": b"abab"}) is None
    assert find(b"ab", {name: b"ab", "x:w.py": b"cab"}) == "x:w.py | 0:1+2"


def test_the_python_files_of_a_wheel_are_read_with_lf(tmp_path: Path) -> None:
    make_wheel(tmp_path, "tiny", "1", {"pkg/a.py": b"a\r\nb\rc\n", "pkg/data.bin": b"\r\n", "b.py": b""})
    [wheel] = tmp_path.iterdir()
    assert python_members(wheel.read_bytes(), "tiny") == {"tiny:pkg/a.py": b"a\nb\rc\n", "tiny:b.py": b""}


@calmly
@given(st.binary(max_size=200))
def test_a_file_that_is_no_wheel_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a wheel"):
        python_members(data, "tiny")
