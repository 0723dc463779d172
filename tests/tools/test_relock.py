"""`lock`: every hash comes from the real thing; what a person chose and wrote stays."""

import re
import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.conftest import run_tools
from tests.tools.conftest import FILES, Project, git, make_project, make_upstream, write
from tests.tools.servers import inflate_wheel, make_wheel, pip_environment
from tools.__main__ import main
from tools.hashes import blob_id, sha256
from tools.limits import LARGEST_WHEEL
from tools.lock import IndexSpec, load
from tools.store import Store

CORE = "models/alpha/core.py"
INDEX = '\n[[sources]]\nkind = "index"\n\n[[sources.wheels]]\nname = "mini"\nversion = "1.0"\n'
CRLF = FILES["models/beta/net.py"].replace(b"\n", b"\r\n")


def edit(project: Project, old: str, new: str, count: int = 1) -> None:
    text = project.lock.read_text(encoding="utf-8")
    assert old in text
    project.lock.write_text(text.replace(old, new, count), encoding="utf-8")


def lock(project: Project, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`lock` without a process of its own, which would take most of the time here."""
    out, err = StringIO(), StringIO()
    quiet = [word for word in arguments if word == "--quiet"]
    words = [*quiet, "--root", project.root, "--store", project.store, "lock", *arguments[len(quiet) :]]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in project.env.items():
            patch.setenv(name, value)
        actual = main([str(word) for word in words])
    assert actual == code, err.getvalue()
    return subprocess.CompletedProcess(words, actual, out.getvalue(), err.getvalue())


def stripped(text: str) -> str:
    """A lock as a person starts it: without anything that is computed."""
    text = re.sub(r"(?ms)^\[\[files\]\]\n.*?(?=^\[\[patches|\Z)", "", text)
    text = re.sub(r"(?ms)^files = \[.*?^\]\n", "", text)
    return re.sub(r"(?m)^(date|sha256|base|result|result_sha256) = .*\n", "", text)


def test_a_first_lock_without_any_hash_is_enough(unfetched: Project) -> None:
    whole = unfetched.lock.read_text(encoding="utf-8")
    first = stripped(whole)
    assert not re.search(r"[0-9a-f]{64}", first)
    unfetched.lock.write_text(first, encoding="utf-8")
    assert unfetched.json("lock") == {"schema": 1, "verb": "lock", "ok": True, "changed": True}
    again = load(unfetched.root)
    unfetched.lock.write_text(whole, encoding="utf-8")
    assert again == load(unfetched.root)
    assert {file.path: (file.sha256, file.blob) for file in again.files} == {
        path: (sha256(data), blob_id(data)) for path, data in FILES.items()
    }
    assert again.pin.date == "2026-01-02T03:04:05+00:00"
    patch = again.patch_for(CORE)
    assert patch is not None
    assert patch.sha256 == sha256((unfetched.root / patch.file).read_bytes())
    assert patch.base == blob_id(FILES[CORE])


def test_a_second_run_changes_nothing(unfetched: Project) -> None:
    before = (unfetched.lock.read_bytes(), unfetched.lock.stat().st_mtime_ns)
    done = unfetched.run("lock")
    assert done.stdout == f"{unfetched.lock} is up to date\n"
    assert (unfetched.lock.read_bytes(), unfetched.lock.stat().st_mtime_ns) == before


COMMENTED = """\
# At the very top.
schema = 1  # the only one

# What we stand on.
[pin]
url = "{url}"  # ours
# Between two keys.
branch = "main"
commit = "{commit}"

# What the app had.
[baseline]
url = "{url}"
branch = "main"
commit = "{commit}"

# The first component.
[components.alpha]
path = "models/alpha"  # as upstream has it

# The second component.
[components.beta]
path = "models/beta"

# The first place to ask.
[[sources]]
kind = "git"

# The last place to ask.
[[sources]]
kind = "index"

# A release.
[[sources.wheels]]
name = "mini"
version = "1.0"
{files}
# The first patch.
[[patches]]
file = "patches/core.patch"
target = "models/alpha/core.py"

# The second patch.
[[patches]]
file = "patches/net.patch"
target = "models/beta/net.py"
# At the very end.
"""


@pytest.mark.parametrize("files", ["", '\n# The files.\n[[files]]\npath = "models/alpha/core.py"\n'])
def test_comments_stay_where_they_were(files: str, unfetched: Project, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "mini", "1.0", {"mini/net.py": CRLF})
    unfetched.env |= pip_environment(tmp_path / "wheels")
    first = COMMENTED.format(url=unfetched.upstream.as_uri(), commit=unfetched.commit, files=files)
    unfetched.lock.write_text(first, encoding="utf-8")
    lock(unfetched)
    text = unfetched.lock.read_text(encoding="utf-8")
    lines = text.splitlines()
    for before, after in zip(first.splitlines(), [*first.splitlines()[1:], None], strict=True):
        assert before in lines
        if before.startswith("#"):
            place = lines.index(before)
            following = lines[place + 1] if place + 1 < len(lines) else None
            # Below the last comment stand only the pinned files, where there were none.
            assert following == after or (after is None and following == "[[files]]"), text


def test_what_a_person_chose_is_kept_in_its_order(unfetched: Project) -> None:
    edit(
        unfetched, '[[sources]]\nkind = "git"', '[[sources]]\nkind = "raw"\nurl = "http://127.0.0.1:9/{commit}/{path}"'
    )
    edit(unfetched, "[[patches]]", '[[sources]]\nkind = "git"\n\n[[patches]]')
    edit(unfetched, 'branch = "main"', "branch = 'next'")
    before = unfetched.lock.read_text(encoding="utf-8")
    lock(unfetched)
    assert unfetched.lock.read_text(encoding="utf-8") == before


def test_a_moved_pin_changes_hashes_and_keeps_the_list_of_files(tmp_path: Path) -> None:
    project = make_project(tmp_path, edited={})
    write(project.upstream, {"models/alpha/new.py": b"NEW = 1\n", "models/alpha/extra.py": b"more = 1\n"})
    git("add", "-A", cwd=project.upstream)
    git("commit", "-q", "-m", "more", cwd=project.upstream)
    edit(project, project.commit, git("rev-parse", "HEAD", cwd=project.upstream).strip())
    lock(project)
    found = {file.path: file.blob for file in load(project.root).files}
    assert sorted(found) == sorted(FILES)
    assert found["models/alpha/extra.py"] == blob_id(b"more = 1\n")
    text = project.lock.read_text(encoding="utf-8")
    lock(project)
    assert project.lock.read_text(encoding="utf-8") == text


def test_a_moved_pin_without_a_listed_file_is_exit_5_and_writes_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path, edited={})
    (project.upstream / "models/alpha/extra.py").unlink()
    git("commit", "-q", "-a", "-m", "less", cwd=project.upstream)
    edit(project, project.commit, git("rev-parse", "HEAD", cwd=project.upstream).strip())
    text = project.lock.read_text(encoding="utf-8")
    done = lock(project, code=5)
    assert "gone: models/alpha/extra.py" in done.stderr
    assert "make rebase" in done.stderr
    assert project.lock.read_text(encoding="utf-8") == text


def test_check_says_stale_with_exit_1_and_writes_nothing(unfetched: Project) -> None:
    edit(unfetched, sha256(FILES[CORE]), "0" * 64)
    before = unfetched.lock.read_bytes()
    done = lock(unfetched, "--check", code=1)
    assert "is not what upstream and the patches give" in done.stderr
    assert unfetched.lock.read_bytes() == before
    lock(unfetched)
    lock(unfetched, "--check")


def test_a_pin_that_cannot_be_had_is_exit_5_and_writes_nothing(unfetched: Project) -> None:
    edit(unfetched, unfetched.commit, "0" * 40)
    before = unfetched.lock.read_bytes()
    done = lock(unfetched, code=5)
    assert f"commit {'0' * 40} could not be read" in done.stderr
    assert unfetched.upstream.as_uri() in done.stderr
    assert "next: name another place with UPSTREAM=" in done.stderr
    assert unfetched.lock.read_bytes() == before


def test_a_component_folder_that_is_not_there_is_exit_5(unfetched: Project) -> None:
    edit(unfetched, 'path = "models/beta"', 'path = "models/gone/beta"')
    lock(unfetched, code=5)


def test_a_baseline_that_cannot_be_had_keeps_its_date_with_a_warning(unfetched: Project) -> None:
    head, tail = unfetched.lock.read_text(encoding="utf-8").split("[baseline]")
    unfetched.lock.write_text(f"{head}[baseline]{tail.replace(unfetched.commit, '0' * 40, 1)}", encoding="utf-8")
    done = lock(unfetched, "--quiet")
    assert done.stderr.startswith("warning: what the lock says of the baseline stays as it is: ")
    edit(unfetched, 'date = "2026-01-02T03:04:05+00:00"\n\n[components', "\n[components")
    done = lock(unfetched, code=5)
    assert f"the baseline {'0' * 40} could not be read" in done.stderr


def test_what_the_baseline_has_is_locked_and_kept_in_the_store(unfetched: Project, tmp_path: Path) -> None:
    other = b"FACTOR = 3\n"
    files = {path: data for path, data in FILES.items() if not path.startswith("models/beta/")} | {CORE: other}
    commit = make_upstream(tmp_path / "app", files)
    head, tail = unfetched.lock.read_text(encoding="utf-8").split("[baseline]")
    tail = tail.replace(unfetched.upstream.as_uri(), (tmp_path / "app").as_uri(), 1)
    unfetched.lock.write_text(f"{head}[baseline]{tail.replace(unfetched.commit, commit, 1)}", encoding="utf-8")
    lock(unfetched)
    # A folder that it lacks is no error: the baseline may be older than a component.
    assert {file.path: (file.baseline, file.baseline_sha256) for file in load(unfetched.root).files} == {
        path: (blob_id(files[path]), sha256(files[path])) if path in files else ("absent", "") for path in FILES
    }
    store = Store(unfetched.store, pytest.fail)
    assert store.get(sha256(other)) == other
    assert store.origin(sha256(other)) == f"git {(tmp_path / 'app').as_uri()}"
    assert store.origin(sha256(FILES["models/alpha/extra.py"])) == f"git {unfetched.upstream.as_uri()}"
    # It cannot be had: what is known of it stays, also where the list of files is written anew.
    before = load(unfetched.root).files
    text = unfetched.lock.read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "app")
    forgotten = re.sub(r'\[\[files\]\]\npath = "models/alpha/extra.py"\n(?:\w.+\n)+\n', "", text)
    assert forgotten != text
    unfetched.lock.write_text(forgotten, encoding="utf-8")
    assert "what the lock says of the baseline stays as it is" in lock(unfetched).stderr
    after = load(unfetched.root).files
    assert [file.baseline for file in after if file.path != "models/alpha/extra.py"] == [
        file.baseline for file in before if file.path != "models/alpha/extra.py"
    ]
    assert next(file.baseline for file in after if file.path == "models/alpha/extra.py") == ""


def test_upstream_names_another_place_for_the_pin(project: Project) -> None:
    elsewhere = project.upstream.rename(project.root.parent / "moved")
    before = project.lock.read_bytes()
    lock(project, "--upstream", elsewhere.as_uri())
    # A path counts from where the user stands.
    arguments = ("--root", project.root, "--store", project.store, "lock", "--upstream", "moved")
    done = run_tools(*arguments, cwd=project.root.parent)
    assert done.returncode == 0, done.stderr
    assert project.lock.read_bytes() == before


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-by-that-name/x", "", "no such place"])
def test_an_upstream_that_is_nothing_is_exit_5_or_not_there(name: str, unfetched: Project) -> None:
    lock(unfetched, "--upstream", name, code=5 if name else 0)


def test_the_store_says_where_the_bytes_came_from(unfetched: Project) -> None:
    lock(unfetched, "--upstream", unfetched.upstream)
    row = unfetched.json("vendor")["files"][0]
    assert row["source"] == "UPSTREAM"


# Wheels, and the pieces that are found in them.


@pytest.fixture
def packaged(unfetched: Project, tmp_path: Path) -> Project:
    """A project with the wheel mini 1.0, whose one member has Windows line ends."""
    make_wheel(tmp_path / "wheels", "mini", "1.0", {"mini/net.py": CRLF})
    unfetched.env |= pip_environment(tmp_path / "wheels")
    edit(unfetched, 'kind = "git"\n', f'kind = "git"\n{INDEX}')
    return unfetched


def pieces(project: Project) -> dict[str, str]:
    return {file.path: file.pieces for file in load(project.root).files if file.pieces}


def test_a_wheel_gets_its_hash_and_files_their_pieces(packaged: Project, tmp_path: Path) -> None:
    done = lock(packaged)
    assert re.search(r"^pieces looked for in 1 members, in \d+\.\d s$", done.stderr, re.MULTILINE)
    assert f"a package index alone does not give models/alpha/__init__.py, {CORE}, " in done.stderr
    assert "not in 400 pieces" in done.stderr
    size = len(FILES["models/beta/net.py"])
    assert pieces(packaged) == {"models/beta/__init__.py": "|", "models/beta/net.py": f"mini:mini/net.py | a0+{size}"}
    lock(packaged, "--check")
    index = load(packaged.root).sources[1]
    assert isinstance(index, IndexSpec)
    [wheel] = (tmp_path / "wheels").glob("*.whl")
    assert index.wheels[0].sha256 == sha256(wheel.read_bytes())


def test_many_pieces_stand_in_short_lines_and_more_than_a_lock_should_hold_in_none(tmp_path: Path) -> None:
    words = [f"{number} = {number}\n".encode() for number in range(450)]
    files = {"models/beta/many.py": b"".join(words[:300]), "models/beta/more.py": b"".join(words)}
    project = make_project(tmp_path, files, {})
    make_wheel(tmp_path / "wheels", "mini", "1.0", {"mini/back.py": b"".join(reversed(words))})
    project.env |= pip_environment(tmp_path / "wheels")
    edit(project, 'kind = "git"\n', f'kind = "git"\n{INDEX}')
    assert "does not give models/beta/more.py: not in 400 pieces" in lock(project).stderr
    assert list(pieces(project)) == ["models/beta/many.py"]
    assert len(pieces(project)["models/beta/many.py"].partition("| ")[2].split()) == 300
    assert max(map(len, project.lock.read_text(encoding="utf-8").splitlines())) <= 120
    lock(project, "--check")


def test_a_file_that_its_patch_holds_whole_has_no_pieces(tmp_path: Path) -> None:
    files = {"models/beta/old.py": b"a = 1\n", "models/beta/other.py": b"b = 2\n"}
    project = make_project(tmp_path, files, {"models/beta/old.py": b"c = 3\n"})
    make_wheel(tmp_path / "wheels", "mini", "1.0", {"mini/both.py": b"a = 1\nb = 2\n"})
    project.env |= pip_environment(tmp_path / "wheels")
    edit(project, 'kind = "git"\n', f'kind = "git"\n{INDEX}')
    assert "alone does not give" not in lock(project).stderr
    assert list(pieces(project)) == ["models/beta/other.py"]
    # Its patch keeps a line from now on.
    project.run("vendor")
    write(project.tree, {"models/beta/old.py": b"a = 1\nc = 3\n"})
    done = project.run("refresh")
    assert "warning: a package index alone does not give models/beta/old.py now: make lock" in done.stderr
    lock(project)
    assert list(pieces(project)) == ["models/beta/old.py", "models/beta/other.py"]
    # And then none again.
    write(project.tree, {"models/beta/old.py": b"d = 4\n"})
    assert "alone" not in project.run("refresh").stderr
    assert list(pieces(project)) == ["models/beta/other.py"]
    lock(project, "--check")


def test_a_wheel_that_changed_since_is_exit_4(packaged: Project, tmp_path: Path) -> None:
    lock(packaged)
    make_wheel(tmp_path / "wheels", "mini", "1.0", {"mini/net.py": CRLF, "mini/more.py": b"\n"})
    done = lock(packaged, code=4)
    assert "mini==1.0 is not the wheel that was locked" in done.stderr


def test_a_wheel_that_cannot_be_had_keeps_its_hash_with_a_warning_or_is_exit_5(
    packaged: Project, tmp_path: Path
) -> None:
    lock(packaged)
    before = packaged.lock.read_bytes()
    next((tmp_path / "wheels").glob("*.whl")).unlink()
    done = lock(packaged, "--quiet")
    assert done.stderr.startswith("warning: mini==1.0 stays as it is: ")
    assert packaged.lock.read_bytes() == before
    assert "not all wheels were there; make lock looks again" in done.stderr
    text = packaged.lock.read_text(encoding="utf-8")
    packaged.lock.write_text(re.sub(r"(?m)^(version = .*)\nsha256 = .*$", r"\1", text), encoding="utf-8")
    done = lock(packaged, code=5)
    assert "mini==1.0 could not be read" in done.stderr


def test_the_largest_wheel_is_locked(packaged: Project, tmp_path: Path) -> None:
    inflate_wheel(tmp_path / "wheels", "mini", LARGEST_WHEEL)
    lock(packaged)


def test_a_larger_wheel_is_exit_5(packaged: Project, tmp_path: Path) -> None:
    inflate_wheel(tmp_path / "wheels", "mini", LARGEST_WHEEL + 1)
    done = lock(packaged, code=5)
    assert "mini==1.0 could not be read" in done.stderr
    assert f"the wheel has {LARGEST_WHEEL + 1} bytes, more than {LARGEST_WHEEL}" in done.stderr


# Patches.


def test_a_patch_for_no_pinned_file_and_one_on_other_bytes_are_both_reported(unfetched: Project) -> None:
    for name, old, new in (("core", CORE, "models/alpha/gone.py"), ("net", "3.14 * r", "3.1 * r")):
        path = unfetched.root / "patches" / f"{name}.patch"
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    before = unfetched.lock.read_bytes()
    done = lock(unfetched, code=3)
    assert "patches/core.patch changes models/alpha/gone.py, which is no pinned file" in done.stderr
    assert "patches/net.patch does not apply to models/beta/net.py" in done.stderr
    assert unfetched.lock.read_bytes() == before


def test_a_patch_whose_result_is_not_as_promised_is_exit_4(unfetched: Project) -> None:
    path = unfetched.root / "patches" / "net.patch"
    path.write_text(path.read_text(encoding="utf-8").replace("+    return math", "+    return cmath"), encoding="utf-8")
    done = lock(unfetched, code=4)
    assert "patches/net.patch gives another result than it promises" in done.stderr


def test_a_patch_file_that_is_not_there_is_exit_2(unfetched: Project) -> None:
    (unfetched.root / "patches" / "net.patch").unlink()
    done = lock(unfetched, code=2)
    assert "patches/net.patch" in done.stderr


def test_a_lock_that_would_be_malformed_is_not_written(unfetched: Project) -> None:
    edit(unfetched, 'branch = "main"', 'branch = "main"\nbrunch = "no"')
    before = unfetched.lock.read_bytes()
    done = lock(unfetched, code=2)
    assert "unknown key 'brunch'" in done.stderr
    assert unfetched.lock.read_bytes() == before


FIRST = 'schema = 1\npin = {{ url = "{url}", branch = "main", commit = "{commit}" }}\n'
BASE = FIRST + 'baseline = {{ url = "{url}", branch = "main", commit = "{commit}" }}\n'
WITH_PARTS = BASE + 'components.beta.path = "models/beta"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema = ",
        "schema = 1\n",
        "pin = 3\ncomponents = 4\n",
        "[pin]\nurl = 1\n[components]\n",
        FIRST,
        FIRST + "components = 3\n",
        FIRST + "components.beta = 3\n",
        FIRST + "components.beta.path = 3\n",
        FIRST + 'components.beta.path = "models/beta"\n',
        FIRST + 'components.beta.path = "models/beta"\nbaseline = 3\n',
        WITH_PARTS + "sources = 3\n",
        WITH_PARTS + "sources = [3]\n",
        WITH_PARTS + "sources = [{{ wheels = 3 }}]\n",
        WITH_PARTS + "sources = [{{ wheels = [3] }}]\n",
        WITH_PARTS + "sources = [{{ wheels = [{{ name = 'mini' }}] }}]\n",
        WITH_PARTS + "patches = 3\n",
        WITH_PARTS + "patches = [3]\n",
        WITH_PARTS + "patches = [{{ target = 'models/beta/net.py' }}]\n",
        WITH_PARTS + "patches = [{{ file = '../upstream.lock' }}]\n",
        WITH_PARTS + "files = 3\n",
        "x = " + "[" * 5000,
        "x = 0x" + "f" * 5000,
    ],
    ids=lambda text: text[-40:].strip() or "empty",
)
def test_a_first_lock_that_says_too_little_is_exit_2(text: str, unfetched: Project) -> None:
    content = text.format(url=unfetched.upstream.as_uri(), commit=unfetched.commit)
    unfetched.lock.write_text(content, encoding="utf-8")
    assert "upstream.lock" in lock(unfetched, code=2).stderr
    assert unfetched.lock.read_text(encoding="utf-8") == content


def test_no_lock_and_an_unreadable_one_are_exit_2(unfetched: Project) -> None:
    unfetched.lock.write_bytes(b"\xff\xfe")
    assert "cannot be read" in lock(unfetched, code=2).stderr
    unfetched.lock.unlink()
    assert "next: start one from README.md" in lock(unfetched, code=2).stderr
    unfetched.lock.mkdir()
    lock(unfetched, code=2)


OTHERWISE = {
    "the other way round": """\
schema = 1
[[files]]
path = "models/gone.py"
# On the patches.
[[patches]]
file = "patches/net.patch"
[[patches]]
file = "patches/core.patch"
[[sources]]
kind = "git"
[components.beta]
path = "models/beta"
[baseline]
url = "{url}"
branch = "main"
commit = "{commit}"
[pin]
url = "{url}"
branch = "main"
commit = "{commit}"
[components]
alpha = {{ path = "models/alpha" }}
""",
    "in few lines": """\
schema = 1
pin = {{ url = "{url}", branch = "main", commit = "{commit}" }}
baseline.url = "{url}"
baseline.branch = "main"
baseline.commit = "{commit}"
components.alpha.path = "models/alpha"
components.beta.path = "models/beta"
sources = [{{ kind = "git" }}]
patches = [{{ file = "patches/core.patch" }}, {{ file = "patches/net.patch" }}]
""",
}


@pytest.mark.parametrize("text", OTHERWISE.values(), ids=OTHERWISE)
def test_a_lock_may_be_written_in_any_way_that_toml_has(text: str, unfetched: Project) -> None:
    before = load(unfetched.root)
    unfetched.lock.write_text(text.format(url=unfetched.upstream.as_uri(), commit=unfetched.commit), encoding="utf-8")
    lock(unfetched)
    after = load(unfetched.root)
    assert (after.pin, after.baseline, after.sources) == (before.pin, before.baseline, before.sources)
    assert {*after.files} == {*before.files}
    assert {*after.patches} == {*before.patches}
    lock(unfetched, "--check")
    lines = unfetched.lock.read_text(encoding="utf-8").splitlines()
    assert "# On the patches." not in lines or lines[lines.index("# On the patches.") + 1] == "[[patches]]"


def test_a_component_path_that_is_a_file_is_an_error_in_words(project: Project) -> None:
    text = project.lock.read_text().replace('path = "models/beta"', 'path = "models/beta/net.py"')
    project.lock.write_text(text)
    assert "models/beta/net.py, is no folder there" in project.run("lock", code=5).stderr


def test_a_bundle_serves_a_pin_that_is_no_longer_a_tip(project: Project, tmp_path: Path) -> None:
    git("commit", "-q", "--allow-empty", "-m", "later", cwd=project.upstream)
    git("bundle", "create", "-q", tmp_path / "all.bundle", "--all", cwd=project.upstream)
    assert project.json("lock", "--upstream", tmp_path / "all.bundle")["changed"] is False
