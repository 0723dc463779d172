"""Pieces of other files laid end to end: what is found gives the file back, and nothing else is taken for it."""

import io
import re
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.pieces import LARGEST, assemble, find, members_of, python_members

calmly = settings(deadline=None, max_examples=200)
NAMES = ("one:a.py", "one:b/c.py", "two:a+1|.py", "plain")
# Few letters, so that there is much in common.
texts = st.text("ab\n", max_size=40).map(str.encode)
libraries = st.dictionaries(st.sampled_from(NAMES), texts, max_size=4)


def pieces_in(text: str) -> list[str]:
    return text.rpartition("|")[2].split()


@calmly
@given(texts, libraries)
def test_what_is_found_gives_the_bytes_back(data: bytes, members: dict[str, bytes]) -> None:
    text = find(data, members)
    if text is None:
        assert set(data) - set(b"".join(members.values()))
    else:
        assert assemble(text, members) == data
        needed = members_of(text)
        assert assemble(text, {name: members[name] for name in needed}) == data
        assert len(set(needed)) == len(needed)


@calmly
@given(texts, libraries)
def test_each_piece_is_the_longest_that_there_is(data: bytes, members: dict[str, bytes]) -> None:
    text = find(data, members)
    at = 0
    for piece in pieces_in(text) if text else []:
        at += int(piece.rpartition("+")[2])
        shorter = int(piece.rpartition("+")[2])
        rest = data[at - shorter :]
        assert len(rest) == shorter or not any(rest[: shorter + 1] in member for member in members.values())


@given(st.lists(st.integers(0, 400), min_size=1, max_size=30), st.integers(0, 2**32))
def test_a_file_with_other_imports_takes_a_piece_more_for_each(places: list[int], seed: int) -> None:
    lines = [f"line {number} of {seed}\n".encode() for number in range(401)]
    changed = list(lines)
    for place in places:
        changed[place] = b"@@@" + lines[place]
    text = find(b"".join(lines), {"x:y.py": b"".join(changed)})
    assert text is not None
    assert len(pieces_in(text)) <= 1 + len(set(places))


def test_a_member_is_named_once_and_more_than_a_letter_can_tell_are_told_apart() -> None:
    members = {f"wheel:{number}.py": f"<{number}>".encode() * 3 for number in range(800)}
    data = b"".join(members.values()) * 2
    text = find(data, members, most=5000)
    assert text is not None
    assert members_of(text) == tuple(members)
    assert assemble(text, members) == data
    assert pieces_in(text)[24:28] == ["y0+12", "z0+12", "aa0+12", "ab0+12"]


def test_more_pieces_than_asked_for_are_none() -> None:
    members = {"x:y.py": b"a-b-c"}
    assert find(b"abc", members, most=3) == "x:y.py | a0+1 2+1 4+1"
    assert find(b"abc", members, most=2) is None
    assert find(b"abcd", members) is None
    assert find(b"", {}) == "|"
    assert assemble("|", {}) == b""


@pytest.mark.parametrize("name", ["x:y z.py", "x:y\n.py", 'x:".py', "x:\\y.py", "x:\x1b.py", ""])
def test_a_name_that_no_text_could_hold_is_passed_over(name: str) -> None:
    assert find(b"abc", {name: b"abc", "x:w.py": b"abab"}) is None
    assert find(b"ab", {name: b"ab", "x:w.py": b"cab"}) == "x:w.py | a1+2"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "have no |"),
        ("x:y.py a0+1", "have no |"),
        ("x:y.py | 0+1", "of no member that was named"),
        ("x:y.py | b0+1", "of no member that was named"),
        ("x:y.py | a0-1", "'a0-1' is no piece"),
        ("x:y.py | a0+1,", "is no piece"),
        ("x:y.py | a-1+2", "is no piece"),
        ("x:y.py | a0+9999999999", "is no piece"),
        ("x:y.py | a0+6", "x:y.py has 5 bytes, a piece ends at 6"),
        ("x:y.py | a9+0", "x:y.py has 5 bytes, a piece ends at 9"),
        ("x:z.py | a0+1", "there is no member x:z.py"),
    ],
)
def test_a_text_that_is_wrong_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        assemble(text, {"x:y.py": b"12345"})


def test_pieces_that_give_more_than_any_file_has_are_refused() -> None:
    member = bytes(LARGEST)
    assert assemble(f"x | a0+{LARGEST}", {"x": member}) == member
    with pytest.raises(ValueError, match="more than"):
        assemble(f"x | a0+{LARGEST} 0+1", {"x": member})


@calmly
@given(st.text("ab\n\r|+0123456789 ", max_size=30), libraries)
def test_no_text_raises_anything_but_value_error(text: str, members: dict[str, bytes]) -> None:
    with suppress(ValueError):
        assemble(text, members)


# Wheels.


def wheel(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_the_python_files_of_a_wheel_are_read_with_lf() -> None:
    data = wheel({"pkg/a.py": b"a\r\nb\rc\n", "pkg/data.bin": b"\r\n", "b.py": b""})
    assert python_members(data, "tiny") == {"tiny:pkg/a.py": b"a\nb\rc\n", "tiny:b.py": b""}


@calmly
@given(st.binary(max_size=200))
def test_what_is_no_wheel_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a wheel"):
        python_members(data, "tiny")


def test_a_wheel_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match=r"big\.py is larger than"):
        python_members(wheel({"big.py": bytes(LARGEST + 1)}), "tiny")
    with pytest.raises(ValueError, match="its Python files have more than"):
        python_members(wheel({f"{number}.py": bytes(LARGEST) for number in range(17)}), "tiny")
