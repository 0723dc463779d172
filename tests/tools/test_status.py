"""`status`: how things stand, whatever stands there, without touching or fetching anything."""

import shutil
from pathlib import Path

from tests.tools.conftest import Project
from tools.hashes import sha256


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_before_a_first_run(unfetched: Project) -> None:
    lines = unfetched.run("status").stdout.splitlines()
    assert lines == [
        f"pin                 {unfetched.commit} of 2026-01-02",
        f"store               0 of 5 pinned files in {unfetched.store}",
        "tree alpha          absent",
        "tree beta           absent",
        "patches/core.patch  as locked, +1 -2",
        "patches/net.patch   as locked, +1 -1",
    ]
    assert not unfetched.store.exists()
    assert not unfetched.tree.exists()


def test_after_a_first_run(vendored: Project) -> None:
    before = everything(vendored.root.parent)
    assert vendored.json("status") == {
        "schema": 1,
        "verb": "status",
        "ok": True,
        "pin": vendored.commit,
        "date": "2026-01-02T03:04:05+00:00",
        "stored": 5,
        "total": 5,
        "tree": {"alpha": "as locked", "beta": "as locked"},
        "patches": {"patches/core.patch": "as locked, +1 -2", "patches/net.patch": "as locked, +1 -1"},
    }
    assert everything(vendored.root.parent) == before


def test_what_is_off_is_said_and_is_no_failure(vendored: Project) -> None:
    (vendored.tree / "models/alpha/core.py").write_bytes(b"")
    (vendored.tree / "models/alpha/stray.py").write_bytes(b"")
    shutil.rmtree(vendored.tree / "models/beta")
    for name, old, new in (("core", b"Change core", b"Change it"), ("net", b"Origin: other\n", b"")):
        path = vendored.root / "patches" / f"{name}.patch"
        path.write_bytes(path.read_bytes().replace(old, new))
    report = vendored.json("status")
    assert report["tree"] == {"alpha": "2 findings, see make verify", "beta": "absent"}
    assert report["patches"] == {
        "patches/core.patch": "patches/core.patch is not the file the lock names",
        "patches/net.patch": "patches/net.patch is malformed",
    }


def test_another_tree_can_be_looked_at(vendored: Project, tmp_path: Path) -> None:
    report = vendored.json("status", "--dest", tmp_path / "nowhere")
    assert report["tree"] == {"alpha": "absent", "beta": "absent"}


def test_a_file_where_a_component_should_be_is_said(vendored: Project) -> None:
    shutil.rmtree(vendored.tree / "models/beta")
    (vendored.tree / "models/beta").write_bytes(b"")
    assert "findings" in vendored.json("status")["tree"]["beta"]


def test_a_bad_store_entry_is_not_counted(vendored: Project) -> None:
    digest = sha256(b"# nothing to see\n")
    entry = vendored.store / "sha256" / digest[:2] / digest[2:]
    entry.write_bytes(b"something else")
    done = vendored.run("status")
    assert "store               4 of 5 pinned files" in done.stdout
    assert "warning: store entry dropped" in done.stderr


def test_a_patch_that_cannot_be_read_is_said(vendored: Project) -> None:
    (vendored.root / "patches" / "net.patch").unlink()
    (vendored.root / "patches" / "net.patch").mkdir()
    assert "cannot be read" in vendored.json("status")["patches"]["patches/net.patch"]
