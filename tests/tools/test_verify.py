"""`verify` names everything that is not what the lock says, and nothing else."""

import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.conftest import EDITED, FILES, Project, make_project
from tools.__main__ import main

CORE, NET = "models/alpha/core.py", "models/beta/net.py"


def findings(project: Project, *options: str | Path) -> dict[str, set[str]]:
    """The findings by kind, the same on standard error and in JSON."""
    done = project.run("verify", "--json", *options, code=1)
    document = json.loads(done.stdout)
    assert (document["schema"], document["ok"], document["exit_code"]) == (1, False, 1)
    found: dict[str, set[str]] = {}
    for finding in document["findings"]:
        assert f"{finding['kind']}: {finding['path']}" in done.stderr
        found.setdefault(finding["kind"], set()).add(finding["path"])
    return found


def test_a_tree_as_locked_is_in_order(vendored: Project) -> None:
    assert vendored.json("verify") == {
        "schema": 1,
        "verb": "verify",
        "ok": True,
        "findings": [],
        "components": ["alpha", "beta"],
        "files": 5,
    }


def test_everything_that_is_off_is_named_at_once(vendored: Project, tmp_path: Path) -> None:
    alpha = vendored.tree / "models/alpha"
    (alpha / "__init__.py").unlink()
    (alpha / "core.py").write_bytes(FILES[CORE])
    (alpha / "extra.py").rename(tmp_path / "extra.py")
    (alpha / "extra.py").symlink_to(tmp_path / "extra.py")
    (alpha / "new.py").write_bytes(b"# new\n")
    (alpha / "deep").mkdir()
    (alpha / "deep/file").write_bytes(b"")
    (alpha / "__pycache__").mkdir()
    (alpha / "__pycache__/core.pyc").write_bytes(b"compiled")
    (alpha / "__pycache__/core.py").write_bytes(b"# no cache\n")
    (alpha.parent / ".alpha.dsu-staging-1234").mkdir()
    shutil.rmtree(vendored.tree / "models/beta")
    assert findings(vendored) == {
        "missing": {"models/alpha/__init__.py"},
        "modified": {CORE, "models/alpha/extra.py"},
        "extra": {"models/alpha/new.py", "models/alpha/deep/file", "models/alpha/__pycache__/core.py"},
        "incomplete": {"models/beta", "models/.alpha.dsu-staging-1234"},
    }
    stderr = vendored.run("verify", code=1).stderr
    assert "the patch is not applied" in stderr
    assert "not a regular file" in stderr
    assert "left by a killed run" in stderr
    assert "next: make vendor" in stderr
    # Files that we did not make are for the user to move away; then one run puts the rest right.
    shutil.rmtree(alpha / "deep")
    (alpha / "new.py").unlink()
    (alpha / "__pycache__/core.py").unlink()
    vendored.run("vendor")
    vendored.run("verify")


NO_CACHE = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")


def imported(tree: Path, *options: str) -> str:
    """What a program prints that imports the component beta."""
    command = [sys.executable, *options, "-c", "from models.beta import net; print(net.area(0))"]
    environment = {name: value for name, value in os.environ.items() if name not in NO_CACHE}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_cache_that_python_runs_without_a_look_at_the_source_is_extra(vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("def area(r): return 'other code'\n")
    cache = vendored.tree / "models/beta/__pycache__" / f"net.{sys.implementation.cache_tag}.pyc"
    mode = py_compile.PycInvalidationMode
    py_compile.compile(str(tmp_path / "other.py"), str(cache), invalidation_mode=mode.UNCHECKED_HASH, doraise=True)
    assert "other code" in imported(vendored.tree)
    path = cache.relative_to(vendored.tree).as_posix()
    assert findings(vendored) == {"extra": {path}}
    (vendored.tree / NET).unlink()
    assert f"not made by us: {path}" in vendored.run("vendor", code=1).stderr
    # With a look at the source it is of no effect.
    (vendored.tree / NET).write_bytes(EDITED[NET])
    for checked in (mode.CHECKED_HASH, mode.TIMESTAMP):
        py_compile.compile(str(tmp_path / "other.py"), str(cache), invalidation_mode=checked, doraise=True)
        vendored.run("verify")
        assert imported(vendored.tree) == "0.0\n"


def test_using_the_models_leaves_the_tree_as_locked(vendored: Project) -> None:
    for options in ([], ["-O"]):
        assert imported(vendored.tree, *options) == "0.0\n"
    assert list(vendored.tree.rglob("net.*.pyc"))
    os.utime(vendored.tree / NET, (1, 1))
    vendored.run("verify")
    assert "nothing to do" in vendored.run("vendor").stdout
    (vendored.tree / NET).unlink()
    vendored.run("vendor")
    vendored.run("verify")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_is_called_as_a_cache_is_extra(vendored: Project) -> None:
    (vendored.tree / "models/beta/__pycache__").mkdir()
    os.mkfifo(vendored.tree / "models/beta/__pycache__/net.cpython-311.pyc")
    stderr = vendored.run("verify", code=1, timeout=20).stderr
    assert "extra: models/beta/__pycache__/net.cpython-311.pyc" in stderr


@pytest.mark.parametrize("path", FILES)
def test_one_byte_in_any_file_is_seen(vendored: Project, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = vendored.tree / path
    file.write_bytes(file.read_bytes() + b"\n")
    assert main(["--root", str(vendored.root), "verify"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"  modified: {path} (expected SHA-256 ")


def test_line_ends_are_bytes_too(vendored: Project) -> None:
    file = vendored.tree / NET
    file.write_bytes(EDITED[NET].replace(b"\n", b"\r\n"))
    assert findings(vendored) == {"modified": {NET}}


def test_an_empty_or_absent_tree_is_incomplete(vendored: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("empty", "absent"):
        assert findings(vendored, "--dest", tmp_path / place) == {"incomplete": {"models/alpha", "models/beta"}}
    assert not (tmp_path / "absent").exists()


def test_a_component_that_was_never_vendored_here_is_no_finding_unless_named(vendored: Project, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    vendored.run("vendor", "--dest", tree, "--components", "beta")
    assert vendored.json("verify", "--dest", tree)["components"] == ["beta"]
    assert findings(vendored, "--dest", tree, "--components", "alpha beta") == {"incomplete": {"models/alpha"}}
    shutil.rmtree(tree / "models/beta")
    assert findings(vendored, "--dest", tree) == {"incomplete": {"models/beta"}}


def test_a_manifest_that_is_not_ours_is_named(vendored: Project) -> None:
    (vendored.tree / "PROVENANCE.json").write_text("{}")
    assert findings(vendored) == {"modified": {"PROVENANCE.json"}}


def test_files_without_a_manifest_are_incomplete(vendored: Project) -> None:
    (vendored.tree / "PROVENANCE.json").unlink()
    assert findings(vendored) == {"incomplete": {"PROVENANCE.json"}}


def test_a_tree_of_another_lock_is_named_as_such(vendored: Project, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other", {**FILES, NET: b"r = 1\n"}, {CORE: EDITED[CORE]})
    found = findings(other, "--dest", vendored.tree)
    assert found == {"modified": {NET}, "incomplete": {"PROVENANCE.json"}}


def test_what_a_killed_run_announced_is_incomplete_until_the_next_run(vendored: Project, tmp_path: Path) -> None:
    newer = make_project(tmp_path / "newer", {**FILES, NET: b"r = 1\n"}, {CORE: EDITED[CORE]})
    newer.run("vendor")
    shutil.copy(newer.tree / "PROVENANCE.json", vendored.tree / ".PROVENANCE.json.next")
    assert findings(vendored) == {"incomplete": {".PROVENANCE.json.next"}}
    shutil.rmtree(vendored.store)
    vendored.run("vendor", "--offline")
    vendored.run("verify")


def test_verify_changes_nothing_and_needs_neither_store_nor_network(vendored: Project) -> None:
    shutil.rmtree(vendored.store)
    before = {path: path.lstat().st_mtime_ns for path in vendored.tree.rglob("*")}
    vendored.env = {"PATH": os.devnull, "DSU_PATCHES_STORE": str(vendored.store)}
    vendored.run("verify")
    assert {path: path.lstat().st_mtime_ns for path in vendored.tree.rglob("*")} == before
    assert not vendored.store.exists()


def test_a_component_behind_a_link_is_not_there(vendored: Project, tmp_path: Path) -> None:
    (vendored.tree / "models/beta").rename(tmp_path / "beta")
    (vendored.tree / "models/beta").symlink_to(tmp_path / "beta")
    assert findings(vendored) == {"incomplete": {"models/beta"}}


def test_a_component_name_that_does_not_exist_is_a_usage_error(vendored: Project) -> None:
    assert "choose from: alpha, beta" in vendored.run("verify", "--components", "gamma", code=2).stderr
