"""`vendor` end to end on a miniature upstream: what it writes, what it leaves alone, what it refuses."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project, git, make_project
from tests.tools.servers import serving
from tools.__main__ import main

EXPECTED = {**FILES, **EDITED}
CORE, NET = "models/alpha/core.py", "models/beta/net.py"


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below `folder`: mode, time of change and bytes by path."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        facts = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        found[str(path)] = (facts.st_mode, facts.st_mtime_ns, data)
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}


@pytest.fixture
def refused(vendored: Project, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`vendor` with these options, in this process, insisting on an exit code; what it says on standard error."""

    def run(*options: str | Path, code: int) -> str:
        arguments = ["--root", vendored.root, "--store", vendored.store, "vendor", *options]
        assert main([str(argument) for argument in arguments]) == code
        return capsys.readouterr().err

    return run


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Another project's tree, with its own files around the places where the components go."""
    tree = tmp_path / "app"
    (tree / "models/theirs").mkdir(parents=True)
    (tree / "models/__init__.py").write_bytes(b"# theirs\n")
    (tree / "models/theirs/net.py").write_bytes(b"# theirs\r\n")
    (tree / "main.py").write_bytes(b"import models\n")
    return tree


def test_vendors_every_file_patched_or_byte_identical(project: Project) -> None:
    done = project.run("vendor")
    assert files_in(project.tree) == EXPECTED
    assert "5 files, 2 patched" in done.stdout
    project.run("verify")


def test_the_result_alone_goes_to_standard_output(unfetched: Project) -> None:
    document = unfetched.json("vendor")
    assert (document["schema"], document["verb"], document["ok"], document["changed"]) == (1, "vendor", True, True)
    assert {row["path"] for row in document["files"]} == set(FILES)
    assert {row["path"]: (row["added"], row["removed"]) for row in document["files"] if row["status"] == "patched"} == {
        CORE: (1, 2),
        "models/beta/net.py": (1, 1),
    }
    assert unfetched.json("vendor")["changed"] is False
    shutil.rmtree(unfetched.tree)
    assert unfetched.run("--quiet", "vendor").stderr == ""


def test_with_standard_error_closed_the_result_is_the_same(unfetched: Project) -> None:
    command = f'exec "{sys.executable}" -m tools "$@" 2>&-'
    arguments = ["--root", unfetched.root, "--store", unfetched.store, "vendor", "--json"]
    done = subprocess.run(["bash", "-c", command, "bash", *arguments], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["changed"] is True


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_on_a_terminal_progress_is_live_and_standard_output_still_the_result_alone(unfetched: Project) -> None:
    import pty

    with serving({path: data for path, data in FILES.items() if path != CORE} | {CORE: b"tampered"}) as host:
        unfetched.sources([host.source, 'kind = "git"'])
        ours, theirs = pty.openpty()
        arguments = ["--root", unfetched.root, "--store", unfetched.store, "vendor", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "tools", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, check=False
        )
    os.close(theirs)
    os.set_blocking(ours, False)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0, shown
    assert json.loads(done.stdout)["changed"] is True
    assert "pinned files" in shown
    assert "warning: raw" in shown
    assert "wrong bytes" in shown


def test_the_manifest_holds_every_hash_and_no_path_of_this_machine_but_the_pins(vendored: Project) -> None:
    manifest = json.loads((vendored.tree / "PROVENANCE.json").read_bytes())
    assert manifest["components"]["alpha"]["pin"]["commit"] == vendored.commit
    entries = {entry["path"]: entry for part in manifest["components"].values() for entry in part["files"]}
    for path, data in FILES.items():
        assert entries[path]["base"]["sha256"] == sha256(data).hexdigest()
        assert entries[path]["result"]["sha256"] == sha256(EXPECTED[path]).hexdigest()
    patch = vendored.root / "patches/core.patch"
    assert entries[CORE]["patch"] == {"file": "patches/core.patch", "sha256": sha256(patch.read_bytes()).hexdigest()}
    text = (vendored.tree / "PROVENANCE.json").read_text(encoding="utf-8")
    assert str(vendored.root) not in text
    assert str(vendored.store) not in text


def test_nothing_to_do_touches_nothing_and_asks_nobody(vendored: Project) -> None:
    shutil.rmtree(vendored.store)
    before = snapshot(vendored.tree)
    done = vendored.run("vendor", "--offline")
    assert "nothing to do" in done.stdout
    assert snapshot(vendored.tree) == before


def test_two_runs_give_the_same_manifest(vendored: Project) -> None:
    first = (vendored.tree / "PROVENANCE.json").read_bytes()
    vendored.run("vendor", "--dest", vendored.root / "again")
    assert (vendored.root / "again/PROVENANCE.json").read_bytes() == first


# another project's tree


def test_in_another_projects_tree_only_the_component_folders_change(vendored: Project, theirs: Path) -> None:
    before = {path: facts for path, facts in snapshot(theirs).items() if path.endswith(".py") or "theirs" in path}
    vendored.run("vendor", "--dest", theirs)
    assert set(files_in(theirs)) == {*FILES, "models/__init__.py", "models/theirs/net.py", "main.py"}
    assert {path.name for path in theirs.iterdir()} == {"models", "main.py", "PROVENANCE.json"}
    after = snapshot(theirs)
    assert {path: after[path] for path in before} == before
    vendored.run("verify", "--dest", theirs)


def test_files_of_ordinary_mode_whatever_the_umask(vendored: Project, theirs: Path) -> None:
    old = os.umask(0o022)
    try:
        vendored.run("vendor", "--dest", theirs)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in theirs.rglob("*.py")} == {0o644}
    assert (theirs / "PROVENANCE.json").stat().st_mode & 0o777 == 0o644
    assert (theirs / "models/alpha").stat().st_mode & 0o777 == 0o755


def test_files_that_are_not_ours_stop_the_run_and_force_keeps_them(vendored: Project, theirs: Path) -> None:
    (theirs / "models/alpha/deep").mkdir(parents=True)
    (theirs / "models/alpha/notes.txt").write_bytes(b"theirs\r\n")
    (theirs / "models/alpha/deep/run.sh").write_bytes(b"#!/bin/sh\n")
    (theirs / "models/alpha/deep/run.sh").chmod(0o750)
    (theirs / "models/alpha/link").symlink_to("notes.txt")
    (theirs / CORE).write_bytes(b"# their own core\n")
    before = snapshot(theirs)
    done = vendored.run("vendor", "--dest", theirs, code=1)
    for name in ("notes.txt", "deep/run.sh", "link", "core.py"):
        assert f"models/alpha/{name}" in done.stderr
    assert "FORCE=1" in done.stderr
    assert snapshot(theirs) == before

    document = vendored.json("vendor", "--dest", theirs, "--force")
    assert document["carried"] == ["models/alpha/deep/run.sh", "models/alpha/link", "models/alpha/notes.txt"]
    after = snapshot(theirs)
    for name in ("notes.txt", "deep/run.sh"):
        path = str(theirs / "models/alpha" / name)
        assert after[path] == before[path]
    assert (theirs / "models/alpha/link").readlink() == Path("notes.txt")
    assert {path: data for path, data in files_in(theirs).items() if path in FILES} == EXPECTED
    stored = [path.read_bytes() for path in vendored.store.rglob("*") if path.is_file()]
    assert b"# their own core\n" in stored
    done = vendored.run("verify", "--dest", theirs, code=1)
    assert "extra: models/alpha/notes.txt" in done.stderr


def test_their_files_with_the_right_bytes_are_taken_over(vendored: Project, theirs: Path) -> None:
    for path in (CORE, "models/alpha/extra.py"):
        (theirs / path).parent.mkdir(exist_ok=True)
        (theirs / path).write_bytes(FILES[path])
    vendored.run("vendor", "--dest", theirs)
    vendored.run("verify", "--dest", theirs)


def test_python_caches_and_empty_folders_are_nobodys(vendored: Project) -> None:
    cache = vendored.tree / "models/alpha/__pycache__"
    cache.mkdir()
    (cache / "core.cpython-311.pyc").write_bytes(b"compiled")
    (vendored.tree / "models/alpha/empty").mkdir()
    assert "nothing to do" in vendored.run("vendor").stdout
    (vendored.tree / CORE).unlink()
    vendored.run("vendor")
    vendored.run("verify")


@pytest.mark.parametrize("place", ["models", "models/alpha"])
@pytest.mark.parametrize("kind", ["link", "broken link", "file"])
def test_a_component_path_that_is_no_plain_folder_is_refused(
    refused: Callable[..., str], tmp_path: Path, place: str, kind: str
) -> None:
    tree, behind = tmp_path / "app", tmp_path / "behind"
    (tree / place).parent.mkdir(parents=True)
    behind.mkdir()
    (behind / "core.py").write_bytes(b"# not yours\n")
    if kind == "file":
        (tree / place).write_bytes(b"a file\n")
    else:
        (tree / place).symlink_to(behind if kind == "link" else tmp_path / "nowhere")
    before = snapshot(tmp_path / "app"), snapshot(behind)
    for options in ([], ["--force"]):
        assert str(tree / place) in refused("--dest", tree, *options, code=2)
    assert (snapshot(tmp_path / "app"), snapshot(behind)) == before


def test_a_destination_may_itself_be_a_link(vendored: Project, theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(theirs)
    vendored.run("vendor", "--dest", tmp_path / "link")
    assert (theirs / CORE).read_bytes() == EDITED[CORE]


def test_a_link_in_place_of_our_file_is_replaced_and_not_followed(vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "target.py").write_bytes(b"# not yours\n")
    (vendored.tree / CORE).unlink()
    (vendored.tree / CORE).symlink_to(tmp_path / "target.py")
    vendored.run("vendor")
    assert not (vendored.tree / CORE).is_symlink()
    assert (tmp_path / "target.py").read_bytes() == b"# not yours\n"
    vendored.run("verify")


def test_a_folder_in_place_of_our_file_is_refused_even_with_force(vendored: Project) -> None:
    (vendored.tree / CORE).unlink()
    (vendored.tree / CORE).mkdir()
    (vendored.tree / CORE / "theirs.txt").write_bytes(b"theirs\n")
    before = snapshot(vendored.tree / "models")
    assert f"{CORE}/theirs.txt" in vendored.run("vendor", code=1).stderr
    assert f"{CORE}/theirs.txt" in vendored.run("vendor", "--force", code=2).stderr
    assert snapshot(vendored.tree / "models") == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_component_is_not_read(vendored: Project) -> None:
    os.mkfifo(vendored.tree / "models/alpha/pipe")
    assert "models/alpha/pipe" in vendored.run("vendor", code=1, timeout=20).stderr
    assert "extra: models/alpha/pipe" in vendored.run("verify", code=1, timeout=20).stderr
    (vendored.tree / CORE).unlink()
    assert "models/alpha/pipe` is a named pipe" in vendored.run("vendor", "--force", code=2, timeout=20).stderr
    assert not (vendored.tree / CORE).exists()


# edits


def test_an_edit_is_replaced_and_a_copy_is_kept(vendored: Project) -> None:
    (vendored.tree / CORE).write_bytes(b"# an afternoon's work\n")
    done = vendored.run("--quiet", "vendor")
    [warning] = [line for line in done.stderr.splitlines() if CORE in line]
    assert Path(warning.rpartition(": ")[2]).read_bytes() == b"# an afternoon's work\n"
    assert (vendored.tree / CORE).read_bytes() == EDITED[CORE]


def test_an_edit_of_which_no_copy_can_be_kept_stops_the_run(vendored: Project, tmp_path: Path) -> None:
    (vendored.tree / CORE).write_bytes(b"# an afternoon's work\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/sha256").write_bytes(b"no folder")
    vendored.store = tmp_path / "full"
    done = vendored.run("vendor", code=1)
    assert f"edited: {CORE}" in done.stderr
    assert (vendored.tree / CORE).read_bytes() == b"# an afternoon's work\n"
    vendored.run("vendor", "--force")
    assert files_in(vendored.tree) == EXPECTED


def test_an_older_pins_files_are_no_edits_and_those_that_are_gone_are_removed(tmp_path: Path) -> None:
    old = make_project(tmp_path / "old")
    files = {path: data + b"\n# newer\n" for path, data in FILES.items() if path != "models/alpha/extra.py"}
    new = make_project(tmp_path / "new", files, {})
    old.run("vendor")
    done = new.run("vendor", "--dest", old.tree)
    assert files_in(old.tree) == files
    assert "a copy is kept" not in done.stderr
    old.run("vendor")
    (old.tree / "models/alpha/extra.py").write_bytes(b"# somebody's\n")
    assert "models/alpha/extra.py" in new.run("vendor", "--dest", old.tree, code=1).stderr
    assert (old.tree / CORE).read_bytes() == EDITED[CORE]


# clean


def test_clean_removes_what_we_made_and_nothing_else(vendored: Project, theirs: Path) -> None:
    before = files_in(theirs)
    vendored.run("vendor", "--dest", theirs)
    (theirs / "models/alpha/__pycache__").mkdir()
    (theirs / "models/alpha/__pycache__/core.pyc").write_bytes(b"compiled")
    (theirs / "models/.alpha.dsu-staging-1234").mkdir()
    vendored.run("clean", "--dest", theirs)
    assert files_in(theirs) == before
    assert sorted(path.name for path in (theirs / "models").iterdir()) == ["__init__.py", "theirs"]
    assert "0 files removed" in vendored.run("clean", "--dest", theirs).stdout
    vendored.run("clean")
    assert not vendored.tree.exists()
    vendored.run("clean")
    assert not vendored.tree.exists()


def test_clean_stops_at_edits_and_at_files_that_are_not_ours(vendored: Project) -> None:
    (vendored.tree / CORE).write_bytes(b"# an afternoon's work\n")
    assert f"edited: {CORE}" in vendored.run("clean", code=1).stderr
    (vendored.tree / "models/alpha/notes.txt").write_bytes(b"theirs\n")
    assert "models/alpha/notes.txt" in vendored.run("clean", code=1).stderr
    assert (vendored.tree / CORE).exists()
    # Not even where `vendor` could not leave it.
    (vendored.tree / NET).unlink()
    (vendored.tree / NET).mkdir()
    (vendored.tree / NET / "theirs.txt").write_bytes(b"theirs\n")
    vendored.run("clean", "--force")
    left = {path.relative_to(vendored.tree).as_posix() for path in vendored.tree.rglob("*") if path.is_file()}
    assert left == {"models/alpha/notes.txt", f"{NET}/theirs.txt"}


def test_clean_takes_nothing_for_ours_that_no_manifest_lists(vendored: Project, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git("clone", "-q", vendored.upstream, clone, cwd=tmp_path)
    stderr = vendored.run("clean", "--dest", clone, code=1).stderr
    assert "nothing was removed" in stderr
    assert all(f"not made by us: {path}" in stderr for path in FILES)
    assert "0 files removed" in vendored.run("clean", "--dest", clone, "--force").stdout
    assert files_in(clone) == FILES
    # `vendor` takes them over, as before, and then they are ours to remove.
    vendored.run("vendor", "--dest", clone)
    vendored.run("clean", "--dest", clone)
    assert not (clone / "models").exists()


def test_clean_with_a_manifest_that_is_gone_says_so(vendored: Project) -> None:
    (vendored.tree / "PROVENANCE.json").unlink()
    assert f"not made by us: {CORE}" in vendored.run("clean", code=1).stderr
    assert files_in(vendored.tree) == EXPECTED
    vendored.run("vendor")
    vendored.run("clean")
    assert not vendored.tree.exists()


# manifests that are not ours


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 1, "tool": "another 1.0", "components": {}}',
        '{"schema": 99, "tool": "dsu-patches 9", "components": {}}',
        '{"schema": 1, "tool": "dsu-patches 1", "components": {"alpha": {"files": [7]}}}',
        "[" * 100_000,
    ],
    ids=["empty", "list", "another tool's", "of the future", "nonsense", "bottomless"],
)
def test_another_programs_manifest_is_left_alone(refused: Callable[..., str], theirs: Path, text: str) -> None:
    (theirs / "PROVENANCE.json").write_text(text)
    before = snapshot(theirs)
    said = refused("--dest", theirs, "--force", code=1)
    assert "PROVENANCE.json is not a manifest that this tool wrote" in said
    assert snapshot(theirs) == before


def test_a_folder_in_place_of_the_manifest_is_named(refused: Callable[..., str], theirs: Path) -> None:
    (theirs / "PROVENANCE.json").mkdir()
    assert "PROVENANCE.json is not a manifest" in refused("--dest", theirs, code=1)


def test_a_damaged_section_is_repaired_and_does_not_disturb_the_other(vendored: Project) -> None:
    path = vendored.tree / "PROVENANCE.json"
    whole = path.read_bytes()
    manifest = json.loads(whole)
    del manifest["components"]["beta"]["files"][0]["base"]["blob"]
    path.write_text(json.dumps(manifest))
    assert "nothing to do" in vendored.run("vendor", "--components", "alpha").stdout
    vendored.run("vendor")
    assert path.read_bytes() == whole


# components


def test_one_component_and_then_the_rest(vendored: Project, theirs: Path) -> None:
    vendored.run("vendor", "--dest", theirs, "--components", "beta")
    assert set(files_in(theirs / "models")) == {"__init__.py", "theirs/net.py", "beta/__init__.py", "beta/net.py"}
    assert "2 files as locked: beta" in vendored.run("verify", "--dest", theirs).stdout
    vendored.run("vendor", "--dest", theirs, "--components", "alpha,beta")
    assert (theirs / "PROVENANCE.json").read_bytes() == (vendored.tree / "PROVENANCE.json").read_bytes()


def test_a_component_that_does_not_exist_is_a_usage_error(vendored: Project) -> None:
    done = vendored.run("vendor", "--components", "alpha gamma", code=2)
    assert "gamma" in done.stderr
    assert "choose from: alpha, beta" in done.stderr


# patches


def test_a_patch_that_does_not_fit_its_base_is_exit_code_3_and_every_such_patch_is_named(unfetched: Project) -> None:
    for name, old, new in (("core", "-    print(", "-    say("), ("net", "-    return 3.14", "-    return 3.41")):
        patch = unfetched.root / f"patches/{name}.patch"
        before = patch.read_bytes()
        patch.write_bytes(before.replace(old.encode(), new.encode()))
        lock = unfetched.lock.read_text(encoding="utf-8")
        digests = sha256(before).hexdigest(), sha256(patch.read_bytes()).hexdigest()
        assert digests[0] != digests[1]
        unfetched.lock.write_text(lock.replace(*digests), encoding="utf-8")
    document = unfetched.json("vendor", code=3)
    assert document["exit_code"] == 3
    said = "\n".join([document["error"], *document["details"]])
    for name in ("patches/core.patch", CORE, "patches/net.patch", "models/beta/net.py", "say(", "3.41"):
        assert name in said
    assert not unfetched.tree.exists()


def test_an_edited_patch_file_is_exit_code_4_even_with_nothing_else_to_do(vendored: Project) -> None:
    patch = vendored.root / "patches/core.patch"
    patch.write_bytes(patch.read_bytes().replace(b"Change core.", b"Change the core."))
    done = vendored.run("vendor", code=4)
    assert "patches/core.patch" in done.stderr
    assert sha256(patch.read_bytes()).hexdigest() in done.stderr


def test_a_result_that_is_not_the_locked_one_is_exit_code_4(unfetched: Project) -> None:
    lock = unfetched.lock.read_text(encoding="utf-8")
    wrong = "0" * 64
    unfetched.lock.write_text(lock.replace(sha256(EDITED[CORE]).hexdigest(), wrong), encoding="utf-8")
    done = unfetched.run("vendor", code=4)
    assert CORE in done.stderr
    assert wrong in done.stderr
    assert not unfetched.tree.exists()
