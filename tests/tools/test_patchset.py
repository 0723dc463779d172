"""The rules for patch files: what is refused, what is accepted, and whether a patch fits its base."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tools.conftest import HEADER
from tools.errors import MalformedPatch
from tools.git import Scratch
from tools.hashes import blob_id
from tools.patchset import Patch, blemishes, misfits, parse
from tools.refresh import bare

PATH = "models/alpha/core.py"
BASE, RESULT = "1" * 40, "2" * 40
HEAD = HEADER.format(what="Change core.")
DIFF = f"diff --git a/{PATH} b/{PATH}\n"
INDEX = f"index {BASE}..{RESULT} 100644\n"
FILES = f"--- a/{PATH}\n+++ b/{PATH}\n"
HUNKS = "@@ -2 +2,2 @@\n-two\n+2\n+2.5\n@@ -4,2 +4,0 @@\n-four\n-five\n"
GOOD = HEAD + DIFF + INDEX + FILES + HUNKS


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(MalformedPatch) as caught:
        parse("p.patch", text if isinstance(text, bytes) else text.encode())
    assert caught.value.exit_code == 2
    assert all(finding.startswith("p.patch:") for finding in caught.value.findings)
    return list(caught.value.findings)


def with_hunks(hunks: str) -> Patch:
    return parse("p.patch", (HEAD + DIFF + INDEX + FILES + hunks).encode())


def test_a_good_patch_is_read_in_full() -> None:
    patch = parse("p.patch", GOOD.encode())
    assert (patch.target, patch.base, patch.result) == (PATH, BASE, RESULT)
    assert patch.header["Description"] == "Change core."
    assert (patch.added, patch.removed) == (2, 3)
    first, second = patch.hunks
    assert (first.at, first.lands, first.removed, first.added, first.line) == (2, 2, ("two",), ("2", "2.5"), 10)
    assert (second.at, second.lands, second.removed, second.added, second.line) == (4, 5, ("four", "five"), (), 14)


def test_a_description_goes_on_over_several_lines() -> None:
    text = GOOD.replace("Change core.\n", "Change core.\n It was slow.\n And wrong.\n")
    assert parse("p", text.encode()).header["Description"] == "Change core.\nIt was slow.\nAnd wrong."


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../core.py",
        "models/../../core.py",
        "models\\core.py",
        ".git/config",
        "models/.GIT/config",
        "models/.git./config",
        "C:/core.py",
        "models//core.py",
        "./core.py",
        "",
    ],
)
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    [finding] = faults(GOOD.replace(PATH, path))
    assert finding.startswith(f"p.patch:6: path {path!r} ")


@pytest.mark.parametrize(
    "line",
    [
        'diff --git "a/models/c\\303\\266re.py" "b/models/c\\303\\266re.py"\n',
        "diff --git a/models/.git /config b/models/.git /config\n",
        "diff --git a/one.py b/other.py\n",
        "diff --git models/alpha/core.py models/alpha/core.py\n",
        "diff --git a/one.py\n",
    ],
)
def test_a_diff_line_without_one_plain_path_is_refused(line: str) -> None:
    assert any("with one plain PATH" in finding for finding in faults(GOOD.replace(DIFF, line)))


REFUSED = {
    "a symlink": (INDEX, INDEX.replace("100644", "120000"), "should be `index <40 hex>"),
    "a submodule": (INDEX, INDEX.replace("100644", "160000"), "should be `index <40 hex>"),
    "an executable": (INDEX, INDEX.replace("100644", "100755"), "should be `index <40 hex>"),
    "no mode": (INDEX, INDEX.replace(" 100644", ""), "should be `index <40 hex>"),
    "a short id": (INDEX, "index 1111111..2222222 100644\n", "should be `index <40 hex>"),
    "no index line": (INDEX, "", "should be `index <40 hex>"),
    "a mode change": (INDEX, f"old mode 100644\nnew mode 100755\n{INDEX}", "changes a file mode"),
    "a rename": (INDEX, f"similarity index 90%\nrename from a\nrename to b\n{INDEX}", "renames a file"),
    "a copy": (INDEX, f"similarity index 90%\ncopy from a\ncopy to b\n{INDEX}", "copies a file"),
    "a rewrite": (INDEX, f"dissimilarity index 90%\n{INDEX}", "rewrites a file"),
    "a new file": (INDEX, f"new file mode 100644\n{INDEX}", "creates a file"),
    "a deleted file": (INDEX, f"deleted file mode 100644\n{INDEX}", "deletes a file"),
    "a binary patch": (FILES + HUNKS, "GIT binary patch\nliteral 3\nKc${Nk-}m\n", "is binary"),
    "a binary patch after the file names": (HUNKS, "GIT binary patch\nliteral 3\n", "is no part of a diff"),
    "a binary difference": (FILES, f"Binary files a/{PATH} and b/{PATH} differ\n", "is binary"),
    "binary before its index": (INDEX, "GIT binary patch\n", "is binary"),
    "from nothing": (f"--- a/{PATH}", "--- /dev/null", "should be '--- a/models/alpha/core.py'"),
    "to nothing": (f"+++ b/{PATH}", "+++ /dev/null", "should be '+++ b/models/alpha/core.py'"),
    "another target": (f"+++ b/{PATH}", "+++ b/models/beta/net.py", "should be '+++ b/models/alpha/core.py'"),
    "a second file": (HUNKS, HUNKS + DIFF + INDEX + FILES + HUNKS, "starts a second file"),
    "a second file in old style": (HUNKS, HUNKS + "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", ""),
    "a context line": (HUNKS, "@@ -1,2 +1,2 @@\n one\n-two\n+2\n", "is a context line"),
    "an empty context line": (HUNKS, "@@ -1,2 +1,2 @@\n\n-two\n+2\n", "is a context line"),
    "a section heading": ("@@ -2 +2,2 @@", "@@ -2 +2,2 @@ def scale(x):", "quotes upstream: 'def scale(x):'"),
    "Windows line ends": ("\n", "\r\n", "carriage return"),
    "a NUL": ("+2.5", "+\0", "NUL"),
    "no header": (HEAD, "", "header field Description is missing"),
    "a missing field": ("Origin: other\n", "", "header field Origin is missing"),
    "an empty field": ("Origin: other\n", "Origin: \n", "is no header line"),
    "a doubled field": ("Origin: other\n", "Origin: other\nOrigin: again\n", "is no header line"),
    "an unknown field": ("Origin: other\n", "Origin: other\nAuthor: me\n", "is no header line"),
    "a field in small letters": ("Origin: other\n", "origin: other\n", "is no header line"),
    "prose before the diff": ("Description", "Hello there\nDescription", "is no header line"),
    "a description to be written": ("Change core.", "TODO: say it", "Description is still to be written"),
    "a date in words": ("2026-01-31", "yesterday", "Last-Update should be YYYY-MM-DD"),
    "a day that never was": ("2026-01-31", "2026-02-31", "Last-Update should be YYYY-MM-DD"),
    "a date without hyphens": ("2026-01-31", "20260131", "Last-Update should be YYYY-MM-DD"),
    "a date in other digits": ("2026-01-31", "٢٠٢٦-01-31", "Last-Update should be YYYY-MM-DD"),
    "no diff": (DIFF, "", "has no `diff --git` line"),
    "no hunks": (HUNKS, "", "has no hunks"),
    "no final newline": ("-five\n", "-five", "ends without a newline"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_no_patch_of_ours_does_is_refused(case: tuple[str, str, str]) -> None:
    old, new, message = case
    assert old in GOOD
    assert any(message in finding for finding in faults(GOOD.replace(old, new)))


@pytest.mark.parametrize("new", ["+2.5\r", "+2.5 ", "+2.5\t", "+    ", "+\r"])
def test_blanks_and_carriage_returns_at_line_ends_are_blemishes(new: str) -> None:
    patch = parse("p.patch", GOOD.replace("+2.5", new).encode())
    line = GOOD[: GOOD.index("+2.5")].count("\n") + 1
    [found] = blemishes(patch)
    assert found.startswith(f"p.patch:{line}: adds ")
    assert found.endswith(repr(new))
    assert blemishes(parse("p.patch", GOOD.encode())) == []


BAD_HUNKS = {
    "overlapping": "@@ -2,3 +2 @@\n-a\n-b\n-c\n+x\n@@ -4 +2 @@\n-d\n+y\n",
    "out of order": "@@ -8 +8 @@\n-a\n+x\n@@ -2 +2 @@\n-b\n+y\n",
    "a wrong landing line": "@@ -2 +2,2 @@\n-a\n+x\n+y\n@@ -5 +5 @@\n-b\n+z\n",
    "a wrong first landing line": "@@ -2 +3 @@\n-a\n+x\n",
    "before the first line": "@@ -0 +0 @@\n-a\n+x\n",
    "more lines than it says": "@@ -2 +2 @@\n-a\n+x\n+y\n",
    "fewer lines than it says": "@@ -2 +2,2 @@\n-a\n+x\n",
    "a hunk cut short by the next": "@@ -2 +2,2 @@\n-a\n+x\n@@ -5 +6 @@\n-b\n+z\n",
    "no lines": "@@ -2,0 +3,0 @@\n",
    "no lines before another hunk": "@@ -2,0 +3,0 @@\n@@ -5 +5 @@\n-b\n+z\n",
    "added before removed": "@@ -2 +2 @@\n+x\n-a\n",
    "removed in two places": "@@ -2,2 +2,2 @@\n-a\n+x\n-b\n+y\n",
    "a signature": "@@ -2 +2 @@\n-a\n+x\n-- \n",
    "a signature and a version": "@@ -2 +2 @@\n-a\n+x\n-- \n2.39.5\n",
    "a removed line after the end": "@@ -2 +2 @@\n-a\n+x\n-b\n",
    "a file name after the end": "@@ -2 +2 @@\n-a\n+x\n--- a/models/alpha/core.py\n",
    "prose after the end": "@@ -2 +2 @@\n-a\n+x\nThanks!\n",
    "lines before the first hunk": "-a\n@@ -2 +2 @@\n-a\n+x\n",
    "a mark before the first line": "@@ -2 +2 @@\n\\ No newline at end of file\n-a\n+x\n",
    "a mark in the middle": "@@ -2,2 +2 @@\n-a\n\\ No newline at end of file\n-b\n+x\n",
    "two marks": "@@ -2 +2 @@\n-a\n+x\n\\ No newline at end of file\n\\ No newline at end of file\n",
    "another mark": "@@ -2 +2 @@\n-a\n+x\n\\ Kein Zeilenumbruch am Dateiende\n",
    "numbers in other digits": "@@ -٢ +٢ @@\n-a\n+x\n",
    "no numbers": "@@ -x +y @@\n-a\n+x\n",
    "a very long number": f"@@ -{'9' * 5000} +2 @@\n-a\n+x\n",
    "three ats": "@@@ -2 -2 +2 @@@\n-a\n+x\n",
}


@pytest.mark.parametrize("hunks", BAD_HUNKS.values(), ids=BAD_HUNKS)
def test_a_hunk_that_is_not_exact_is_refused(hunks: str) -> None:
    assert faults(HEAD + DIFF + INDEX + FILES + hunks)


def test_not_utf_8_is_refused() -> None:
    [finding] = faults(GOOD.encode().replace(b"+2.5", b"+\xff"))
    assert "is not UTF-8" in finding


@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf" + GOOD.encode(), b"diff --git ", b"diff --git a/x b/x"])
def test_next_to_nothing_is_refused(data: bytes) -> None:
    assert faults(data)


def test_all_faults_are_reported_at_once_with_their_lines() -> None:
    text = GOOD.replace("Origin: other\n", "Origin: other\nAuthor: me\n").replace("+2.5", " 2.5")
    text = text.replace("@@ -4,2 +4,0 @@", "@@ -4,2 +4,0 @@ class A:")
    assert [finding.split(":")[1] for finding in faults(text)] == ["3", "14", "15"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"one", b"two"),
        (b"one\n", b"two"),
        (b"one", b"two\n"),
        (b"one\n", b"one"),
        (b"one", b"one\n"),
        (b"", b"one\n"),
        (b"", b"one"),
        (b"one\n", b""),
        (b"one", b""),
        (b"-- x\n++ y\n", b"++ y\n-- x\n"),
        (b"a\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n", b"a\n"),
        (b"a\n", b"a\n--- a/f\n+++ b/f\n@@ -1 +1 @@\ndiff --git a/f b/f\n"),
        (b"\\ No newline at end of file\n", b"x\n\\ No newline at end of file\n"),
        ("größe = 1\n".encode(), "größe = 2  # 日本語 \U0001f40d\n".encode()),
        (b"a\n\x0c\nb\n", b"a\n\x0c\n\x0c\nc\n"),
        ("a\u2028b\n".encode(), "a\u2028c\u2029\x85\x1c\x0b.\n".encode()),
        (b"same\n" * 40, b"same\n" * 41),
        (b"a\nb\nc\nd\ne\n", b"A\nb\nC\nd\nE"),
    ],
)
def test_every_change_of_text_makes_a_patch_that_lands(old: bytes, new: bytes, scratch: Scratch) -> None:
    data = (HEAD + bare(scratch.diff(PATH, old, new, 0))).encode()
    patch = parse("p.patch", data)
    assert (patch.base, patch.result) == (blob_id(old), blob_id(new))
    assert misfits(patch, old) == []
    assert scratch.apply(PATH, old, data, "p.patch") == new


def test_a_misfit_names_hunk_and_line_with_both_texts() -> None:
    patch = parse("p.patch", GOOD.encode())
    assert misfits(patch, b"one\ntwo\nthree\nfour\nfive\n") == []
    assert misfits(patch, b"one\nTWO\nthree\nfour\nfIve\n") == [
        "hunk 1 of 2 (p.patch:10) expects line 2 to be 'two', it is 'TWO'",
        "hunk 2 of 2 (p.patch:14) expects line 5 to be 'five', it is 'fIve'",
    ]
    assert misfits(patch, b"one\ntwo\nthree\nfour\n") == [
        "hunk 2 of 2 (p.patch:14) needs line 5, but the base has 4",
    ]


@pytest.mark.parametrize(
    ("hunks", "fits", "does_not"),
    [
        ("@@ -2 +2 @@\n-b\n\\ No newline at end of file\n+B\n", b"a\nb", b"a\nb\n"),
        ("@@ -2 +2 @@\n-b\n\\ No newline at end of file\n+B\n", b"a\nb", b"a\nb\nc"),
        ("@@ -2 +2 @@\n-b\n+B\n", b"a\nb\n", b"a\nb"),
        ("@@ -0,0 +1 @@\n+B\n", b"", None),
        ("@@ -1,0 +2 @@\n+B\n", b"a\n", b""),
        ("@@ -2,0 +3 @@\n+B\n", b"a\nb\n", b"a\nb"),
        ("@@ -1 +1 @@\n-b\n+B\n", b"b\n", b"b\xff\n"),
    ],
)
def test_the_last_newline_and_the_number_of_lines_have_to_fit(hunks: str, fits: bytes, does_not: bytes | None) -> None:
    patch = with_hunks(hunks)
    assert misfits(patch, fits) == []
    assert does_not is None or len(misfits(patch, does_not)) == 1


@pytest.fixture(scope="module")
def scratch() -> Iterator[Scratch]:
    with Scratch() as made:
        yield made


# No carriage return and no NUL: a patch may not hold one.
LINE = st.sampled_from(["", "a", "b", "    return x", "-- a", "++ b", "@@ -1 +1 @@", "\\ x", "é\u2028", "\x0c", "#"])
TEXT = st.builds(
    lambda lines, ending: "\n".join(lines) + ending if lines else "",
    st.lists(LINE | st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=6)),
    st.sampled_from(["", "\n"]),
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An old text and a new one made of it, or of nothing of it."""
    old = draw(TEXT)
    lines = old.split("\n")
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(lines)))
        end = draw(st.integers(start, min(len(lines), start + 2)))
        lines[start:end] = draw(st.lists(LINE, max_size=3))
    new = draw(st.just("\n".join(lines)) | TEXT)
    return old.encode(), new.encode()


@settings(max_examples=80, deadline=None)
@given(changes(), st.data())
def test_the_patch_of_any_change_parses_fits_and_gives_exactly_the_new_text(
    scratch: Scratch, change: tuple[bytes, bytes], data: st.DataObject
) -> None:
    old, new = change
    assume(old != new)
    text = (HEAD + bare(scratch.diff(PATH, old, new, 0))).encode()
    patch = parse("p.patch", text)
    assert bool(blemishes(patch)) == bool(re.search(rb"^\+.*[ \t\r]$", text[len(HEAD) :], flags=re.MULTILINE))
    assert (patch.base, patch.result) == (blob_id(old), blob_id(new))
    assert misfits(patch, old) == []
    assert scratch.apply(PATH, old, text, "p.patch") == new
    removing = [hunk for hunk in patch.hunks if hunk.removed]
    if removing:
        hunk = data.draw(st.sampled_from(removing))
        lines = old.split(b"\n")
        lines[hunk.at - 1 + data.draw(st.integers(0, len(hunk.removed) - 1))] += b"!"
        assert len(misfits(patch, b"\n".join(lines))) == 1


PIECES = [
    DIFF,
    INDEX,
    FILES,
    HUNKS,
    "@@ -1 +1 @@",
    "@@",
    "-",
    "+",
    " ",
    "\n",
    "\\ No newline at end of file\n",
    "--- ",
    "+++ ",
]
MORE = [
    "rename from x\n",
    "new file mode 100644\n",
    "GIT binary patch\n",
    "Binary files a and b differ\n",
    "\0",
    "\r",
    "٢",
]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_bytes_make_parse_raise_anything_but_malformed_patch(data: st.DataObject) -> None:
    text = GOOD.encode()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 60)))
        piece = data.draw(st.sampled_from([*PIECES, *MORE]).map(str.encode) | st.binary(max_size=3))
        text = data.draw(st.sampled_from([text[:start] + piece + text[end:], text[:end] + text[start:]]))
    try:
        patch = parse("p.patch", text)
    except MalformedPatch as error:
        unclear = [finding for finding in error.findings if not re.match(r"p\.patch:[1-9]\d*: ", finding)]
        assert (unclear, bool(error.findings)) == ([], True)  # noqa: PT017
    else:
        # What was let through says exactly how long it is, and what follows from that.
        size = sum(1 + len(hunk.removed) + len(hunk.added) for hunk in patch.hunks)
        marks = sum(hunk.base_ends_open + hunk.result_ends_open for hunk in patch.hunks)
        assert text.count(b"\n") == patch.hunks[0].line - 1 + size + marks
        misfits(patch, b"one\ntwo\nthree\n")
