"""vendor, verify, status and clean: a tree of our own, and folders in somebody's project."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import EDITED, FILES, Project, git, snapshot, write
from tools.files import sha256

CORE = "models/alpha/core.py"
RESULT = {**FILES, **EDITED}


def holds(tree: Path, files: dict[str, bytes] | None = None) -> bool:
    """Whether `tree` holds these bytes, by default those of a vendored tree."""
    return all((tree / path).read_bytes() == data for path, data in (files or RESULT).items())


def test_vendor_makes_the_tree_and_then_has_nothing_to_do(project: Project) -> None:
    done = project.run("vendor")
    assert holds(project.tree)
    assert f"5 files, 2 patched, in {project.tree}" in done.stdout
    assert f"5 from git {project.upstream.as_uri()}" in done.stdout
    before = snapshot(project.tree)
    project.alone()
    assert project.run("vendor").stdout == f"nothing to do: 5 files, 2 patched, in {project.tree}\n"
    assert snapshot(project.tree) == before
    assert [row["status"] for row in project.json("vendor")["files"]].count("patched") == 2


def test_manifests_lie_in_the_components_and_are_the_same_from_any_source(project: Project, tmp_path: Path) -> None:
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
def test_verify_finds_what_is_off_and_its_next_step_works(vendored: Project, change, kind: str, path: str) -> None:  # type: ignore[no-untyped-def]
    vendored.run("verify")
    change(vendored.tree)
    report = vendored.json("verify", "--components", "alpha", code=1)
    assert (kind, path) in {(finding["kind"], finding["path"]) for finding in report["findings"]}
    [step] = [step for step in report["next"] if "tools vendor" in step]
    vendored.run(*step.partition("#")[0].split()[3:])
    vendored.run("verify", "--components", "alpha")
    assert holds(vendored.tree, {path: data for path, data in RESULT.items() if "alpha" in path})


def test_what_is_no_python_of_a_component_stays_and_is_not_mentioned(vendored: Project) -> None:
    folder = vendored.tree / "models/alpha"
    others = {
        ".DS_Store": b"\0",
        "NOTES.md": b"ours",
        "__pycache__/core.cpython-311.pyc": b"pyc",
        "data/x.py": b"x = 1",
    }
    write(folder, others)
    vendored.run("verify")
    (folder / "core.py").unlink()
    assert "NOTES" not in vendored.run("vendor").stderr
    assert holds(folder, others)
    vendored.run("clean")
    assert holds(folder, {name: data for name, data in others.items() if "pycache" not in name})
    assert not (folder / "core.py").exists()


def app(tmp_path: Path) -> Path:
    """Somebody's project with its own versions of some files."""
    same = "models/alpha/__init__.py"
    write(tmp_path / "app", {CORE: b"FACTOR = 3\n", "models/alpha/helper.py": b"h = 1\n", same: FILES[same]})
    write(tmp_path / "app", {"models/gamma/g.py": b"", "main.py": b"import models", "models/alpha/NOTES.md": b"mine"})
    return tmp_path / "app"


def test_somebodys_files_need_force_once_and_come_back_with_clean(vendored: Project, tmp_path: Path) -> None:
    place = app(tmp_path)
    before = {path: data for path, (data, _) in snapshot(place).items()}
    refused = vendored.run("vendor", "--dest", place, code=1)
    assert snapshot(place).keys() == before.keys()
    assert f"  in the place of ours: {CORE}\n  beside ours: models/alpha/helper.py\n" in refused.stderr
    assert f"next: python -m tools vendor --dest {place} --force  # leaves those beside ours" in refused.stderr

    done = vendored.run("vendor", "--dest", place, "--force")
    assert f"warning: {CORE} had other bytes and is replaced; a copy is kept: {vendored.store}" in done.stderr
    assert holds(place)
    for verb in ("verify", "vendor"):
        assert "helper" not in vendored.run(verb, "--dest", place).stdout
    (place / CORE).unlink()
    vendored.run("vendor", "--dest", place)
    assert vendored.json("clean", "--dest", place)["restored"] == [CORE, "models/alpha/__init__.py"][::-1]
    assert {path: data for path, (data, _) in snapshot(place).items()} == before


def test_without_a_copy_nothing_of_anybodys_is_replaced_or_removed(vendored: Project, tmp_path: Path) -> None:
    place = app(tmp_path)
    vendored.run("vendor", "--dest", place, "--force")
    shutil.rmtree(vendored.store / "sha256")
    assert f"{CORE} stays as we made it" in vendored.run("clean", "--dest", place).stderr
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


@pytest.mark.parametrize("given", ["models", "models/alpha"])
def test_dest_is_the_folder_around_models(vendored: Project, tmp_path: Path, given: str) -> None:
    write(tmp_path, {"app/models/alpha/core.py": b"x"})
    said = vendored.run("vendor", "--dest", tmp_path / "app" / given, code=2).stderr
    assert f"next: python -m tools vendor --dest {tmp_path / 'app'}\n" in said
    assert not list((tmp_path / "app" / given).rglob("PROVENANCE.json"))


def test_a_home_is_understood_and_the_whole_path_is_shown(vendored: Project, tmp_path: Path) -> None:
    vendored.env["HOME"] = str(tmp_path)
    assert str(tmp_path / "app") in vendored.run("vendor", "--dest", "~/app").stdout
    assert holds(tmp_path / "app")


def test_what_is_in_the_way_for_good_is_named(vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "a/models/alpha/core.py").mkdir(parents=True)
    assert f"{CORE}" in vendored.run("vendor", "--dest", tmp_path / "a", "--force", code=2).stderr
    (tmp_path / "b/models").mkdir(parents=True)
    (tmp_path / "b/models/alpha").symlink_to(tmp_path / "a")
    assert "is not a plain folder" in vendored.run("vendor", "--dest", tmp_path / "b", code=2).stderr
    (tmp_path / "c").write_bytes(b"")
    assert str(tmp_path / "c") in vendored.run("vendor", "--dest", tmp_path / "c", code=2).stderr


def test_a_patch_that_is_not_what_the_lock_names_stops_before_anything(vendored: Project) -> None:
    before = snapshot(vendored.tree)
    path = vendored.root / "patches/core.patch"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"Change", b"Mend"))
    report = vendored.json("vendor", code=4)
    assert "patches/core.patch is not the file the lock names" in report["error"]
    assert any("lock" in step for step in report["next"])
    assert snapshot(vendored.tree) == before


def test_only_the_components_that_are_named(project: Project) -> None:
    project.run("vendor", "--components", "beta")
    assert not (project.tree / "models/alpha").exists()
    assert project.json("verify")["components"] == ["beta"]
    project.run("verify", "--components", "alpha,beta", code=1)
    assert "choose from: alpha, beta" in project.run("vendor", "--components", "delta", code=2).stderr


KILLED_AT = """
import os, pathlib, sys
left = int(sys.argv.pop(1))
def counted(method):
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return method(*arguments)
    return call
pathlib.Path.rename, pathlib.Path.replace = counted(pathlib.Path.rename), counted(pathlib.Path.replace)
from tools.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_killed_at_any_rename_a_component_is_old_new_or_absent(vendored: Project, tmp_path: Path) -> None:
    """And nobody's file is lost, and the next run puts right what there is."""
    write(vendored.tree, {"models/alpha/NOTES.md": b"mine", CORE: b"edited\n"})
    write(vendored.tree, {"models/alpha/helper.py": b"h = 1\n"})
    old = {path.name: path.read_bytes() for path in (vendored.tree / "models/alpha").glob("*.py")}
    new = {path.rpartition("/")[2]: data for path, data in RESULT.items() if "alpha" in path}
    for renames in range(99):
        shutil.copytree(vendored.tree, tree := tmp_path / str(renames) / "tree")
        store = tmp_path / str(renames) / "store"
        shutil.copytree(vendored.store, store)
        words = ["--root", vendored.root, "--store", store, "vendor", "--dest", tree, "--force"]
        command = [sys.executable, "-c", KILLED_AT, str(renames), *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if (tree / "models/alpha").exists():
            here = {path.name: path.read_bytes() for path in (tree / "models/alpha").glob("*.py")}
            assert here in (old, {**new, "helper.py": b"h = 1\n"})
        vendored.store = store
        vendored.run("vendor", "--dest", tree, "--force")
        vendored.run("verify", "--dest", tree)
        assert holds(tree, {**RESULT, "models/alpha/NOTES.md": b"mine", "models/alpha/helper.py": b"h = 1\n"})
        assert not list(tree.rglob(".alpha*"))
        assert (store / "sha256" / sha256(b"edited\n")[:2] / sha256(b"edited\n")[2:]).exists()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert renames >= 3


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_a_run_that_waits_for_another_says_so_at_once(vendored: Project) -> None:
    (vendored.tree / CORE).unlink()
    script = "import sys, time, pathlib, tools.files as files\nwith files.held(pathlib.Path(sys.argv[1])):\n"
    script += "    print(flush=True)\n    time.sleep(3)"
    place = vendored.tree / ".dsu-vendor.lock"
    with subprocess.Popen([sys.executable, "-c", script, place], cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        done = vendored.run("vendor")
    assert "waiting for another run, which holds" in done.stderr
    assert holds(vendored.tree)
    assert not place.exists()


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_ctrl_c_is_one_line_and_130(project: Project) -> None:
    command = [sys.executable, "-m", "tools", "--root", project.root, "--store", project.store, "vendor", "--upstream"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        # What a shell starts in the background ignores this signal, and all that it starts.
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        pipe = subprocess.PIPE
        with subprocess.Popen([*command, address], cwd=ROOT, stderr=pipe, text=True, preexec_fn=heard) as run:
            assert run.stderr
            # Once it waits for an answer: in the middle of an import Python may pass over an interrupt.
            silent.settimeout(60)
            connection, _ = silent.accept()
            run.send_signal(signal.SIGINT)
            said = run.stderr.read()
        connection.close()
    assert run.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in said


def test_status_shows_how_things_stand(vendored: Project) -> None:
    (vendored.tree / CORE).unlink()
    (vendored.root / "build/rebase").mkdir(parents=True)
    lines = vendored.run("status").stdout
    for part in (vendored.commit, "5 of 5 pinned", "1 findings", "as locked, +1 -2", "under way in build/rebase"):
        assert part in lines
    shutil.rmtree(vendored.tree)
    assert vendored.json("status")["tree"] == {"alpha": "not vendored", "beta": "not vendored"}


def test_diff_shows_and_exports_what_git_takes(vendored: Project, tmp_path: Path) -> None:
    write(vendored.tree, {CORE: RESULT[CORE] + b"# edit\n"})
    text = vendored.run("diff", "--file", "core.py").stdout
    assert "+# edit\n" in text
    assert "print('scaling')" in text
    vendored.run("diff", "--export", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["core.patch", "net.patch"]
    git("checkout", "-q", ".", cwd=vendored.upstream)
    copy = tmp_path / "copy"
    shutil.copytree(vendored.upstream, copy)
    git("apply", *sorted((tmp_path / "out").iterdir()), cwd=copy)
    assert holds(copy, {**RESULT, CORE: RESULT[CORE] + b"# edit\n"})
    write(tmp_path / "out", {"net.patch": b"mine"})
    assert "in the way" in vendored.run("diff", "--export", tmp_path / "out", code=2).stderr


def script(*arguments: str | Path, code: int = 0) -> str:
    """What `tools/apply.py` says as a script."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_apply_makes_a_new_folder_and_replaces_nothing(vendored: Project, tmp_path: Path) -> None:
    apply = (ROOT / "tools/apply.py", "--root", vendored.root, vendored.upstream)
    script(*apply, tmp_path / "out")
    script(*apply, tmp_path / "out")
    assert holds(tmp_path / "out")
    vendored.run("verify", "--dest", tmp_path / "out")
    before = snapshot(vendored.upstream)
    assert f"holds other files, so nothing was written\n  {CORE}" in script(*apply, vendored.upstream, code=1)
    assert snapshot(vendored.upstream) == before
    (vendored.upstream / CORE).write_bytes(b"other")
    try:
        assert "is not what the lock says" in script(*apply, tmp_path / "x", code=4)
    finally:
        (vendored.upstream / CORE).write_bytes(FILES[CORE])
    assert not (tmp_path / "x").exists()


def test_apply_is_a_script_that_says_what_it_lacks(tmp_path: Path) -> None:
    path = ROOT / "tools/apply.py"
    assert "SOURCE" in script(path, "--help").upper()
    assert "is not there" in script(path, tmp_path, tmp_path / "out", code=4)
    assert "is not installed here" in script("-I", "-S", path, "a", "b", code=1)
