"""`audit`: three versions of every file, any checkout beside them, and every claim held against the bytes."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.auditing import (
    APP,
    CORE,
    EXTRA,
    HOSTILE,
    INIT,
    NET,
    OTHER_INIT,
    OTHER_NET,
    audit,
    make_audited,
    page,
    run,
)
from tests.tools.conftest import EDITED, FILES, Project, git, write
from tools.audit import STATUS_WORDS, Comparison, FileAudit, Side, line_counts
from tools.audit_page import NO_NEWLINE, chunks, web_page
from tools.audit_page import page as laid_out
from tools.git import Scratch
from tools.hashes import blob_id, sha256
from tools.lock import load


def report(project: Project, *arguments: str | Path, code: int = 0) -> Any:
    return json.loads(audit(project, *arguments, "--json", code=code).stdout)


def by_path(body: Any) -> dict[str, Any]:
    return {file["path"]: file for file in body["files"]}


@pytest.fixture(scope="session")
def audited_template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One for the whole run. Never change it."""
    return make_audited(tmp_path_factory.mktemp("audited"))


@pytest.fixture
def audited(audited_template: Project, tmp_path: Path) -> Project:
    """A copy of it, with a baseline repository of its own and an empty store."""
    where = audited_template.root.parent
    for name in ("project", "app"):
        shutil.copytree(where / name, tmp_path / name, symlinks=True)
    project = Project(tmp_path / "project", where / "upstream", audited_template.commit, tmp_path / "store")
    edit(project, (where / "app").as_uri(), (tmp_path / "app").as_uri())
    run(project, "lint", "--write")
    return project


def edit(project: Project, old: str, new: str) -> None:
    text = project.lock.read_text(encoding="utf-8")
    assert old in text
    project.lock.write_text(text.replace(old, new, 1), encoding="utf-8")


def app(project: Project) -> Path:
    return project.root.parent / "app"


def steps(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line.removeprefix("next: ") for line in done.stderr.splitlines() if line.startswith("next: ")]


# Three versions.


def test_every_file_has_its_words_and_blobs(audited: Project) -> None:
    body = report(audited)
    assert (body["schema"], body["verb"], body["ok"]) == (1, "audit", True)
    lock = load(audited.root)
    assert body["pins"] == {
        "upstream": {"url": lock.pin.url, "commit": lock.pin.commit},
        "baseline": {"url": lock.baseline.url, "commit": lock.baseline.commit},
    }
    assert [file["path"] for file in body["files"]] == list(FILES)
    files = by_path(body)
    assert {path: file["status"] for path, file in files.items()} == {
        INIT: ["unchanged", "baseline differs"],
        CORE: ["patched", "baseline agrees"],
        EXTRA: ["unchanged", "baseline lacks it"],
        "models/beta/__init__.py": ["unchanged", "baseline agrees"],
        NET: ["patched", "baseline differs"],
    }
    for path, file in files.items():
        assert file["blobs"] == {
            "upstream": blob_id(FILES[path]),
            "baseline": blob_id(APP[path]) if path in APP else None,
            "vendored": blob_id(EDITED.get(path, FILES[path])),
        }


def test_the_comparisons_count_lines_as_git_does(audited: Project, tmp_path: Path) -> None:
    files = by_path(report(audited))
    versions = {"upstream": FILES, "baseline": APP, "vendored": {**FILES, **EDITED}}
    assert {name for file in files.values() for name in file["comparisons"]} == {
        "upstream_vendored",
        "upstream_baseline",
        "baseline_vendored",
    }
    for path, file in files.items():
        for name, found in file["comparisons"].items():
            old, new = (versions[side].get(path) for side in name.split("_"))
            if old is None or new is None:
                assert found is None
                continue
            (tmp_path / "old").write_bytes(old)
            (tmp_path / "new").write_bytes(new)
            done = subprocess.run(
                ["git", "diff", "--no-index", "--numstat", "--minimal", "old", "new"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            counts = done.stdout.split("\t")[:2] or ["0", "0"]
            assert [str(found["added"]), str(found["removed"])] == (counts if done.stdout else ["0", "0"]), (path, name)
            assert bool(found["diff"]) == (old != new)


def test_lines_that_look_like_headers_are_counted() -> None:
    with Scratch() as scratch:
        diff = scratch.diff("a.py", b"-- one\n@@ two\n", b"++ three\n@@ two\n+++ four\n", 3)
    assert line_counts(diff) == (2, 1)
    assert line_counts("") == (0, 0)


def test_the_table_says_it_on_the_terminal(audited: Project) -> None:
    text = audit(audited).stdout
    assert re.search(r"^models/alpha\n  __init__\.py +\w{7} +\w{7} +\w{7} +=  +\+2 -0 +\+0 -2 +unchanged, ", text, re.M)
    assert re.search(r"^  extra\.py +\w{7} +- +\w{7} +=  +-  +-  +unchanged, baseline lacks it$", text, re.M)
    commit = load(audited.root).baseline.commit
    line = f"the baseline {commit[:12]} differs from upstream in 2 of 5 files, 1 of them unchanged here"
    assert line in text.splitlines()


def test_an_edited_file_is_called_so(audited: Project) -> None:
    (audited.tree / EXTRA).write_bytes(b"# something\n")
    (audited.tree / NET).write_bytes(FILES[NET])
    files = by_path(report(audited))
    assert files[EXTRA]["status"] == ["edited", "baseline lacks it"]
    assert files[EXTRA]["blobs"]["vendored"] == blob_id(b"# something\n")
    assert files[NET]["status"] == ["edited", "baseline differs"]
    assert files[NET]["comparisons"]["upstream_vendored"]["diff"] == ""


def test_what_is_not_vendored_is_what_the_lock_promises_and_said(audited: Project, tmp_path: Path) -> None:
    whole = by_path(report(audited))
    (audited.tree / NET).unlink()
    files = by_path(report(audited))
    assert files[NET]["status"] == ["patched", "not vendored", "baseline differs"]
    assert files[CORE]["status"] == whole[CORE]["status"]
    files = by_path(report(audited, "--dest", tmp_path / "nowhere"))
    assert all("not vendored" in file["status"] for file in files.values())
    assert {path: file["blobs"] for path, file in files.items()} == {path: f["blobs"] for path, f in whole.items()}
    assert "5 files are not vendored" in audit(audited, "--dest", tmp_path / "nowhere").stdout


def test_a_promise_that_cannot_be_kept_is_the_patchs_own_error(audited: Project) -> None:
    path = audited.root / "patches" / "net.patch"
    path.write_bytes(path.read_bytes().replace(b"math.pi", b"math.tau"))
    audit(audited)
    shutil.rmtree(audited.tree)
    assert "patches/net.patch is not the file the lock names" in audit(audited, code=4).stderr


# What cannot be had.


def test_without_the_baselines_repository_the_lock_tells_every_status_and_only_diffs_are_missing(
    audited: Project,
) -> None:
    whole = by_path(report(audited))
    app(audited).rename(audited.root.parent / "elsewhere")
    shutil.rmtree(audited.store)
    files = by_path(report(audited))
    assert {path: file["status"] for path, file in files.items()} == {
        path: file["status"] for path, file in whole.items()
    }
    assert {path: file["blobs"] for path, file in files.items()} == {
        path: file["blobs"] for path, file in whole.items()
    }
    for path in (INIT, NET):
        assert files[path]["comparisons"]["upstream_vendored"] == whole[path]["comparisons"]["upstream_vendored"]
        assert files[path]["comparisons"]["upstream_baseline"] is None
    # Upstream has the same bytes.
    assert files[CORE] == whole[CORE]
    done = audit(audited)
    [line] = [
        line for line in done.stdout.splitlines() if line.startswith("the baseline's diffs of 2 files are missing")
    ]
    assert app(audited).as_uri() in line
    assert done.stdout.endswith(
        "next: make audit BASELINE_FROM=<path or URL of a clone of the baseline's repository>\n"
    )
    checkout = by_path(report(audited, "--tree", audited.upstream))
    assert checkout[NET]["status"][-1] == "is upstream"


def test_the_baseline_may_be_asked_for_elsewhere(audited: Project, tmp_path: Path) -> None:
    whole = by_path(report(audited))
    git("bundle", "create", "-q", tmp_path / "app.bundle", "--all", cwd=app(audited))
    app(audited).rename(tmp_path / "elsewhere")
    for copy in (tmp_path / "elsewhere", (tmp_path / "elsewhere").as_uri(), tmp_path / "app.bundle"):
        shutil.rmtree(audited.store)
        words = ("--baseline-from", copy, "--upstream", audited.upstream, "--offline")
        assert by_path(report(audited, *words)) == whole
    assert by_path(report(audited, "--baseline-from", tmp_path / "elsewhere", "--baseline", "v1")) == whole
    assert "warning: the baseline could not" in audit(audited, "--baseline-from", tmp_path / "nowhere").stderr


def test_of_a_revision_that_the_lock_does_not_know_all_is_unknown(audited: Project) -> None:
    shutil.rmtree(app(audited))
    done = audit(audited, "--baseline", "next", code=5)
    assert steps(done) == [
        f"reach {app(audited).as_uri()}, or make audit BASELINE_FROM=<path or URL of a clone of it>",
        "make audit, without BASELINE=next",
    ]
    [line] = [line for line in done.stderr.splitlines() if "baseline unknown" in line]
    assert app(audited).as_uri() in line
    assert NET in line
    # What is unknown is not counted as being the same.
    assert "whether the baseline next differs from upstream is unknown for all 5 files\n" in done.stdout


def test_offline_and_with_an_empty_store_all_is_unknown_but_the_tree(audited: Project) -> None:
    body = report(audited, "--offline", code=5)
    for file in body["files"]:
        assert file["blobs"]["upstream"] is None
        assert file["blobs"]["vendored"]
        assert "upstream unknown" in file["status"]
    assert any("offline" in line for line in body["details"])
    # The lock alone says which files the baseline has changed.
    assert " differs from upstream in 2 of 5 files" in audit(audited, "--offline", code=5).stdout
    done = audit(audited, "--offline", "--baseline", "main", code=5)
    assert "whether the baseline main differs from upstream is unknown for all 5 files\n" in done.stdout
    assert "0 of 0" not in done.stdout
    assert steps(done) == ["make audit, without OFFLINE=1", "make audit UPSTREAM=<clone or bundle of upstream>"]
    text = page(audited, "--offline", "--baseline", "main", code=5)
    assert "What the baseline has is unknown for 5." in text
    assert "No difference between upstream and the baseline" not in text


def test_upstream_that_cannot_be_had_is_null_and_the_baselines_copies_stand_in(audited: Project) -> None:
    shutil.rmtree(audited.tree)
    edit(audited, audited.upstream.as_uri(), "file:///nowhere")
    files = by_path(report(audited, code=5))
    # The same bytes, whoever has them.
    assert files[CORE]["blobs"]["upstream"] == blob_id(FILES[CORE])
    assert files[CORE]["blobs"]["vendored"] == blob_id(EDITED[CORE])
    assert files[NET]["blobs"] == {"upstream": None, "baseline": blob_id(OTHER_NET), "vendored": None}
    assert files[NET]["status"] == ["not vendored", "upstream unknown", "baseline differs"]
    done = audit(audited, code=5)
    assert "file:///nowhere" in done.stderr
    assert steps(done) == ["make audit UPSTREAM=<clone or bundle of upstream>"]
    assert report(audited, "--upstream", audited.upstream)["ok"]


def test_a_second_run_asks_nobody(audited: Project) -> None:
    first = audit(audited, "--json").stdout
    shutil.rmtree(app(audited))
    edit(audited, audited.upstream.as_uri(), "file:///nowhere")
    edit(audited, app(audited).as_uri(), "file:///nowhere")
    done = audit(audited, "--offline", "--json")
    assert by_path(json.loads(done.stdout)) == by_path(json.loads(first))


def test_what_is_in_the_store_keeps_its_origin(audited: Project) -> None:
    run(audited, "vendor", "--dest", audited.root.parent / "elsewhere")
    audit(audited)
    store = audited.store / "sha256"
    digest = sha256(FILES[CORE])
    origin = (store / digest[:2] / digest[2:]).with_suffix(".origin").read_text(encoding="utf-8")
    assert origin == f"git {audited.upstream.as_uri()}"


def test_a_lock_without_baseline_hashes_is_enough(audited: Project) -> None:
    text = audited.lock.read_text(encoding="utf-8")
    audited.lock.write_text(re.sub(r"(?m)^baseline(_sha256)? = \"\w+\"\n", "", text), encoding="utf-8")
    assert load(audited.root).files[0].baseline == ""
    assert by_path(report(audited))[NET]["blobs"]["baseline"] == blob_id(OTHER_NET)


# Another revision.


@pytest.mark.parametrize(
    "name", ["main", "next", "v1", "refs/heads/next", "refs/tags/v1", "{commit}", "{COMMIT}", "{short}", "{SHORT}"]
)
def test_the_baseline_may_be_another_commit_branch_or_tag(name: str, audited: Project) -> None:
    first = load(audited.root).baseline.commit
    git("checkout", "-q", "-b", "next", cwd=app(audited))
    write(app(audited), {NET: b"PI = 3\n"})
    git("add", "-A", cwd=app(audited))
    git("commit", "-q", "-m", "later", cwd=app(audited))
    later = git("rev-parse", "HEAD", cwd=app(audited)).strip()
    is_first = name not in ("next", "refs/heads/next", "{commit}", "{COMMIT}")
    ids = {"commit": later, "short": first[:7]}
    ids |= {key.upper(): id_.upper() for key, id_ in ids.items()}
    body = report(audited, "--baseline", name.format(**ids))
    assert body["pins"]["baseline"]["commit"] == (first if is_first else later)
    assert by_path(body)[NET]["blobs"]["baseline"] == blob_id(OTHER_NET if is_first else b"PI = 3\n")


def test_a_shortened_id_is_looked_for_in_the_baselines_branch(audited: Project) -> None:
    ids = []
    for number in range(3):
        write(app(audited), {NET: b"PI = %d\n" % number})
        git("commit", "-q", "-a", "-m", "later", cwd=app(audited))
        ids.append(git("rev-parse", "HEAD", cwd=app(audited)).strip())
    for short in (ids[1][:7], ids[1][:39].upper()):
        body = report(audited, "--baseline", short)
        assert body["pins"]["baseline"]["commit"] == ids[1]
        assert by_path(body)[NET]["blobs"]["baseline"] == blob_id(b"PI = 1\n")
    git("checkout", "-q", "--detach", cwd=app(audited))
    write(app(audited), {NET: b"PI = 4\n"})
    git("commit", "-q", "-a", "-m", "aside", cwd=app(audited))
    aside = git("rev-parse", "HEAD", cwd=app(audited)).strip()
    done = audit(audited, "--baseline", aside[:10], code=2)
    assert "a shortened id is looked for in main alone" in done.stderr
    assert steps(done) == [
        f"git ls-remote {app(audited).as_uri()}, to see what there is; a commit of another branch needs its full id"
    ]
    audit(audited, "--baseline", aside[:10], "--offline", code=5)
    shutil.rmtree(app(audited))
    assert by_path(report(audited, "--baseline", aside[:10], code=5))[NET]["status"] == ["patched", "baseline unknown"]


@pytest.mark.parametrize("name", ["nope", "ain", "ma*", "-x", "12ab"])
def test_a_revision_without_a_name_is_exit_2(name: str, audited: Project) -> None:
    done = audit(audited, f"--baseline={name}", code=2)
    assert re.search(rf"no (branch, tag or commit '{name}'|name of a branch)", done.stderr)
    assert app(audited).as_uri() in steps(done)[0]


def test_a_revision_that_cannot_be_asked_for_is_exit_5(audited: Project) -> None:
    body = report(audited, "--baseline", "0" * 40, code=5)
    assert by_path(body)[NET]["status"] == ["patched", "baseline unknown"]
    audit(audited, "--baseline", "main", "--offline", code=5)
    shutil.rmtree(app(audited))
    audit(audited, "--baseline", "main", code=5)


# Any checkout.


@pytest.mark.parametrize("inside", ["", "models"])
def test_a_checkout_is_told_file_by_file_in_both_layouts(inside: str, audited: Project, tmp_path: Path) -> None:
    place = tmp_path / "checkout"
    write(place, {INIT: OTHER_INIT, CORE: EDITED[CORE], EXTRA: FILES[EXTRA], NET: OTHER_NET + b"# mine\n"})
    files = by_path(report(audited, "--tree", place / inside))
    words = {path: [word for word in file["status"] if word.startswith("is ")] for path, file in files.items()}
    assert words == {
        INIT: ["is baseline"],
        CORE: ["is vendored"],
        EXTRA: ["is upstream", "is vendored"],
        "models/beta/__init__.py": ["is missing"],
        NET: ["is something else"],
    }
    near = files[NET]["tree"]
    assert (near["nearest"], near["added"], near["removed"]) == ("baseline", 1, 0)
    assert "+# mine" in near["diff"]
    assert files[CORE]["tree"] | {"diff": ""} == {
        "blob": blob_id(EDITED[CORE]),
        "nearest": "vendored",
        "added": 0,
        "removed": 0,
        "diff": "",
        "crlf_aside": False,
    }
    text = audit(audited, "--tree", place / inside).stdout
    assert "baseline +1 -0" in text
    assert text.endswith("+# mine\n")


def test_a_checkout_without_any_of_the_files_is_exit_2(audited: Project, tmp_path: Path) -> None:
    assert "holds none of the 5 files" in audit(audited, "--tree", tmp_path, code=2).stderr
    audit(audited, "--tree", tmp_path / "nowhere", code=2)


def test_a_checkout_with_windows_line_ends_is_told_apart_from_edits(audited: Project, tmp_path: Path) -> None:
    place = tmp_path / "checkout"
    git("clone", "-q", "-c", "core.autocrlf=true", audited.upstream, place, cwd=tmp_path)
    assert (place / NET).read_bytes().count(b"\r\n") == FILES[NET].count(b"\n") > 3
    write(place, {CORE: EDITED[CORE].replace(b"\n", b"\r\n"), INIT: OTHER_INIT.replace(b"\n", b"\r\n", 1)})
    edited = OTHER_NET.replace(b"\n", b"\r\n") + b"# mine\r\n"
    assert [word for word in by_path(report(audited, "--tree", place))[NET]["status"] if word.startswith("is ")] == [
        "is upstream but for CRLF"
    ]
    write(place, {NET: edited})
    files = by_path(report(audited, "--tree", place))
    assert {path: [word for word in file["status"] if word.startswith("is ")] for path, file in files.items()} == {
        INIT: ["is baseline but for CRLF"],
        CORE: ["is vendored but for CRLF"],
        EXTRA: ["is upstream but for CRLF", "is vendored but for CRLF"],
        # It has no line to end.
        "models/beta/__init__.py": ["is upstream", "is baseline", "is vendored"],
        NET: ["is something else"],
    }
    assert files[INIT]["tree"] == {
        "blob": blob_id((place / INIT).read_bytes()),
        "nearest": "baseline",
        "added": 0,
        "removed": 0,
        "diff": "",
        "crlf_aside": True,
    }
    near = files[NET]["tree"]
    assert (near["nearest"], near["added"], near["removed"], near["crlf_aside"]) == ("baseline", 1, 0, True)
    assert near["blob"] == blob_id(edited)
    assert "\r" not in near["diff"]
    assert not files["models/beta/__init__.py"]["tree"]["crlf_aside"]
    text = audit(audited, "--tree", place).stdout
    assert "baseline +1 -0 CRLF aside  patched, " in text
    assert "upstream = CRLF aside      unchanged, " in text
    assert text.endswith("+# mine\n")
    assert f"\n{NET}: CRLF is taken for LF, on both sides\ndiff --git " in text
    # What goes into a tree of ours is compared byte for byte.
    write(audited.tree, {NET: edited})
    file = by_path(report(audited))[NET]
    assert file["status"] == ["edited", "baseline differs"]
    assert file["comparisons"]["baseline_vendored"]["added"] == edited.count(b"\n")


def test_line_ends_left_aside_are_said_on_the_page(audited: Project, tmp_path: Path) -> None:
    place = tmp_path / "checkout"
    edited = OTHER_NET.replace(b"\n", b"\r\n") + b"# mine\r\n"
    write(place, {EXTRA: FILES[EXTRA].replace(b"\n", b"\r\n"), NET: edited})
    text = page(audited, "--tree", place)
    start = text.index(f'<section class="file" id="{EXTRA.replace("/", "-")}"')
    extra = text[start : text.index("</section>", start)]
    assert "No difference between the versions that are there, but for CRLF line ends." in extra
    assert "is upstream but for CRLF" in extra
    start = text.index('<details class="view" id="models-beta-net.py-baseline-tree"')
    view = text[start : text.index("</details>\n</section>", start)]
    assert '<span class="plus">+1</span>' in view
    assert "CRLF is taken for LF, on both sides" in view
    assert "# mine" in view
    assert "\u240d" not in view


@pytest.mark.skipif(os.name == "nt", reason="links are for other systems")
def test_a_checkout_with_links_alone_is_exit_2(audited: Project, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for path in (CORE, NET):
        (checkout / path).parent.mkdir(parents=True)
        (checkout / path).symlink_to(audited.tree / path)
    assert "holds none of the 5 files" in audit(audited, "--tree", checkout, code=2).stderr
    # Where the folder is the link, the files in it are files.
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "models").symlink_to(audited.tree / "models")
    assert by_path(report(audited, "--tree", tmp_path / "linked"))[CORE]["status"][-1] == "is vendored"


def test_bytes_that_are_no_text_are_no_traceback(audited: Project, tmp_path: Path) -> None:
    write(tmp_path / "checkout", {NET: b"\xff\xfe\n", CORE: b"\0\1\2"})
    files = by_path(report(audited, "--tree", tmp_path / "checkout", "--html"))
    assert files[NET]["tree"]["added"] == 1
    assert "Binary files" in files[CORE]["tree"]["diff"]
    assert "binary" in audit(audited, "--tree", tmp_path / "checkout").stdout


# Claims.


def test_a_project_in_order_passes_the_check(audited: Project) -> None:
    body = report(audited, "--check")
    assert body["claims"]["false"] == []
    assert body["claims"]["checked"] > 25
    assert re.search(r"^\d+ claims of the lock and the documents hold$", audit(audited, "--check").stdout, re.M)


def falsified(text: str, path: str, key: str) -> str:
    """The lock with another value for `key` in the [[files]] table of `path`."""
    return re.sub(rf'(path = "{path}"\n(?:.+\n)*?{key} = ")(\w+)', lambda at: at[1] + "0" * len(at[2]), text, count=1)


@pytest.mark.parametrize("key", ["sha256", "blob", "baseline", "baseline_sha256"])
def test_a_false_hash_of_a_file_is_found(key: str, audited: Project) -> None:
    text = audited.lock.read_text(encoding="utf-8")
    false = falsified(text, INIT, key)
    assert false != text
    audited.lock.write_text(false, encoding="utf-8")
    run(audited, "lint", "--write")
    actual = {
        "sha256": sha256(FILES[INIT]),
        "blob": blob_id(FILES[INIT]),
        "baseline": blob_id(OTHER_INIT),
        "baseline_sha256": sha256(OTHER_INIT),
    }[key]
    done = audit(audited, "--check", code=1)
    zeros = "0" * len(actual)
    line = f"  upstream.lock: {INIT} {key}: claimed '{zeros}', actual '{actual}'; next: make lock docs"
    assert line in done.stderr.splitlines()


def test_a_file_called_absent_that_is_there_is_found_and_the_other_way_round(audited: Project) -> None:
    text = audited.lock.read_text(encoding="utf-8")
    text = re.sub(rf'(path = "{NET}"\n(?:.+\n)*?baseline = ")\w+"\nbaseline_sha256 = "\w+"', r'\1absent"', text)
    missing = f'baseline = "{"1" * 40}"\nbaseline_sha256 = "{"2" * 64}"'
    audited.lock.write_text(text.replace('baseline = "absent"', missing, 1), encoding="utf-8")
    run(audited, "lint", "--write")
    said = audit(audited, "--check", code=1).stderr
    assert f"{NET} baseline: claimed 'absent', actual '{blob_id(OTHER_NET)}'" in said
    assert f"{EXTRA} baseline: claimed '{'1' * 40}', actual 'absent'" in said


def test_a_file_that_the_lock_forgets_is_found(audited: Project) -> None:
    text = re.sub(rf'\[\[files\]\]\npath = "{EXTRA}"\n(?:\w.+\n)+', "", audited.lock.read_text(encoding="utf-8"))
    audited.lock.write_text(text.replace('    "extra.py",\n', ""), encoding="utf-8")
    run(audited, "lint", "--write")
    assert f"upstream.lock: {EXTRA}: claimed 'absent', actual" in audit(audited, "--check", code=1).stderr


@pytest.mark.parametrize("pin", ["pin", "baseline"])
def test_a_false_date_is_found(pin: str, audited: Project) -> None:
    head, tail = audited.lock.read_text(encoding="utf-8").split(f"[{pin}]")
    tail = tail.replace("2026-01-02T", "2020-01-02T", 1)
    audited.lock.write_text(f"{head}[{pin}]{tail}", encoding="utf-8")
    run(audited, "lint", "--write")
    assert f"[{pin}] date: claimed '2020-01-02T" in audit(audited, "--check", code=1).stderr


@pytest.mark.parametrize("key", ["sha256", "result", "result_sha256"])
def test_a_false_hash_of_a_patch_is_found(key: str, audited: Project) -> None:
    head, tail = audited.lock.read_text(encoding="utf-8").split("[[patches]]", 1)
    tail = re.sub(rf'(?m)^({key} = ")(\w+)', lambda at: at[1] + "0" * len(at[2]), tail, count=1)
    audited.lock.write_text(f"{head}[[patches]]{tail}", encoding="utf-8")
    done = audit(audited, "--check", code=1)
    where = (
        "  upstream.lock: patches/core.patch result_sha256: " if key == "result_sha256" else "  patches/core.patch: "
    )
    [line] = [line for line in done.stderr.splitlines() if line.startswith(where)]
    assert "0" * 40 in line
    assert "; next: " in line


def test_a_changed_patch_is_found_and_the_audit_still_comes(audited: Project) -> None:
    path = audited.root / "patches" / "net.patch"
    path.write_bytes(path.read_bytes().replace(b"math.pi", b"math.tau"))
    body = report(audited, "--check", code=1)
    assert {claim["where"] for claim in body["claims"]["false"]} == {"patches/net.patch", "the documents"}
    assert by_path(body)[NET]["status"] == ["patched", "baseline differs"]
    shutil.rmtree(audited.tree)
    assert "patches/net.patch: claimed" in audit(audited, "--check", code=1).stderr


def test_a_stale_line_of_a_document_is_found_with_what_it_should_be(audited: Project) -> None:
    path = audited.root / "MODEL_CHANGES.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("| unchanged | absent |", "| unchanged | agrees |"), encoding="utf-8")
    number = next(n for n, line in enumerate(text.splitlines(), 1) if line.endswith("| unchanged | absent |"))
    [line] = [line for line in audit(audited, "--check", code=1).stderr.splitlines() if "MODEL_CHANGES" in line]
    assert line.startswith(f"  MODEL_CHANGES.md:{number}: claimed '| `{EXTRA}` |")
    assert "agrees |', actual '|" in line
    assert line.endswith("absent |'; next: make docs")


@pytest.mark.parametrize(
    ("prose", "claimed"),
    [
        ("The blob `deadbeefcafe` is ours.", "deadbeefcafe"),
        ("See `tests/gone.py`.", "tests/gone.py"),
        ("See [a patch](patches/gone.patch).", "patches/gone.patch"),
        (f"It stands on {'ab' * 20}, they say.", "ab" * 20),
        (f"Its hash is {'Cd' * 32}.", "Cd" * 32),
        (f"https://example.org/commit/{'ef' * 20}/x.py", "ef" * 20),
        ("## `gone.py` and net.py", "gone.py"),
        ("### models/alpha/net.py", "models/alpha/net.py"),
    ],
)
def test_a_false_id_or_path_in_prose_is_found(prose: str, claimed: str, audited: Project) -> None:
    path = audited.root / "MODEL_CHANGES.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n{prose}\n", encoding="utf-8")
    number = len(text.splitlines()) + 2
    assert f"MODEL_CHANGES.md:{number}: claimed '{claimed}', actual 'no " in audit(audited, "--check", code=1).stderr


def test_what_prose_says_truly_and_what_only_looks_like_an_id_are_no_false_claims(audited: Project) -> None:
    lock = load(audited.root)
    prose = (
        f"The baseline `{lock.baseline.commit[:7]}` and `patches/net.patch`; in full {lock.baseline.commit}, or\n"
        f"{lock.pin.commit.upper()}; {sha256(FILES[INIT])} is no {'9' * 41} and no {'x' + '9' * 40}.\n\n"
        "## net.py\n\nOnce there was gone.py.\n\n### `models/alpha/core.py` and `alpha/extra.py`\n"
    )
    path = audited.root / "MODEL_CHANGES.md"
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{prose}", encoding="utf-8")
    assert report(audited, "--check")["claims"]["false"] == []


def test_the_check_reads_the_commits_anew_and_falls_back_on_the_store(audited: Project) -> None:
    audit(audited)
    # Two files that the lock confuses have bytes with the right hashes, in the wrong places.
    text = audited.lock.read_text(encoding="utf-8")
    swapped = text.replace(f'"{EXTRA}"', '"x"').replace(f'"{INIT}"', f'"{EXTRA}"').replace('"x"', f'"{INIT}"')
    audited.lock.write_text(swapped, encoding="utf-8")
    run(audited, "lint", "--write")
    assert f"{INIT} sha256: claimed" in audit(audited, "--check", code=1).stderr
    audited.lock.write_text(text, encoding="utf-8")
    run(audited, "lint", "--write")
    shutil.rmtree(app(audited))
    said = audit(audited, "--check").stderr
    assert "warning: the baseline could not be read anew" in said
    audit(audited, "--check", "--offline")


def test_claims_on_the_baseline_that_another_revision_leaves_unchecked_are_named(audited: Project) -> None:
    said = "not checked: what upstream.lock says of its baseline, in whose place BASELINE= stands"
    whole = report(audited, "--check")["claims"]
    assert whole["not_checked"] == []
    assert said not in audit(audited, "--check", "--baseline", "main").stdout
    git("commit", "-q", "--allow-empty", "-m", "later", cwd=app(audited))
    part = report(audited, "--check", "--baseline", "main")["claims"]
    assert part["not_checked"] == [said]
    assert part["checked"] < whole["checked"]
    assert said in audit(audited, "--check", "--baseline", "main").stdout.splitlines()
    assert said not in audit(audited, "--baseline", "main").stdout


def test_what_cannot_be_checked_is_exit_5(audited: Project) -> None:
    shutil.rmtree(app(audited))
    done = audit(audited, "--check", code=5)
    assert "baseline unknown" in done.stderr
    edit(audited, "2026-01-02T", "2020-01-02T")
    assert steps(audit(audited, "--check", code=1)) == ["make audit", *steps(done)]


# The page.


def test_the_page_is_the_same_each_time_and_asks_nobody(audited: Project, tmp_path: Path) -> None:
    first = page(audited)
    assert page(audited, "--offline") == first
    assert str(tmp_path / "project") not in first
    # Its only addresses are links to follow; file: ones are no links here.
    assert not re.search(r"<(script|img|link|iframe)[^>]+(src|href)=\"(?!data:,)", first)
    assert not re.search(r"url\(|@import|fetch\(", first)


def test_the_page_has_every_file_and_every_comparison_once(audited: Project) -> None:
    text = page(audited)
    for path in FILES:
        assert f'<section class="file" id="{path.replace("/", "-")}"' in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    # net.py differs three ways, core.py one way (the baseline is upstream's), __init__.py one way.
    views = re.findall(r'<details class="view" id="([^"]+)"', text)
    assert len(views) == 3 + 2 + 2
    assert text.count('<div class="diff">') == 3 + 1 + 1
    assert text.count("The same two versions as in") == 2
    for word, meaning in STATUS_WORDS.items():
        assert (f"<dd>{meaning}</dd>" in unescape(text)) == (f">{word}</span>" in text), word


def test_each_file_has_an_anchor_of_its_own_whatever_it_is_called(project: Project) -> None:
    names = ["a b.py", "a-b.py", "a#b.py", "a--b.py", "a~2d~b.py", "A-b.py", "a%2Db.py", "ä.py", "-ä.py"]
    old, new = Side(b"x = 1\n"), Side(b"x = 2\n")
    made = Comparison("upstream", "vendored", 1, 1, "@@ -1 +1 @@\n-x = 1\n+x = 2\n")
    sides = {"upstream": old, "baseline": old, "vendored": new}
    # Under another folder, with what stands between path and comparison in the name.
    paths = [*(f"models/{name}" for name in names), "models/a/b.py", "models/a/b.py-upstream-vendored"]
    files = [FileAudit(path, ("patched",), sides, (made,)) for path in paths]
    text = laid_out(load(project.root), "0" * 40, files).decode()
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    sections = re.findall(r'<section class="file" id="([^"]+)".*?<h3[^>]*><code>([^<]+)</code>', text, re.DOTALL)
    assert [unescape(path) for _, path in sections] == paths
    links = re.findall(r'<th scope="row"><a href="#([^"]+)">([^<]+)</a>', text)
    assert [(anchor, unescape(name)) for anchor, name in links] == [
        (anchor, unescape(path).rpartition("/")[2]) for anchor, path in sections
    ]
    # Nothing that a browser writes otherwise in an address; plain names stay as they can be read.
    assert all(re.fullmatch(r"[A-Za-z0-9_.~-]+", anchor) for anchor in ids)
    assert sections[-2][0] == "models-a-b.py"
    assert laid_out(load(project.root), "0" * 40, files[1:2]).decode().count(f'id="{sections[1][0]}"') == 1


def test_the_page_shows_every_line_of_both_sides(audited: Project) -> None:
    text = page(audited)
    start = text.index('id="models-beta-net.py-upstream-vendored"')
    view = unescape(re.sub(r"<[^>]+>", "", text[start : text.index("</details>\n</section>", start)]))
    for line in (*FILES[NET].decode().splitlines(), *EDITED[NET].decode().splitlines()):
        assert line in view
    assert "no newline at the end" in text[text.index('id="models-alpha-core.py-upstream-vendored"') :]


LINES = st.lists(
    st.sampled_from(["a", "b", "", "  c", "-d", "+e", "@@ -1 +1 @@", "\\ no", '"""', "\r", "\x0c"]), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(LINES, LINES, st.booleans(), st.booleans())
def test_the_page_lays_out_every_line_once_and_in_order(
    old: list[str], new: list[str], old_ends: bool, new_ends: bool
) -> None:
    before, after = (("\n".join(lines) + "\n" * ends).encode() for lines, ends in ((old, old_ends), (new, new_ends)))
    with Scratch() as scratch:
        diff = scratch.diff("a.py", before, after, 3) if before != after else ""
    rows = [row for chunk in chunks(before, after, diff) for row in chunk.rows]

    def shown(text: str) -> str:
        return unescape(re.sub(r"<[^>]+>", "", text.replace(str(NO_NEWLINE), "")))

    def expected(data: bytes) -> list[tuple[int, str]]:
        lines = data.decode().replace("\r", "\u240d").split("\n")
        return list(enumerate(lines[:-1] if lines[-1] == "" else lines, 1))

    if diff:
        assert [(row.left, shown(row.old)) for row in rows if row.left] == expected(before)
        right = [(row.right, shown(row.old if row.kind == "same" else row.new)) for row in rows if row.right]
        assert right == expected(after)
    else:
        assert rows == []


def test_what_is_in_a_file_is_text_on_the_page(audited: Project, tmp_path: Path) -> None:
    write(tmp_path / "checkout", {NET: HOSTILE, CORE: b"", EXTRA: b"\n\n\nx = 1"})
    text = page(audited, "--tree", tmp_path / "checkout")
    assert text.count("<script>") == text.count("</script>") == 1
    assert "<b " not in text
    assert "{{ 7 * 7 }}" in re.sub(r"<[^>]+>", "", text)
    assert "&lt;script&gt;" in text


def test_a_missing_column_is_on_the_page_with_its_reason(audited: Project) -> None:
    shutil.rmtree(app(audited))
    text = page(audited)
    assert "The baseline differs from upstream in 2" in text
    assert '<p class="note">Baseline: git file://' in text


def test_commits_on_github_are_linked() -> None:
    assert web_page("https://github.com/a/b.c.git", "1" * 40) == f"https://github.com/a/b.c/commit/{'1' * 40}"
    assert web_page("https://github.com/a/b", "x", "m/n.py") == "https://github.com/a/b/blob/x/m/n.py"
    for url in ("file:///a/b.git", "https://example.org/a/b", "https://github.com.evil.org/a/b", "javascript:alert(1)"):
        assert web_page(url, "x") is None


@pytest.mark.skipif(os.name == "nt", reason="pipes and links are for other systems")
def test_links_and_pipes_are_no_files_to_audit(audited: Project, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("TOPSECRET = 1\n")
    checkout = tmp_path / "checkout"
    for path in (CORE, NET, EXTRA):
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout / CORE).symlink_to(tmp_path / "secret")
    os.mkfifo(checkout / NET)
    (checkout / EXTRA).write_bytes(b"x = 1\n")
    files = by_path(report(audited, "--tree", checkout, "--html"))
    assert [files[path]["status"][-1] for path in (CORE, NET, EXTRA)] == [
        "is missing",
        "is missing",
        "is something else",
    ]
    assert "TOPSECRET" not in (audited.root / "build/audit/index.html").read_text(encoding="utf-8")
