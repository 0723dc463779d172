"""Tests `audit`: the comparison of three versions, other checkouts, the check of claims, and the HTML page."""

import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.tools.conftest import CORE, EDITED, EXTRA, FILES, NET, Project, git, make_project, make_upstream, write
from tools.apply import read_patches
from tools.docs import DOCUMENTS
from tools.files import sha256
from tools.lock import ABSENT, Pin, dump, load

INIT, EMPTY = "models/alpha/__init__.py", "models/beta/__init__.py"
# The app's files: it changed one that we patch and one that we do not, and lacks one.
OTHER_NET = b"import math\n\n\ndef area(r):\n    # rounded\n    return 3.1416 * r * r\n"
OTHER_INIT = b"from .core import scale\n\n__all__ = ['scale']\n"
APP = {path: data for path, data in FILES.items() if path != EXTRA} | {NET: OTHER_NET, INIT: OTHER_INIT}
OURS = {**FILES, **EDITED}
DATE = "2026-01-02T03:04:05+00:00"


def make_audited(where: Path, **more: Any) -> Project:
    """A vendored project with documents, all up to date; its baseline is the repository `where`/app."""
    project = make_project(where, **more)
    commit = make_upstream(where / "app", {**APP, "app.py": b"import models\n"})
    git("tag", "-m", "first", "v1", cwd=where / "app")
    project.decide(baseline=Pin((where / "app").as_uri(), "main", commit))
    (project.root / "docs").mkdir()
    for name in DOCUMENTS:
        parts = "".join(f"<!-- computed: {part} -->\n<!-- end -->\n\n" for part in ("pins", "files", "patches"))
        (project.root / name).write_text(f"# Title\n\n{parts}", encoding="utf-8")
    project.run("lock")
    project.run("vendor")
    return project


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One project for all tests, which only read and copy it."""
    project = make_audited(tmp_path_factory.mktemp("audited"))
    project.run("audit")
    return project


@pytest.fixture
def audited(whole: Project, tmp_path: Path) -> Project:
    return whole.copied(tmp_path)


@pytest.fixture
def alone(tmp_path: Path) -> Project:
    """A project with its own repositories."""
    return make_audited(tmp_path)


def by_path(body: Any) -> dict[str, Any]:
    return {file["path"]: file for file in body["files"]}


# --- Three versions ---


def test_every_file_has_a_status_and_three_hashes(audited: Project) -> None:
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
    write(audited.tree, {EXTRA: b"# something\n", NET: FILES[NET]})
    edited = by_path(audited.json("audit"))
    assert [edited[path]["status"][0] for path in (EXTRA, NET, CORE)] == ["different", "unchanged", "patched"]


def test_the_table_counts_lines_as_git_does_and_fits_80_columns(audited: Project) -> None:
    lines = audited.run("audit").stdout.splitlines()
    assert [" ".join(line.split()) for line in lines[1:8]] == [
        "models/alpha",
        "__init__.py = +2 -0 +0 -2 unchanged",
        "core.py +1 -2 = +1 -2 patched",
        "extra.py = absent absent unchanged",
        "models/beta",
        "__init__.py = = = unchanged",
        "net.py +1 -1 +2 -1 +1 -2 patched",
    ]
    commit = load(audited.root).baseline.commit
    assert f"the baseline {commit[:7]} differs from upstream in 2 of 5 files, 1 unchanged here" in lines
    assert max(map(len, lines)) <= 80


def test_a_missing_tree_counts_as_the_lock_has_it(audited: Project, tmp_path: Path) -> None:
    whole = by_path(audited.json("audit"))
    files = by_path(audited.json("audit", "--dest", tmp_path / "nowhere"))
    assert {file["status"][0] for file in files.values()} == {"not vendored"}
    assert {path: file["sha256"] for path, file in files.items()} == {p: file["sha256"] for p, file in whole.items()}


def test_an_extras_patch_counts_only_in_a_tree_with_the_extra(tmp_path: Path) -> None:
    audited = make_audited(tmp_path, extras={"round": ["net.patch"]})
    assert by_path(audited.json("audit"))[NET]["status"][0] == "unchanged"
    audited.run("vendor", "--extras", "round", "--dest", tmp_path / "other")
    assert by_path(audited.json("audit", "--dest", tmp_path / "other"))[NET]["status"][0] == "patched"
    audited.run("audit", "--check")


# --- The baseline ---


def test_without_the_baselines_repository_the_locks_hashes_give_the_status(alone: Project) -> None:
    app = alone.upstream.parent / "app"
    whole = by_path(alone.json("audit", "--baseline-from", app))
    shutil.rmtree(alone.store)
    away = app.rename(app.with_name("elsewhere"))
    files = by_path(alone.json("audit"))
    assert {path: file["status"] for path, file in files.items()} == {path: f["status"] for path, f in whole.items()}
    assert "upstream_baseline" not in files[NET]["diffs"]
    done = alone.run("audit", "--dest", alone.tree).stdout
    assert re.search(r"net.py +\+1 -1 +differs +differs +patched", done)
    assert done.count(f"next: python -m tools audit --dest {alone.tree} --baseline-from PATH") == 1
    for place in (away, away.as_uri()):
        assert by_path(alone.json("audit", "--baseline-from", place)) == whole


def test_the_baseline_may_be_another_commit_branch_or_tag(alone: Project) -> None:
    app, first = alone.upstream.parent / "app", load(alone.root).baseline.commit
    git("checkout", "-q", "-b", "next", cwd=app)
    later = replace(alone, upstream=app).advance({NET: b"PI = 3\n"})
    for name, commit, data in (("v1", first, OTHER_NET), ("next", later, b"PI = 3\n"), (first[:9], first, OTHER_NET)):
        body = alone.json("audit", "--baseline", name)
        assert (body["baseline"], by_path(body)[NET]["sha256"]["baseline"]) == (commit, sha256(data))
    for name in ("ma*", "1234567"):
        assert f"no branch, tag or commit is called '{name}'" in alone.run("audit", "--baseline", name, code=2).stderr
    shutil.rmtree(app)
    said = alone.run("audit", "--baseline", "next", code=5).stderr
    assert f"next: git config --global url.FOLDER.insteadOf {app.as_uri()}" in said


# --- Any checkout ---


def test_each_file_of_any_checkout_is_named_by_what_it_equals(audited: Project, tmp_path: Path) -> None:
    windows = {EXTRA: FILES[EXTRA].replace(b"\n", b"\r\n"), INIT: OTHER_INIT.replace(b"\n", b"\r\n")}
    write(tmp_path / "checkout", {CORE: EDITED[CORE], NET: OTHER_NET + b"# mine\n", **windows})
    files = by_path(audited.json("audit", "--dest", tmp_path / "checkout"))
    assert {path: file["status"][0] for path, file in files.items()} == {
        INIT: "as the baseline",
        CORE: "patched",
        EXTRA: "unchanged",
        EMPTY: "not vendored",
        NET: "different",
    }


# --- Claims ---


def test_each_false_claim_of_the_lock_is_reported(audited: Project) -> None:
    lock, old, false = load(audited.root), "2020-01-02T03:04:05+00:00", sha256(FILES[INIT])
    claims = {EMPTY: {"upstream": false}, CORE: {"baseline": false}, NET: {"patched": false}}
    files = tuple(attrs.evolve(f, **claims.get(f.path, {})) for f in lock.files if f.path != EXTRA)
    pins = {name: attrs.evolve(getattr(lock, name), date=old) for name in ("pin", "baseline")}
    audited.lock.write_bytes(dump(attrs.evolve(lock, files=files, **pins)))
    for name in DOCUMENTS:
        (audited.root / name).unlink()
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


def test_stale_documents_and_unknown_ids_in_prose_are_reported(audited: Project) -> None:
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


def test_a_second_run_asks_nobody_and_what_could_not_be_checked_is_a_line_each_and_exit_5(alone: Project) -> None:
    first = alone.json("audit")
    shutil.rmtree(alone.upstream.parent / "app")
    body = alone.json("audit", "--check", code=5)
    assert body["not_checked"][0].startswith(f"not checked: baseline {load(alone.root).baseline.commit[:12]}: git ")
    alone.alone()
    assert len(alone.json("audit", "--check", code=5)["not_checked"]) == 2
    assert alone.json("audit", "--offline") == first


# --- The page ---

# Text that a careless page would take for markup, a template or the end of a line.
HOSTILE = (
    b"</script><script>alert(1)</script>\n<b title='\"'>{{ 7 * 7 }}</b>\r\n"
    b"'''\n<!-- \x0c \x1b[31m --> & \xe2\x80\xae\n-- \n\n'''"
)


def page(project: Project) -> str:
    project.run("audit", "--html", "1")
    return (project.root / "build/audit/index.html").read_text(encoding="utf-8")


def test_the_page_is_reproducible_and_loads_nothing(audited: Project) -> None:
    first = page(audited)
    assert page(audited) == first
    assert not re.search(r"<(script|img|iframe)|url\(|@import|(src|href)=\"(?!#|data:,)", first)
    ids = re.findall(r' id="([^"]+)"', first)
    assert len(ids) == len(set(ids))
    # All but the filter have links: the top, 5 files, a view for each difference (net.py in three pairs, three other
    # files in two), and each change, from the one before and the one after.
    assert set(re.findall(r'href="#([^"]+)"', first)) == {*ids} - {"only"}
    assert len([name for name in ids if ".py." in name]) == 3 + 2 + 2 + 2


def test_the_page_shows_the_views_of_each_changed_file(audited: Project) -> None:
    sections = re.findall(r'<section class="file(.*?)" id="(\S+)">(.*?)</section>', page(audited), flags=re.DOTALL)
    shown = {path: (more, re.findall("<summary><strong>(.*?)</strong>", text)) for more, path, text in sections}
    assert shown == {
        "models-alpha-__init__.py": (" changed", ["Move", "App’s change"]),
        "models-alpha-core.py": (" changed", ["Move", "Our patch"]),
        "models-alpha-extra.py": (" changed", ["Move", "App’s change"]),
        "models-beta-__init__.py": ("", []),
        "models-beta-net.py": (" changed", ["Move", "Our patch", "App’s change"]),
    }


def test_the_page_marks_changed_words_and_describes_patches(audited: Project) -> None:
    text = page(audited)
    view = text.partition('id="models-beta-net.py.baseline.vendored"')[2].partition("</details>")[0]
    assert re.findall("<b[^>]*>(.*?)</b>", view) == ["3.1416", "math.pi"]
    patch = read_patches(audited.root, load(audited.root).patched)[NET]
    assert f"{patch.name}</code> of <time>2026-01-31</time>: <strong>{patch.header['Description']}</strong>" in text


def test_html_names_the_page_which_overwrites_no_other_file(audited: Project, tmp_path: Path) -> None:
    for asked, made in (("a b/page.html", "a b/page.html"), ("a b", "a b/index.html"), ("new/", "new/index.html")):
        audited.run("audit", "--html", f"{tmp_path}/{asked}")
        assert (tmp_path / made).read_text(encoding="utf-8") == page(audited)
    write(tmp_path, {"mine.html": b"mine"})
    assert "is no audit page" in audited.run("audit", "--html", tmp_path / "mine.html", code=2).stderr
    assert (tmp_path / "mine.html").read_bytes() == b"mine"


def test_the_page_shows_every_line_of_both_sides_as_text(audited: Project) -> None:
    write(audited.tree, {NET: HOSTILE, CORE: b""})
    text = page(audited)
    assert "<script" not in text
    versions = {"upstream": FILES, "baseline": APP, "vendored": {**OURS, NET: HOSTILE, CORE: b""}}
    views = re.findall(
        r'id="([^".]+\.py)\.(\w+)\.(\w+)">.*?<div class="diff">(.*?)\n</details>\n(?=<details|</sec)',
        text,
        flags=re.DOTALL,
    )
    assert len(views) == 3 + 2 + 2 + 2
    for name, old, new, view in views:
        sides: dict[str, list[str]] = {old: [], new: []}
        for row in re.split("<tr(?!><th)", view)[1:]:
            row = row.partition("</table>")[0]
            cells = [re.sub("<[^>]+>", "", cell.partition(">")[2]) for cell in row.split("<td")[1:]]
            left, one, right, other = cells if len(cells) == 4 else (cells[0], cells[2], cells[1], cells[2])
            sides[old] += [f"{left}:{unescape(one)}"] if left else []
            sides[new] += [f"{right}:{unescape(other)}"] if right else []
        for side, lines in sides.items():
            text = versions[side].get(name.replace("-", "/"), b"").decode().replace("\r", "\u240d")
            text = re.sub("[\0-\x08\x0b-\x1f\u202e]", "\ufffd", text)
            text += "no newline at the end\n" if text[-1:] not in ("", "\n") else ""
            due = [f"{number}:{line}" for number, line in enumerate(text.split("\n")[:-1], 1)]
            assert [line.removesuffix("\n") for line in lines] == due
