"""The store: content-addressed, never trusted, never needed."""

import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from tests.conftest import run_tools
from tests.tools.conftest import EDITED, FILES, Project

CORE = "models/alpha/core.py"


def entry(store: Path, data: bytes) -> Path:
    digest = sha256(data).hexdigest()
    return store / "sha256" / digest[:2] / digest[2:]


def as_expected(tree: Path) -> bool:
    return all((tree / path).read_bytes() == EDITED.get(path, data) for path, data in FILES.items())


@pytest.fixture
def stored(vendored: Project) -> Project:
    """A filled store and no tree."""
    shutil.rmtree(vendored.tree)
    return vendored


def test_entries_lie_under_their_hash(stored: Project) -> None:
    for data in FILES.values():
        assert entry(stored.store, data).read_bytes() == data
    assert len([path for path in stored.store.rglob("*") if path.is_file() and path.suffix != ".origin"]) == len(FILES)


@pytest.mark.parametrize(
    "damage", [b"", FILES[CORE][:10], FILES[CORE] + b"\n", b"\0" * 100], ids=["empty", "cut", "longer", "zeroes"]
)
def test_a_damaged_entry_is_dropped_with_a_warning_and_fetched_again(stored: Project, damage: bytes) -> None:
    path = entry(stored.store, FILES[CORE])
    path.write_bytes(damage)
    assert CORE in stored.run("vendor", "--offline", code=5).stderr
    assert not path.exists()
    path.write_bytes(damage)
    done = stored.run("--quiet", "vendor")
    [warning] = done.stderr.splitlines()
    assert warning.startswith("warning: store entry dropped")
    assert str(path) in warning
    assert path.read_bytes() == FILES[CORE]
    assert as_expected(stored.tree)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_an_entry_or_its_origin_is_passed_over(stored: Project) -> None:
    path = entry(stored.store, FILES[CORE])
    path.unlink()
    os.mkfifo(path)
    origin = entry(stored.store, FILES["models/alpha/extra.py"]).with_suffix(".origin")
    origin.unlink()
    os.mkfifo(origin)
    assert f"warning: store entry cannot be read: {path}" in stored.run("vendor", timeout=20).stderr
    assert as_expected(stored.tree)
    assert path.read_bytes() == FILES[CORE]


def test_an_entry_that_is_far_too_large_is_passed_over(stored: Project) -> None:
    path = entry(stored.store, FILES[CORE])
    os.truncate(path, 8 * 1024 * 1024)
    assert "no regular file, or too large" in stored.run("vendor").stderr
    assert path.read_bytes() == FILES[CORE]


def test_a_folder_in_place_of_an_entry_is_passed_over(stored: Project) -> None:
    path = entry(stored.store, FILES[CORE])
    path.unlink()
    path.mkdir()
    assert "warning: " in stored.run("vendor").stderr
    assert as_expected(stored.tree)


def test_an_origin_that_cannot_be_read_is_called_store(stored: Project) -> None:
    entry(stored.store, FILES[CORE]).with_suffix(".origin").write_bytes(b"\xff\xfe")
    entry(stored.store, FILES["models/alpha/extra.py"]).with_suffix(".origin").unlink()
    sources = {row["path"]: row["source"] for row in stored.json("vendor")["files"]}
    assert sources[CORE] == sources["models/alpha/extra.py"] == "store"
    assert sources["models/beta/net.py"].startswith("git ")


@pytest.mark.parametrize("place", ["file/store", "half"])
def test_a_store_that_cannot_be_written_is_warned_of_once(unfetched: Project, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/sha256").write_bytes(b"no folder")
    unfetched.store = tmp_path / place
    done = unfetched.run("vendor")
    [warning] = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert str(unfetched.store) in warning
    assert as_expected(unfetched.tree)
    unfetched.run("status")


def test_a_store_that_is_a_file_is_a_usage_error(unfetched: Project, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    unfetched.store = tmp_path / "file"
    assert "file" in unfetched.run("vendor", code=2).stderr


def test_the_environment_names_the_store_and_the_option_goes_before_it(unfetched: Project, tmp_path: Path) -> None:
    environment = {"DSU_PATCHES_STORE": str(tmp_path / "named"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run_tools("--root", unfetched.root, "vendor", env=environment).returncode == 0
    assert entry(tmp_path / "named", FILES[CORE]).exists()
    assert not (tmp_path / "cache").exists()
    unfetched.env = environment
    unfetched.run("vendor", "--dest", tmp_path / "again")
    assert entry(unfetched.store, FILES[CORE]).exists()


def test_by_default_the_store_is_in_the_users_cache_folder(unfetched: Project, tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path), "DSU_PATCHES_STORE": ""}
    assert run_tools("--root", unfetched.root, "vendor", env=environment).returncode == 0
    assert [path for path in tmp_path.rglob(entry(Path("dsu-patches"), FILES[CORE]).name) if "dsu-patches" in str(path)]


def test_wrong_bytes_from_a_source_are_not_kept(unfetched: Project) -> None:
    (unfetched.upstream / "unrelated").mkdir(exist_ok=True)
    lock = unfetched.lock.read_text(encoding="utf-8")
    unfetched.lock.write_text(lock.replace(sha256(FILES[CORE]).hexdigest(), "0" * 64), encoding="utf-8")
    done = unfetched.run("vendor", code=5)
    assert f"{CORE}: wrong bytes" in done.stderr
    assert not entry(unfetched.store, FILES[CORE]).exists()
    assert entry(unfetched.store, FILES["models/beta/net.py"]).exists(), (
        "what did pass its hash need not be fetched again"
    )
