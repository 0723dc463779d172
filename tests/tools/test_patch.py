"""Tests patch files: reading, exact application, and error messages."""

import tempfile
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.errors import HashMismatch, Undecided, UsageError
from tools.files import blob_id
from tools.git import Repo
from tools.patch import compose, new_header, parse, splice

BASE = b"one\ntwo\nthree\n"
RESULT = b"one\n2\nthree\nfour\n"
GOOD = f"""\
Description: Count.
 In digits, mostly.
Origin: other
Forwarded: no
Last-Update: 2026-01-31

diff --git a/m/x.py b/m/x.py
index {blob_id(BASE)}..{blob_id(RESULT)} 100644
--- a/m/x.py
+++ b/m/x.py
@@ -2 +2 @@
-two
+2
@@ -3,0 +4 @@
+four
"""


def test_a_patch_is_read_applied_and_written() -> None:
    patch = parse("x.patch", GOOD.encode())
    assert (patch.target, patch.counts, patch.described) == ("m/x.py", "+2 -1", True)
    assert patch.header["Description"] == "Count.\nIn digits, mostly."
    assert splice(patch, BASE) == RESULT
    assert compose(patch.header, GOOD.partition("\n\n")[2]).decode() == GOOD
    assert patch.whole_base is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Origin: other\n", "", "header field Origin is missing"),
        ("Origin: other", "Colour: red", "Colour is no header field"),
        ("Origin: other", "nothing", "a line that belongs to no field"),
        ("b/m/x.py\nindex", "b/m/y.py\nindex", "line 7 should begin the diff of one file"),
        ("100644", "100755", "line 7 should begin the diff"),
        ("@@ -2 +2 @@", "@@ -2 +2 @@ def upstream():", "line 11 should begin a hunk"),
        ("+four\n", "+four", "line 15 should begin a hunk"),
        ("+four\n", "+four\n+five\n", "line 14 has line counts"),
        ("four", "\udcff", "is not UTF-8"),
    ],
)
def test_each_fault_of_a_patch_is_named(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        parse("x.patch", GOOD.replace(old, new).encode(errors="surrogateescape"))
    assert said in "\n".join(caught.value.findings)


def test_a_wrong_base_and_a_wrong_result_are_refused() -> None:
    patch = parse("x.patch", GOOD.encode())
    with pytest.raises(Undecided) as caught:
        splice(patch, BASE.replace(b"two", b"zwei"))
    assert "x.patch:11: the removed lines are not on line 2" in caught.value.findings
    with pytest.raises(HashMismatch, match="does not give the result"):
        splice(parse("x.patch", GOOD.replace("+four", "+five").encode()), BASE)
    with pytest.raises(HashMismatch):
        splice(parse("x.patch", GOOD.replace("-3,0", "-1,0").encode()), BASE)


lines = st.lists(st.sampled_from(["a", "b", "c", "", "\r", "\x0c", "@@ -1 +1 @@", "1 +2 @@ x", "é"]), max_size=12)
texts = st.builds(lambda found, end: "\n".join(found) + end, lines, st.sampled_from(["", "\n"])).map(str.encode)


@pytest.fixture(scope="module")
def repo() -> Repo:
    return Repo(Path(tempfile.mkdtemp()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=texts, new=texts)
def test_a_diff_by_git_gives_the_new_file(repo: Repo, old: bytes, new: bytes) -> None:
    if old == new:
        return
    data = compose(new_header("Any.", date(2026, 1, 31)), repo.diff("m/x.py", old, new))
    patch = parse("x.patch", data)
    assert splice(patch, old) == new
    if not new:
        assert patch.whole_base == old


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, len(GOOD)), cut=st.integers(0, 40), put=st.text(max_size=8))
def test_any_text_is_a_patch_or_a_usage_error(at: int, cut: int, put: str) -> None:
    # Anything but a patch or a UsageError fails here.
    with suppress(UsageError):
        assert parse("x.patch", (GOOD[:at] + put + GOOD[at + cut :]).encode(errors="surrogateescape")).hunks
