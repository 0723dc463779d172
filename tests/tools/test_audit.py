"""`audit`: three versions of every file, any checkout, every claim held against the bytes, and the page."""

import re
import shutil
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.tools.conftest import EDITED, FILES, Project, git, make_project, make_upstream, write, write_decisions
from tools import docs
from tools.apply import read_patches
from tools.cli import verb_lines
from tools.files import sha256
from tools.lock import ABSENT, Branch, Pin, dump, load

CORE, EXTRA, INIT, NET = (f"models/{name}.py" for name in ("alpha/core", "alpha/extra", "alpha/__init__", "beta/net"))
EMPTY = "models/beta/__init__.py"
# What the app had made of upstream's files: one changed that we patch, one changed that we do not, one not there.
OTHER_NET = b"import math\n\n\ndef area(r):\n    # rounded\n    return 3.1416 * r * r\n"
OTHER_INIT = b"from .core import scale\n\n__all__ = ['scale']\n"
APP = {path: data for path, data in FILES.items() if path != EXTRA} | {NET: OTHER_NET, INIT: OTHER_INIT}
OURS = {**FILES, **EDITED}
DATE = "2026-01-02T03:04:05+00:00"


def relock(project: Project, entries: Mapping[str, Mapping[str, str]], without: str = "", **pins: Any) -> None:
    """A lock that says something else, computed as a lock is, and documents that follow it."""
    lock = load(project.root)
    files = [attrs.evolve(it, **entries.get(it.path, {})) for it in lock.files if it.path != without]
    lock = attrs.evolve(lock, files=tuple(files), **pins)
    write_decisions(project.root, lock.decisions)
    project.lock.write_bytes(dump(lock))
    patches = read_patches(project.root, lock.patched)
    for name, data in docs.stale(project.root, lock, patches, verb_lines()).items():
        (project.root / name).write_bytes(data)


def make_audited(where: Path, **more: Any) -> Project:
    """A vendored project whose baseline is a repository of its own, `where`/app, with documents; all up to date."""
    project = make_project(where, **more)
    commit = make_upstream(where / "app", {**APP, "app.py": b"import models\n"})
    git("tag", "-m", "first", "v1", cwd=where / "app")
    remote: Any = Branch((where / "app").as_uri(), "main", commit)
    decisions = attrs.evolve(load(project.root).decisions, baseline=remote)
    for name in docs.DOCUMENTS:
        parts = "".join(f"<!-- computed: {part} -->\n<!-- end -->\n\n" for part in ("pins", "files", "patches"))
        (project.root / name).write_text(f"# Title\n\n{parts}", encoding="utf-8")
    entries = {path: {"baseline": sha256(APP[path])} for path in (INIT, NET)} | {EXTRA: {"baseline": ABSENT}}
    relock(project, entries, decisions=decisions, baseline=Pin(remote.url, "main", remote.commit, DATE))
    project.run("vendor")
    return project


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One for all tests, which read it and copy it."""
    project = make_audited(tmp_path_factory.mktemp("audited"))
    project.run("audit")
    return project


@pytest.fixture
def audited(whole: Project, tmp_path: Path) -> Project:
    """A copy of it; both repositories are shared."""
    shutil.copytree(whole.root, tmp_path / "project")
    shutil.copytree(whole.store, tmp_path / "store")
    return Project(tmp_path / "project", whole.upstream, whole.commit, tmp_path / "store")


@pytest.fixture
def alone(tmp_path: Path) -> Project:
    """One with repositories of its own."""
    return make_audited(tmp_path)


def app(project: Project) -> Path:
    return project.upstream.parent / "app"


def by_path(body: Any) -> dict[str, Any]:
    return {file["path"]: file for file in body["files"]}


# --- Three versions ---


def test_every_file_has_its_words_and_hashes(audited: Project) -> None:
    files = by_path(audited.json("audit"))
    assert {path: file["status"] for path, file in files.items()} == {
        INIT: ["unchanged", "baseline differs"],
        CORE: ["patched", "baseline agrees"],
        EXTRA: ["unchanged", "baseline lacks it"],
        EMPTY: ["unchanged", "baseline agrees"],
        NET: ["patched", "baseline differs"],
    }
    for path, file in files.items():
        found = [FILES[path], APP.get(path), OURS[path]]
        assert list(file["sha256"].values()) == [ABSENT if data is None else sha256(data) for data in found]


def test_the_table_counts_lines_as_git_does_and_fits_80_columns(audited: Project) -> None:
    lines = audited.run("audit").stdout.splitlines()
    assert [line.split() for line in lines[1:8]] == [
        ["models/alpha"],
        ["__init__.py", "=", "+2", "-0", "+0", "-2", "unchanged"],
        ["core.py", "+1", "-2", "=", "+1", "-2", "patched"],
        ["extra.py", "=", "absent", "absent", "unchanged"],
        ["models/beta"],
        ["__init__.py", "=", "=", "=", "unchanged"],
        ["net.py", "+1", "-1", "+2", "-1", "+1", "-2", "patched"],
    ]
    commit = load(audited.root).baseline.commit
    assert f"the baseline {commit[:7]} differs from upstream in 2 of 5 files, 1 unchanged here" in lines
    assert max(map(len, lines)) <= 80


def test_an_edited_file_is_called_so(audited: Project) -> None:
    write(audited.tree, {EXTRA: b"# something\n", NET: FILES[NET]})
    files = by_path(audited.json("audit"))
    assert [files[path]["status"][0] for path in (EXTRA, NET, CORE)] == ["edited", "edited", "patched"]


def test_what_is_not_vendored_is_what_the_lock_promises(audited: Project, tmp_path: Path) -> None:
    whole = by_path(audited.json("audit"))
    files = by_path(audited.json("audit", "--dest", tmp_path / "nowhere"))
    assert {file["status"][0] for file in files.values()} == {"not vendored"}
    assert {path: file["sha256"] for path, file in files.items()} == {p: file["sha256"] for p, file in whole.items()}
    (audited.root / "patches" / "net.patch").write_bytes(b"")
    done = audited.run("audit", "--dest", tmp_path / "nowhere", code=4)
    assert "patches/net.patch is not the file the lock names" in done.stderr


def test_the_patch_of_an_extra_counts_where_it_was_asked_for(tmp_path: Path) -> None:
    audited = make_audited(tmp_path, extras={"round": ["net.patch"]})
    assert by_path(audited.json("audit"))[NET]["status"][0] == "unchanged"
    audited.run("vendor", "--extras", "round", "--dest", tmp_path / "other")
    assert by_path(audited.json("audit", "--dest", tmp_path / "other"))[NET]["status"][0] == "patched"
    assert audited.json("audit", "--tree", tmp_path / "other")["checkout"][NET] == "extra round"
    audited.run("audit", "--check")


# --- The baseline ---


def test_without_the_baselines_repository_the_locks_hashes_give_every_status(alone: Project) -> None:
    whole = by_path(alone.json("audit", "--baseline-from", app(alone)))
    shutil.rmtree(alone.store)
    away = app(alone).rename(alone.root.parent / "elsewhere")
    files = by_path(alone.json("audit"))
    assert {path: file["status"] for path, file in files.items()} == {path: f["status"] for path, f in whole.items()}
    assert "upstream_baseline" not in files[NET]["diffs"]
    done = alone.run("audit", "--dest", alone.tree).stdout
    assert re.search(r"net.py +\+1 -1 +differs +differs +patched", done)
    assert done.count("the baseline's diffs are missing") == 1
    assert done.count(f"next: python -m tools audit --dest {alone.tree} --baseline-from PATH") == 1
    for place in (away, away.as_uri()):
        assert by_path(alone.json("audit", "--baseline-from", place)) == whole


def test_a_second_run_asks_nobody(alone: Project) -> None:
    first = alone.json("audit")
    alone.alone()
    shutil.rmtree(app(alone))
    assert alone.json("audit", "--offline") == first


def test_the_baseline_may_be_another_commit_branch_or_tag(alone: Project) -> None:
    first = load(alone.root).baseline.commit
    git("checkout", "-q", "-b", "next", cwd=app(alone))
    write(app(alone), {NET: b"PI = 3\n"})
    git("commit", "-q", "-a", "-m", "later", cwd=app(alone))
    later = git("rev-parse", "HEAD", cwd=app(alone)).strip()
    for name, commit, data in (("v1", first, OTHER_NET), ("next", later, b"PI = 3\n"), (first[:9], first, OTHER_NET)):
        body = alone.json("audit", "--baseline", name)
        assert (body["baseline"], by_path(body)[NET]["sha256"]["baseline"]) == (commit, sha256(data))


def test_a_revision_that_means_nothing_is_exit_2_and_one_that_cannot_be_read_exit_5(alone: Project) -> None:
    for name in ("ma*", "1234567"):
        assert f"no branch, tag or commit is called '{name}'" in alone.run("audit", "--baseline", name, code=2).stderr
    alone.run("audit", "--baseline", "0" * 40, code=5)
    shutil.rmtree(app(alone))
    done = alone.run("audit", "--baseline", "next", code=5)
    assert app(alone).as_uri() in done.stderr
    assert f"next: git config --global url.FOLDER.insteadOf {app(alone).as_uri()}" in done.stderr


# --- Any checkout ---


@pytest.mark.parametrize("inside", ["", "models"])
def test_a_checkout_is_told_file_by_file_in_both_layouts(inside: str, audited: Project, tmp_path: Path) -> None:
    windows = {EXTRA: FILES[EXTRA].replace(b"\n", b"\r\n"), INIT: OTHER_INIT.replace(b"\n", b"\r\n")}
    write(tmp_path / "checkout", {CORE: EDITED[CORE], NET: OTHER_NET + b"# mine\n", **windows})
    assert audited.json("audit", "--tree", tmp_path / "checkout" / inside)["checkout"] == {
        INIT: "baseline",
        CORE: "vendored",
        EXTRA: "upstream, vendored",
        EMPTY: "missing",
        NET: "different",
    }


# --- Claims ---


def test_each_false_claim_of_the_lock_is_a_line(audited: Project) -> None:
    lock = load(audited.root)
    old = "2020-01-02T03:04:05+00:00"
    pins = {"pin": attrs.evolve(lock.pin, date=old), "baseline": attrs.evolve(lock.baseline, date=old)}
    false = sha256(FILES[INIT])
    relock(audited, {EMPTY: {"upstream": false}, CORE: {"baseline": false}, NET: {"patched": false}}, EXTRA, **pins)
    done = audited.run("audit", "--check", code=1)
    both = ("upstream", "baseline")
    due = [
        *(f"upstream.lock: date of {name}: claimed '{old}', actual '{DATE}'" for name in both),
        f"upstream.lock: {EMPTY} of upstream: claimed '{false}', actual '{sha256(b'')}'",
        f"upstream.lock: {CORE} of baseline: claimed '{false}', actual '{sha256(FILES[CORE])}'",
        f"upstream.lock: {EXTRA} of upstream: claimed 'absent', actual '{sha256(FILES[EXTRA])}'",
        f"{NET} is not what the lock says; expected SHA-256 {false}; actual SHA-256   {sha256(EDITED[NET])}",
    ]
    assert sorted(line.strip() for line in done.stderr.splitlines() if line.startswith("  ")) == sorted(due)


def test_a_stale_document_and_an_id_in_prose_that_is_not_the_locks_are_found(audited: Project) -> None:
    path, lock = audited.root / "README.md", load(audited.root)
    text = path.read_text(encoding="utf-8")
    true = f"`{lock.baseline.commit[:7]}` {lock.pin.commit} {sha256(FILES[INIT])}, no id: {'9' * 41} 1234567\n"
    path.write_text(text + true, encoding="utf-8")
    assert "all claims of the lock and the documents hold" in audited.run("audit", "--check").stdout
    stale = text.replace("agrees", "differs")
    path.write_text(f"{stale}`deadbeefcafe`\n{'ab' * 20}\n{'cd' * 32}\n.../commit/{'ef' * 20}/x\n", encoding="utf-8")
    said = audited.run("audit", "--check", code=1).stderr
    assert said.count("no id in upstream.lock") == 4
    assert "README.md: its computed parts are stale" in said


def test_what_could_not_be_checked_is_a_line_each_and_exit_5(alone: Project) -> None:
    alone.run("audit")
    shutil.rmtree(app(alone))
    body = alone.json("audit", "--check", code=5)
    assert body["not_checked"][0].startswith(f"not checked: baseline {load(alone.root).baseline.commit[:12]}: git ")
    alone.alone()
    assert len(alone.json("audit", "--check", code=5)["not_checked"]) == 2
    alone.decide(upstream=Branch("https://example.org/a.git", "main"))  # type: ignore[arg-type]
    relock(alone, {})
    [line] = [line for line in alone.run("audit", "--check", "--offline", code=5).stderr.splitlines() if "exam" in line]
    assert line.endswith("not asked, offline")


# --- The page ---

# What a careless page would take for markup, a template, or something that ends a line.
HOSTILE = (
    b"</script><script>alert(1)</script>\n<b title='\"'>{{ 7 * 7 }}</b>\r\n"
    b"'''\n<!-- \x0c \x1b[31m --> & \xe2\x80\xae\n-- \n\n'''"
)


def page(project: Project) -> str:
    project.run("audit", "--html")
    return (project.root / "build/audit/index.html").read_text(encoding="utf-8")


def test_the_page_is_the_same_each_time_and_asks_nobody(audited: Project) -> None:
    first = page(audited)
    assert page(audited) == first
    assert not re.search(r"<(script|img|iframe)|url\(|@import|(src|href)=\"(?!#|data:,)", first)
    ids = re.findall(r' id="([^"]+)"', first)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r'href="#([^"]+)"', first))
    # A section for each file, and a view for each difference: net.py in three pairs, two other files in two.
    assert links == set(ids)
    assert len(links) == 5 + 3 + 2 + 2


def test_the_page_shows_every_line_of_both_sides_as_text(audited: Project) -> None:
    write(audited.tree, {NET: HOSTILE, CORE: b""})
    text = page(audited)
    assert "<script" not in text
    versions = {"upstream": FILES, "baseline": APP, "vendored": {**OURS, NET: HOSTILE, CORE: b""}}
    views = re.findall(r'id="([^".]+\.py)\.(\w+)\.(\w+)">.*?<div class="diff">(.*?)</div>', text, flags=re.DOTALL)
    assert len(views) == 3 + 2 + 2
    for name, old, new, view in views:
        sides: dict[str, list[str]] = {old: [], new: []}
        for row in re.split("<tr", view)[1:]:
            row = row.partition("</table>")[0]
            cells = [re.sub("<[^>]+>", "", cell.partition(">")[2]) for cell in row.split("<td")[1:]]
            left, one, right, other = cells if len(cells) == 4 else (cells[0], cells[2], cells[1], cells[2])
            sides[old] += [f"{left}:{unescape(one)}"] if left else []
            sides[new] += [f"{right}:{unescape(other)}"] if right else []
        for side, lines in sides.items():
            text = versions[side][name.replace("-", "/")].decode().replace("\r", "\u240d")
            text += "no newline at the end\n" if text[-1:] not in ("", "\n") else ""
            due = [f"{number}:{line}" for number, line in enumerate(text.split("\n")[:-1], 1)]
            assert [line.removesuffix("\n") for line in lines] == due
