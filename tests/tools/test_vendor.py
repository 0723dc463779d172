"""Tests vendor, verify, status, diff and clean, in a tree of our own and in another project."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, ran
from tests.tools.conftest import CORE, EDITED, FILES, Project, git, snapshot, write
from tools.files import held, sha256

RESULT = {**FILES, **EDITED}


def holds(tree: Path, files: dict[str, bytes] | None = None) -> bool:
    """Whether `tree` has these files, by default the vendored ones."""
    return all((tree / path).read_bytes() == data for path, data in (files or RESULT).items())


def test_vendor_makes_what_is_named_then_the_rest_and_then_has_nothing_to_do(project: Project) -> None:
    project.run("vendor", "--components", "beta")
    assert not (project.tree / "models/alpha").exists()
    assert project.json("verify")["components"] == ["beta"]
    project.run("verify", "--components", "alpha,beta", code=1)
    assert "choose from: alpha, beta" in project.run("vendor", "--components", "delta", code=2).stderr
    done = project.run("vendor").stdout
    assert holds(project.tree)
    assert f"5 files, 2 patched, in {project.tree}" in done
    assert f"3 from git {project.upstream.as_uri()}" in done
    before = snapshot(project.tree)
    project.alone()
    assert project.run("vendor").stdout == f"nothing to do: 5 files, 2 patched, in {project.tree}\n"
    assert snapshot(project.tree) == before


def test_manifests_are_the_same_from_any_source(project: Project, tmp_path: Path) -> None:
    project.run("vendor")
    shutil.rmtree(project.store)
    project.run("vendor", "--dest", tmp_path / "other", "--upstream", project.upstream)
    for name in ("alpha", "beta"):
        path = f"models/{name}/PROVENANCE.json"
        assert (project.tree / path).read_bytes() == (tmp_path / "other" / path).read_bytes()
    said = json.loads((project.tree / "models/alpha/PROVENANCE.json").read_bytes())
    assert (said["upstream"]["commit"], said["files"]["core.py"]["patch"]) == (project.commit, "core.patch")
    assert str(tmp_path) not in json.dumps({**said, "upstream": 0, "baseline": 0})


@pytest.mark.parametrize(
    ("change", "kind", "path"),
    [
        (lambda tree: (tree / CORE).write_bytes(b"x"), "modified", CORE),
        (lambda tree: (tree / CORE).write_bytes(FILES[CORE]), "modified", CORE),
        (lambda tree: (tree / CORE).unlink(), "missing", CORE),
        (lambda tree: (tree / "models/alpha/more.py").touch(), "extra", "models/alpha/more.py"),
        (lambda tree: (tree / "models/alpha/PROVENANCE.json").unlink(), "incomplete", "models/alpha/PROVENANCE.json"),
        (lambda tree: (tree / "models/.alpha.new").mkdir(), "incomplete", "models/.alpha.new"),
        (lambda tree: shutil.rmtree(tree), "incomplete", "models/alpha"),
    ],
)
def test_verify_finds_each_difference_and_its_next_step_works(vendored: Project, change, kind: str, path: str) -> None:  # type: ignore[no-untyped-def]
    vendored.run("verify")
    change(vendored.tree)
    report = vendored.json("verify", "--components", "alpha", code=1)
    assert (kind, path) in {(finding["kind"], finding["path"]) for finding in report["findings"]}
    [step] = [step for step in report["next"] if "tools vendor" in step]
    vendored.run(*step.partition("#")[0].split()[3:])
    vendored.run("verify", "--components", "alpha")
    assert holds(vendored.tree, {path: data for path, data in RESULT.items() if "alpha" in path})


def test_other_files_in_a_component_stay_and_are_not_mentioned(vendored: Project) -> None:
    folder = vendored.tree / "models/alpha"
    others = {".DS_Store": b"\0", "NOTES.md": b"ours", "data/x.py": b"x = 1"}
    write(folder, {**others, "__pycache__/core.cpython-311.pyc": b"pyc"})
    vendored.run("verify")
    (folder / "core.py").unlink()
    assert "NOTES" not in vendored.run("vendor").stderr
    assert holds(folder, {**others, "__pycache__/core.cpython-311.pyc": b"pyc"})
    vendored.run("clean")
    assert holds(folder, others)
    assert not (folder / "core.py").exists()


def app(tmp_path: Path) -> Path:
    """Another project with its own versions of some files."""
    same = "models/alpha/__init__.py"
    write(tmp_path / "app", {CORE: b"FACTOR = 3\n", "models/alpha/helper.py": b"h = 1\n", same: FILES[same]})
    write(tmp_path / "app", {"models/gamma/g.py": b"", "main.py": b"import models", "models/alpha/NOTES.md": b"mine"})
    write(tmp_path / "app", {"models/alpha/my helper.py": b"", "models/alpha/._core.py": b"\0"})
    return tmp_path / "app"


def test_others_files_are_replaced_only_with_force_and_clean_puts_them_back(vendored: Project, tmp_path: Path) -> None:
    place = app(tmp_path)
    before = {path: data for path, (data, _) in snapshot(place).items()}
    refused = vendored.run("vendor", "--dest", place, code=1)
    assert snapshot(place).keys() == before.keys()
    assert f"  in the place of ours: {CORE}\n  beside ours: models/alpha/helper.py\n" in refused.stderr
    assert f"next: python -m tools vendor --dest {place} --force  # leaves those beside ours" in refused.stderr

    done = vendored.run("vendor", "--dest", place, "--force")
    assert f"warning: {CORE} is replaced; a copy is kept: {vendored.store}" in done.stderr
    assert holds(place)
    for verb in ("verify", "vendor"):
        assert "helper" not in vendored.run(verb, "--dest", place).stdout
    (place / CORE).unlink()
    vendored.run("vendor", "--dest", place)
    said = vendored.run("clean", "--dest", place).stdout
    assert said.startswith(f"put back: models/alpha/__init__.py\nput back: {CORE}\n")
    assert {path: data for path, (data, _) in snapshot(place).items()} == before


def test_a_tree_whose_manifest_was_lost_can_be_cleaned(vendored: Project) -> None:
    (vendored.tree / "models/alpha/PROVENANCE.json").unlink()
    vendored.run("vendor")
    vendored.run("clean")
    assert (vendored.tree / CORE).exists()
    assert not (vendored.tree / "models/beta").exists()


@pytest.mark.parametrize(
    "more",
    [
        {"replaced": {"core.py": "ab{precious}"}},
        {"replaced": {"core.py": 5}},
        {"replaced": {"../core.py": "0" * 64}},
        {"carried": ["../../precious.py"]},
        {"extras": [[]]},
    ],
)
def test_a_manifest_that_somebody_made_up_reaches_no_other_file(
    vendored: Project, tmp_path: Path, more: dict[str, Any]
) -> None:
    precious, path = tmp_path / "precious.py", vendored.tree / "models/alpha/PROVENANCE.json"
    precious.write_bytes(b"mine")
    text = json.dumps({**json.loads(path.read_bytes()), **more}).replace("{precious}", str(precious))
    path.write_text(text, encoding="utf-8")
    for verb in ("verify", "vendor", "clean"):
        assert "is not a manifest that this tool wrote" in vendored.run(verb, code=1).stderr
    assert precious.read_bytes() == b"mine"


def test_no_file_is_replaced_or_removed_without_a_copy(vendored: Project, tmp_path: Path) -> None:
    place = app(tmp_path)
    vendored.run("vendor", "--dest", place, "--force")
    shutil.rmtree(vendored.store / "sha256")
    before = snapshot(place)
    assert f"no copy: {CORE}" in vendored.run("clean", "--dest", place, code=1).stderr
    assert snapshot(place) == before
    assert f"{CORE} stays as it is: the store has no copy" in vendored.run("clean", "--dest", place, "--force").stderr
    assert (place / CORE).exists()
    (tmp_path / "file").touch()
    vendored.run("vendor", "--dest", tmp_path / "new")
    (tmp_path / "new" / CORE).write_bytes(b"edit")
    vendored.store = tmp_path / "file"
    refused = vendored.run("vendor", "--dest", tmp_path / "new", "--upstream", vendored.upstream, code=1)
    assert "DSU_PATCHES_STORE=" in refused.stderr
    assert (tmp_path / "new" / CORE).read_bytes() == b"edit"


def test_an_edit_is_kept_in_the_store_before_it_is_replaced_or_removed(vendored: Project) -> None:
    (vendored.tree / CORE).write_bytes(b"my edit\n")
    said = vendored.run("vendor").stderr
    kept = Path(said.partition("a copy is kept: ")[2].strip())
    assert kept.read_bytes() == b"my edit\n"
    (vendored.tree / CORE).write_bytes(b"another\n")
    assert "edited: " + CORE in vendored.run("clean", code=1).stderr
    assert (vendored.tree / CORE).read_bytes() == b"another\n"
    said = vendored.run("clean", "--force").stderr
    assert Path(said.partition("a copy is kept: ")[2].strip()).read_bytes() == b"another\n"
    assert not vendored.tree.exists()


def test_a_file_that_was_put_back_by_hand_is_left(vendored: Project, tmp_path: Path) -> None:
    place = app(tmp_path)
    before = {path: data for path, (data, _) in snapshot(place).items()}
    vendored.run("vendor", "--dest", place, "--force")
    shutil.rmtree(vendored.store / "sha256")
    for path, data in before.items():
        (place / path).write_bytes(data)
    vendored.run("clean", "--dest", place)
    assert {path: data for path, (data, _) in snapshot(place).items()} == before


def test_dest_is_the_folder_around_models_and_a_home_is_understood(vendored: Project, tmp_path: Path) -> None:
    vendored.env["HOME"] = str(tmp_path)
    assert str(tmp_path / "app") in vendored.run("vendor", "--dest", "~/app").stdout
    assert holds(tmp_path / "app")
    before = snapshot(tmp_path / "app")
    for given in ("models", "models/alpha"):
        said = vendored.run("vendor", "--dest", tmp_path / "app" / given, code=2).stderr
        assert f"next: python -m tools vendor --dest {tmp_path / 'app'}\n" in said
    assert snapshot(tmp_path / "app") == before


def test_links_and_folders_in_the_way_are_named(vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "a/models/alpha/core.py").mkdir(parents=True)
    assert f"{CORE}" in vendored.run("vendor", "--dest", tmp_path / "a", "--force", code=2).stderr
    (tmp_path / "b/models").mkdir(parents=True)
    (tmp_path / "b/models/alpha").symlink_to(tmp_path / "a")
    assert "is not a plain folder" in vendored.run("vendor", "--dest", tmp_path / "b", code=2).stderr
    (tmp_path / "c").write_bytes(b"")
    assert str(tmp_path / "c") in vendored.run("vendor", "--dest", tmp_path / "c", code=2).stderr


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_killed_at_any_rename_a_component_is_old_new_or_absent(vendored: Project, tmp_path: Path) -> None:
    """No file of others is lost, nor the tree's extra, and the next run finishes the work."""
    vendored.decide(extras={"round": ["core.patch"]})
    vendored.run("vendor", "--extras", "round")
    others = {"models/alpha/NOTES.md": b"mine", "models/alpha/helper.py": b"h = 1\n"}
    write(vendored.tree, {CORE: b"edited\n", **others})
    old = {path.name: path.read_bytes() for path in (vendored.tree / "models/alpha").glob("*.py")}
    new = {path.rpartition("/")[2]: data for path, data in RESULT.items() if "alpha" in path}
    renames, killed = 0, True
    while killed:
        run = vendored.copied(tmp_path / str(renames))
        killed = run.killed_at(renames, "vendor", "--force")
        if (run.tree / "models/alpha").exists():
            here = {path.name: path.read_bytes() for path in (run.tree / "models/alpha").glob("*.py")}
            assert here in (old, {**new, "helper.py": b"h = 1\n"})
        run.run("vendor", "--force")
        run.run("verify")
        assert holds(run.tree, {**RESULT, **others})
        assert not list(run.tree.rglob(".alpha*"))
        assert (run.store / "sha256" / sha256(b"edited\n")[:2] / sha256(b"edited\n")[2:]).exists()
        renames += 1
    assert renames > 3


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_a_run_that_waits_for_another_says_so(vendored: Project) -> None:
    (vendored.tree / CORE).unlink()
    place = vendored.tree / ".dsu-vendor.lock"
    with held(place):
        run = subprocess.Popen(vendored.command("vendor"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert run.stderr
        assert "waiting for another run, which holds" in run.stderr.readline()
    run.communicate()
    assert run.returncode == 0
    assert holds(vendored.tree)
    assert not place.exists()


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_ctrl_c_prints_one_line_and_exits_with_130(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = project.command("vendor", "--upstream", f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        # A process that a shell starts in the background ignores this signal, and so do its children.
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as run:
            assert run.stderr
            # The signal is sent once the run waits for an answer; during an import it may be lost.
            silent.settimeout(60)
            connection, _ = silent.accept()
            run.send_signal(signal.SIGINT)
            said = run.stderr.read()
        connection.close()
    assert run.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in said


def test_status_shows_pin_store_tree_patches_and_rebase(vendored: Project) -> None:
    (vendored.tree / CORE).unlink()
    (vendored.root / "build/rebase").mkdir(parents=True)
    lines = vendored.run("status").stdout
    for part in (vendored.commit[:12], "5 of 5 files", "1 findings", "core.patch +1 -2", "under way in build/rebase"):
        assert part in lines
    shutil.rmtree(vendored.tree)
    assert vendored.json("status")["tree"] == {"alpha": "not vendored", "beta": "not vendored"}


def test_diff_shows_and_exports_what_git_takes(vendored: Project, tmp_path: Path) -> None:
    edited = {CORE: RESULT[CORE] + b"# edit\n"}
    write(vendored.tree, edited)
    text = vendored.run("diff", "--file", "core.py").stdout
    assert ("+# edit\n" in text, "print('scaling')" in text) == (True, True)
    vendored.run("diff", "--export", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["core.patch", "net.patch"]
    copy = vendored.cloned(tmp_path / "copy").upstream
    git("apply", *sorted((tmp_path / "out").iterdir()), cwd=copy)
    assert holds(copy, {**RESULT, **edited})
    write(tmp_path / "out", {"net.patch": b"mine"})
    assert "in the way" in vendored.run("diff", "--export", tmp_path / "out", code=2).stderr


def script(*arguments: str | Path, code: int = 0) -> str:
    """The output of `tools/apply.py` as a script."""
    done = ran(sys.executable, *arguments, cwd=ROOT.parent)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_apply_makes_a_new_folder_and_replaces_nothing(vendored: Project, tmp_path: Path) -> None:
    write(tmp_path / "source", FILES)
    apply = (ROOT / "tools/apply.py", "--root", vendored.root, tmp_path / "source")
    for _ in range(2):
        script(*apply, tmp_path / "out")
    assert holds(tmp_path / "out")
    vendored.run("verify", "--dest", tmp_path / "out")
    said = script(*apply, tmp_path / "source", code=1)
    assert f"holds other files, so nothing was written\n  {CORE}\n" in said
    assert holds(tmp_path / "source", FILES)
    write(tmp_path / "source", {CORE: b"other"})
    assert "is not what the lock says" in script(*apply, tmp_path / "x", code=4)
    assert not (tmp_path / "x").exists()


def test_apply_as_a_script_names_what_is_missing(tmp_path: Path) -> None:
    path = ROOT / "tools/apply.py"
    assert "SOURCE" in script(path, "--help").upper()
    assert "lacks files of upstream" in script(path, tmp_path, tmp_path / "out", code=4)
    assert "is not installed here" in script("-I", "-S", path, "a", "b", code=1)
