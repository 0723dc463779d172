"""upstream.lock: what is accepted, and that each fault ends with exit 2 and names its line."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import run_tools
from tests.tools.conftest import Project
from tools import lock
from tools.__main__ import main
from tools.errors import MalformedLock

ONE, TWO = "1" * 64, "2" * 64
BLOB, OTHER = "a" * 40, "b" * 40
LOCK = f"""\
# A comment with [brackets] and = signs counts as a line.
schema = 1

[pin]
url = "https://example.org/up.git"
branch = "main"
commit = "{BLOB}"
date = "2026-01-02T03:04:05+00:00"

[baseline]
url = "https://example.org/app.git"
branch = "main"
commit = "{OTHER}"
date = "2026-01-03T03:04:05+00:00"

[components.alpha]
path = "models/alpha"
files = [
    "__init__.py",  # the first
    "core.py",
]

[components.beta]
path = "models/beta"
files = ["net.py"]

[[sources]]
kind = "git"

[[sources]]
kind = "raw"
url = "https://example.org/{{commit}}/{{path}}"

[[sources]]
kind = "index"

[[sources.wheels]]
name = "one"
version = "1.0"
sha256 = "{ONE}"

[[sources.wheels]]
name = "two"
version = "2.0"
sha256 = "{TWO}"

[[files]]
path = "models/alpha/__init__.py"
sha256 = "{ONE}"
blob = "{BLOB}"

[[files]]
path = "models/alpha/core.py"
sha256 = "{TWO}"
blob = "{OTHER}"

[[files]]
path = "models/beta/net.py"
sha256 = "{ONE}"
blob = "{BLOB}"
pieces = '''
one:net.py two:x.py | a0+12
b7+30
'''

[[patches]]
file = "patches/core.patch"
target = "models/alpha/core.py"
sha256 = "{ONE}"
base = "{OTHER}"
result = "{BLOB}"
result_sha256 = "{TWO}"
"""
FIRST_FILE = f'path = "models/alpha/__init__.py"\nsha256 = "{ONE}"'
SECOND_PATCH = LOCK[LOCK.index("[[patches]]") :]

# (what is replaced, by what, a text on the line that has to be named, what has to be said of it)
FAULTS = {
    **{
        name: (FIRST_FILE, f"{added}\n{FIRST_FILE}", added.split("\n")[0], message)
        for name, added, message in (
            ("a short baseline", 'baseline = "abc"', "baseline should be a git id of 40 lower-case hex digits or"),
            ("a baseline that is no text", "baseline = 3", "baseline should be a git id"),
            ("an empty baseline", 'baseline = ""', "baseline should be a git id"),
            ("a hash of nothing", f'baseline_sha256 = "{TWO}"', "unknown key 'baseline_sha256'"),
            ("the same blob, other bytes", f'baseline = "{BLOB}"\nbaseline_sha256 = "{TWO}"', "disagree"),
            ("another blob, the same bytes", f'baseline = "{OTHER}"\nbaseline_sha256 = "{ONE}"', "disagree"),
        )
    },
    "a hash of what is absent": (
        FIRST_FILE,
        f'baseline = "absent"\nbaseline_sha256 = "{TWO}"\n{FIRST_FILE}',
        "baseline_sha256",
        "unknown key 'baseline_sha256'",
    ),
    "a baseline without its hash": (
        FIRST_FILE,
        f'baseline = "{OTHER}"\n{FIRST_FILE}',
        "[[files]]",
        "baseline_sha256 is missing",
    ),
    "another schema": ("schema = 1", "schema = 2", "schema =", "schema should be 1, is 2"),
    "a true schema": ("schema = 1", "schema = true", "schema =", "schema should be 1, is True"),
    "no schema": ("schema = 1", "", "# A comment", "schema should be 1, is None"),
    "unknown key at the top": ("schema = 1", "schema = 1\nextra = 2", "extra", "unknown key 'extra'"),
    "unknown table": ("[components.alpha]", "[extra]\nx = 1\n[components.alpha]", "[extra]", "unknown key 'extra'"),
    "unknown key in pin": ('url = "https://example.org/up.git"', "u = 1", "u = 1", "unknown key 'u'"),
    "unknown key in a component": ('path = "models/beta"', 'path = "models/beta"\nx = 1', "x = 1", "unknown key 'x'"),
    "unknown key in a source": ('kind = "git"', 'kind = "git"\nurl = "here"', 'url = "here"', "unknown key 'url'"),
    "unknown key in a wheel": ('name = "two"', 'name = "two"\nx = 1', "x = 1", "unknown key 'x'"),
    "unknown key in a file": (FIRST_FILE, f"x = 1\n{FIRST_FILE}", "x = 1", "unknown key 'x'"),
    "unknown key in a patch": (f'base = "{OTHER}"', f'base = "{OTHER}"\nx = 1', "x = 1", "unknown key 'x'"),
    "missing table": ("[baseline]", "[other]", "# A comment", "[baseline] is missing"),
    "missing key in pin": ('branch = "main"', "", "[pin]", "branch is missing"),
    "missing key in a wheel": ('version = "2.0"', "", '[[sources.wheels]]\nname = "two"', "version is missing"),
    "missing key in a file": (FIRST_FILE, FIRST_FILE.split("\n")[0], f"[[files]]\n{FIRST_FILE[:30]}", "sha256 is miss"),
    "missing key in a patch": (f'result = "{BLOB}"', "", "[[patches]]", "result is missing"),
    "a number for a string": ('branch = "main"', "branch = 5", "branch = 5", "branch should be a non-empty string"),
    "an empty string": ('branch = "main"', 'branch = ""', 'branch = ""', "branch should be a non-empty string"),
    "a string for a list": ('files = ["net.py"]', 'files = "net.py"', 'files = "net', "a list of non-empty strings"),
    "a list of numbers": ('files = ["net.py"]', "files = [1]", "files = [1]", "a list of non-empty strings"),
    "a list for a text": ('branch = "main"', "branch = [0x" + "f" * 5000 + "]", "branch = ", "is of type list"),
    "a short commit": (f'commit = "{BLOB}"', 'commit = "abc123"', 'commit = "abc123"', "40 lower-case hex digits"),
    "a hash in capitals": (f'base = "{OTHER}"', f'base = "{OTHER.upper()}"', "base =", "40 lower-case hex digits"),
    "a short hash": (f'result_sha256 = "{TWO}"', 'result_sha256 = "12"', "result_sha256", "64 lower-case hex digits"),
    "a file without an entry": ('"core.py",', '"core.py",\n"gone.py"', "files = [", "alpha/gone.py is missing"),
    "a doubled file": ('path = "models/beta/net.py"\nsha', FIRST_FILE[:-69], None, "__init__.py is listed twice"),
    "a doubled claim": ('["net.py"]', '["net.py", "net.py"]', 'files = ["net', "models/beta/net.py is listed twice"),
    "a file in no component": ('"core.py",\n', "\n", '[[files]]\npath = "models/alpha/core.py"', "outside every co"),
    "a file in a folder below": ('["net.py"]', '["net.py", "a/b.py"]', 'files = ["net', "outside its component"),
    "a file above": ('["net.py"]', '["net.py", ".."]', 'files = ["net', "outside its component"),
    "no files": ('files = ["net.py"]', "files = []", "files = []", "component beta has no files"),
    "a folder of another name": ('"models/beta"', '"models/gamma"', '"models/gamma"', "should end its path with"),
    "a component in another": ('"models/beta"', '"models/alpha/beta"', '"models/alpha/b', "inside component alpha"),
    "an unused patch": ('target = "models/alpha/core.py"', 'target = "x.py"', "target =", "'x.py' is no pinned file"),
    "a patch on other bytes": (f'base = "{OTHER}"', f'base = "{BLOB}"', "base =", "is pinned at"),
    "a patch elsewhere": ('"patches/core.patch"', '"core.patch"', 'file = "core', "is not patches/<name>.patch"),
    "a patch further down": ('"patches/core.patch"', '"patches/a/b.patch"', "file =", "is not patches/<name>.patch"),
    "no sources": (LOCK[LOCK.index("[[sources]]") : LOCK.index("[[files]]")], "", "# A comment", "no [[sources]]"),
    "an unknown source": ('kind = "git"', 'kind = "ftp"', 'kind = "ftp"', "kind should be git, raw or index, is 'ftp'"),
    "no commit in a URL": ("/{commit}/", "/", "url = \"https://example.org/{path}", "{sha256}, or {commit} and {path}"),
    "no path in a URL": ("/{path}", "", "example.org/{commit}", "{commit} and {path}"),
    "another hole in a URL": ("/{path}", "/{path}/{more}", "example.org/{commit}", "{commit} and {path}"),
    "an open brace in a URL": ("/{path}", "/{path}/{", "example.org/{commit}", "{commit} and {path}"),
    "a bad wheel name": ('name = "two"', 'name = "--pre"', 'name = "--pre"', "should be a package name"),
    "a range of versions": ('version = "2.0"', 'version = ">=2"', "version = \">", "should be an exact version"),
    "pieces of nothing": ("one:net.py two:x.py | ", "one:net.py two:x.py ", "pieces =", "have no |"),
    "a piece that is none": ("b7+30", "b7-30", "pieces =", "'b7-30' is no piece"),
    "a piece of no member": ("b7+30", "c7+30", "pieces =", "is of no member that was named"),
    "pieces that are no text": (FIRST_FILE, f"pieces = 3\n{FIRST_FILE}", "pieces = 3", "a non-empty string"),
}  # fmt: skip


Read = Callable[[str | bytes], list[str]]


def line_of(text: str, marker: str) -> int:
    return text[: text.index(marker)].count("\n") + 1


@pytest.fixture
def read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Read:
    """Gives a function: what the command line says of a lock on standard error, after making sure of exit 2."""

    def run(text: str | bytes) -> list[str]:
        (tmp_path / "patches").mkdir(exist_ok=True)
        (tmp_path / "patches" / "core.patch").touch()
        (tmp_path / "upstream.lock").write_bytes(text if isinstance(text, bytes) else text.encode())
        assert main(["--root", str(tmp_path), "verify"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        return [line.strip() for line in said.err.splitlines()]

    return run


def test_a_good_lock_is_read_in_full() -> None:
    found = lock.parse(LOCK)
    assert [file.path for file in found.files] == [
        "models/alpha/__init__.py",
        "models/alpha/core.py",
        "models/beta/net.py",
    ]
    assert [part.name for part in found.select(["beta"])] == ["beta"]
    assert found.expected_sha256(found.files[0]) == ONE
    patch = found.patch_for("models/alpha/core.py")
    assert patch is not None
    assert patch.file == "patches/core.patch"
    index = found.sources[2]
    assert isinstance(index, lock.IndexSpec)
    assert [wheel.requirement for wheel in index.wheels] == ["one==1.0", "two==2.0"]
    assert [file.pieces for file in found.files] == ["", "", "one:net.py two:x.py | a0+12 b7+30"]


@pytest.mark.parametrize("url", ["https://x.org/{sha256}", "https://x.org/{commit}/{path}/{sha256}"])
def test_a_raw_url_may_name_bytes_by_their_hash(url: str) -> None:
    found = lock.parse(LOCK.replace("https://example.org/{commit}/{path}", url))
    assert found.sources[1] == lock.RawSpec(url)


def test_what_the_baseline_has_may_be_said_or_not() -> None:
    assert {(file.baseline, file.baseline_sha256) for file in lock.parse(LOCK).files} == {("", "")}
    for said, expected in (
        (f'baseline = "{OTHER}"\nbaseline_sha256 = "{TWO}"', (OTHER, TWO)),
        (f'baseline = "{BLOB}"\nbaseline_sha256 = "{ONE}"', (BLOB, ONE)),
        ('baseline = "absent"', (lock.ABSENT, "")),
    ):
        file = lock.parse(LOCK.replace(FIRST_FILE, f"{FIRST_FILE}\n{said}")).files[0]
        assert (file.baseline, file.baseline_sha256) == expected


@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS)
def test_a_malformed_lock_ends_with_exit_2_and_its_line(case: tuple[str, str, str | None, str], read: Read) -> None:
    old, new, marker, message = case
    assert LOCK.count(old) >= 1
    text = LOCK.replace(old, new, 1)
    # Without a marker the second of two equal lines is meant.
    line = line_of(text, marker) if marker else text[: text.rindex(new)].count("\n") + 1
    said = read(text)
    assert any(entry.startswith(f"upstream.lock:{line}: ") and message in entry for entry in said), "\n".join(said)


@pytest.mark.parametrize(
    "path",
    [
        "models/../alpha",
        "models//alpha",
        "./models/alpha",
        "/models/alpha",
        "C:/models/alpha",
        "models\\\\alpha",
        ".git/alpha",
        "models/.GIT/alpha",
        "models/.git /alpha",
        "models/.git./alpha",
        "models/git~1/alpha",
        "models/.git::$INDEX_ALLOCATION/alpha",
        "models/.g\u200cit/alpha",
        "models/\\u0007/alpha",
        "models/\\u009b/alpha",
        "models/\\u007f/alpha",
        "models/\u2028/alpha",
        'models/\\"/alpha',
    ],
)
def test_a_path_that_could_lead_out_of_the_tree_is_refused(path: str, read: Read) -> None:
    text = LOCK.replace('path = "models/alpha"', f'path = "{path}"')
    line = line_of(text, 'path = "' + path)
    assert any(entry.startswith(f"upstream.lock:{line}: path ") for entry in read(text))


@pytest.mark.parametrize("key", ["file", "target"])
def test_a_patch_entry_that_leads_out_is_refused(key: str) -> None:
    text = re.sub(rf'^{key} = ".*"$', f'{key} = "patches/../../x.patch"', LOCK, flags=re.MULTILINE)
    with pytest.raises(MalformedLock) as caught:
        lock.parse(text)
    assert any(
        entry.startswith(f"upstream.lock:{line_of(text, f'{key} =')}: {key} ") for entry in caught.value.findings
    )


def test_two_patches_for_one_file_are_refused() -> None:
    text = LOCK + SECOND_PATCH.replace("patches/core", "patches/again")
    with pytest.raises(MalformedLock) as caught:
        lock.parse(text)
    line = text[: text.rindex("target =")].count("\n") + 1
    assert caught.value.findings == (f"upstream.lock:{line}: models/alpha/core.py has a second patch",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("baseline = 7", "should be a table"),
        ("files = [7]", "should be a table"),
        ("files = 'x'", "files should be an array of tables, [[files]]"),
        ("sources = 7", "sources should be an array of tables, [[sources]]"),
        ("components = []", "should be a table"),
        ("components.alpha = 7", "should be a table"),
        ("sources = [{ kind = 'index', wheels = 7 }]", "wheels should be an array of tables, [[wheels]]"),
    ],
)
def test_another_type_where_a_table_should_be(text: str, message: str) -> None:
    with pytest.raises(MalformedLock) as caught:
        lock.parse(f"schema = 1\n{text}\n")
    assert f"upstream.lock:2: {message}" in caught.value.findings


def test_one_patch_file_for_two_targets_is_refused() -> None:
    text = LOCK + SECOND_PATCH.replace("models/alpha/core.py", "models/beta/net.py").replace(OTHER, BLOB, 1)
    with pytest.raises(MalformedLock) as caught:
        lock.parse(text)
    line = text[: text.rindex("file =")].count("\n") + 1
    assert caught.value.findings == (f"upstream.lock:{line}: patches/core.patch is listed twice",)


def test_no_components_is_malformed() -> None:
    text = LOCK[: LOCK.index("[components.alpha]")] + '[components]\n[[sources]]\nkind = "git"\n'
    with pytest.raises(MalformedLock) as caught:
        lock.parse(text)
    assert caught.value.findings == (f"upstream.lock:{line_of(text, '[components]')}: no components are listed",)


def test_a_bad_source_is_not_also_called_absent() -> None:
    start, end = LOCK.index("[[sources]]"), LOCK.index("[[files]]")
    with pytest.raises(MalformedLock) as caught:
        lock.parse(LOCK[:start] + '[[sources]]\nkind = "ftp"\n' + LOCK[end:])
    assert len(caught.value.findings) == 1


def test_all_faults_are_reported_at_once_in_the_order_of_their_lines(read: Read) -> None:
    text = LOCK.replace('branch = "main"', "branch = 1", 1).replace('kind = "git"', 'kind = "ftp"')
    text = text.replace(f'result = "{BLOB}"', 'result = "x"')
    lines = [line_of(text, marker) for marker in ("branch = 1", 'kind = "ftp"', 'result = "x"')]
    said = [int(entry.split(":")[1]) for entry in read(text) if entry.startswith("upstream.lock:")]
    assert said == lines


def test_an_unlisted_patch_file_is_refused(tmp_path: Path, read: Read) -> None:
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "stray.patch").touch()
    said = read(LOCK)
    line = line_of(LOCK, "[[patches]]")
    assert f"upstream.lock:{line}: patches/stray.patch is not listed in any [[patches]] entry" in said


def test_a_listed_patch_file_that_is_absent_is_refused(read: Read) -> None:
    text = LOCK + SECOND_PATCH.replace("core.patch", "gone.patch").replace("alpha/core.py", "beta/net.py").replace(
        f'base = "{OTHER}"', f'base = "{BLOB}"'
    )
    line = text[: text.rindex("[[patches]]")].count("\n") + 1
    assert f"upstream.lock:{line}: patches/gone.patch is listed, but there is no such file" in read(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"schema = ", "Invalid value"),
        (b"a = 1\nb = 2\nb = 3\n", "at line 3"),
        (b"\xff\xfe", "utf-8"),
        (b"x = " + b"[" * 20000, "recursion"),
        (b"x = " + b"9" * 5000, "digits"),
        (b"schema = 0x" + b"f" * 5000, "upstream.lock:1: schema should be 1"),
        (b"\x00", "at line 1"),
        (b"junk " * 1_000_000, "has more than 262144 bytes"),
    ],
    ids=["cut off", "doubled key", "not UTF-8", "nested", "long number", "long hex number", "NUL", "huge"],
)
def test_what_is_no_lock_at_all_is_said_so(content: bytes, message: str, read: Read) -> None:
    said = "\n".join(read(content))
    assert message in said
    assert len(said) < 5000


def test_a_lock_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    done = run_tools("--root", tmp_path / "nowhere", "verify")
    assert done.returncode == 2
    assert f"there is no {tmp_path / 'nowhere' / 'upstream.lock'}" in done.stderr
    (tmp_path / "upstream.lock").mkdir()
    done = run_tools("--root", tmp_path, "status")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


LAYOUTS = {
    "dotted keys at the top": (r"\[pin\]\n(\w+) = (.*)\n(\w+) = (.*)\n(\w+) = (.*)\n(\w+) = (.*)\n", None),
    "dotted keys in a table": (r"\[components.beta\]\npath = ", "[components]\nbeta.x = 1\nbeta.path = "),
    "spaces around": (r"\[components.beta\]\n", "[ components . beta ]\n  x = 1\n"),
    "quoted names": (r"\[components.beta\]\n", '["components"."beta"]\n"x" = 1\n'),
    "an inline table": (
        r"\[components.beta\]\npath = (.*)\nfiles = (.*)\n",
        r"[components]\nbeta = { path = \1, files = \2, x = 1 }\n",
    ),
    "lines that only look like tables": (
        r"\[components.beta\]\n",
        "[components.beta]\nx = '''\n[pin]\ny = 1\n'''\n",
    ),
    "a multi-line text before": (r"\[components.beta\]\n", '[components.beta]\ny = """\nx = 0\n\\""""\nx = 1\n'),
    "a comment with a line separator": (r"\[components.beta\]\n", "# one\u2028line\n[components.beta]\nx = 1\n"),
    "Windows line ends": (r"\[components.beta\]\n", "[components.beta]\r\nx = 1\r\n"),
    "arrays in arrays": (r"\[components.beta\]\n", '[components.beta]\ny = [\n  ["a"],\n  [ "pin" ],\n]\nx = 1\n'),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_lines_are_right_in_every_way_to_write_toml(name: str) -> None:
    pattern, new = LAYOUTS[name]
    if new is None:
        text = re.sub(pattern, "", LOCK)
        text = text.replace("schema = 1\n", 'pin.url = "u"\n\npin.x = 1\nschema = 1\n')
    else:
        text, count = re.subn(pattern, new.replace('\\"', '\\\\"'), LOCK)
        assert count == 1
    with pytest.raises(MalformedLock) as caught:
        lock.parse(text)
    marker = re.search(r"(^|[ .{\"])x\"? = (1|'')", text, flags=re.MULTILINE)
    assert marker is not None
    line = text[: marker.end()].count("\n") + 1
    assert f"upstream.lock:{line}: unknown key 'x'" in caught.value.findings


def test_lines_are_right_in_nested_arrays_of_inline_tables() -> None:
    start, end = LOCK.index("[[sources.wheels]]"), LOCK.index("[[files]]")
    wheels = f"""wheels = [
    {{ name = "one", version = "1.0", sha256 = "{ONE}" }},
    {{ name = "upside-down", version = "=", sha256 = "{ONE}" }},
    {{ name = "two", version = "2.0" }},
]

"""
    text = LOCK[:start] + wheels + LOCK[end:]
    with pytest.raises(MalformedLock) as caught:
        lock.parse(text)
    first, second = line_of(text, "upside-down"), line_of(text, 'name = "two"')
    assert [entry.split(":")[1] for entry in caught.value.findings] == [str(first), str(second)]


def test_lines_are_right_in_the_second_of_two_equal_tables() -> None:
    text = LOCK.replace('name = "two"', 'name = "two"\nupside = "down"')
    with pytest.raises(MalformedLock) as caught:
        lock.parse(text)
    [finding] = caught.value.findings
    assert finding.startswith(f"upstream.lock:{line_of(text, 'upside =')}: ")


def test_the_lock_that_the_product_writes_is_good(project: Project) -> None:
    found = lock.load(project.root)
    assert found.pin.commit == project.commit
    assert len(found.files) == 5


TOKENS = ["[", "]", "[[", "]]", "{", "}", "=", ".", ",", '"', "'", '"""', "#", "\\", "1", "-", "true", "inf", "{path}"]
LINES = ["", "x = 1", "[pin]", "[[files]]", "[[sources]]", "[components]", 'path = ".."', "files = []", "pieces = '|'"]
ODD = ["2026-01-02", "07:32:00", "é", "\u2028", "\x0c", "\x00", "0x" + "f" * 5000]
PIECES = st.sampled_from([*TOKENS, *ODD, *(f"{line}\n" for line in LINES)])


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_text_makes_parse_raise_anything_but_malformed_lock(data: st.DataObject) -> None:
    text = LOCK
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 120)))
        kind = data.draw(st.sampled_from(["insert", "delete", "double", "replace", "swap"]))
        if kind == "insert":
            text = text[:start] + data.draw(PIECES | st.text(max_size=5)) + text[start:]
        elif kind == "delete":
            text = text[:start] + text[end:]
        elif kind == "double":
            text = text[:end] + text[start:]
        elif kind == "replace":
            text = text[:start] + data.draw(PIECES) + text[end:]
        else:
            lines = text.split("\n")
            lines.insert(
                data.draw(st.integers(0, len(lines) - 1)), lines.pop(data.draw(st.integers(0, len(lines) - 1)))
            )
            text = "\n".join(lines)
    try:
        found = lock.parse(text)
    except MalformedLock as error:
        for finding in error.findings:
            if named := re.match(r"upstream\.lock:(\d+): ", finding):
                assert 1 <= int(named[1]) <= text.count("\n") + 1
    else:
        assert all(lock.path_fault(file.path) is None for file in found.files)
