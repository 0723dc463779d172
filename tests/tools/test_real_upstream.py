"""Rebase, outdated and audit on the real histories, where this machine reaches them.

The miniatures of test_rebase.py show the same on every machine.
"""

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import Project
from tools.errors import NoSource
from tools.git import tip
from tools.lock import load

LOCK = load(ROOT)
FIRST = "70c37d35cdbf91d4a01090884a33f4d539fa142f"
MSST = "https://github.com/ZFTurbo/Music-Source-Separation-Training.git"
ATTEND, SAGE = "models/bs_roformer/attend.py", "models/bs_roformer/attend_sage.py"


@pytest.fixture
def real(tmp_path: Path) -> Project:
    """A copy of this project's own lock, decisions, patches and documents."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "patches", root / "patches")
    for name in ("upstream.lock", "pyproject.toml", "README.md", "MODEL_CHANGES.md"):
        shutil.copyfile(ROOT / name, root / name)
    return Project(root, Path(), LOCK.pin.commit, tmp_path / "store")


def dateless(root: Path) -> dict[str, list[bytes]]:
    """Decisions, lock, patches and documents, without the day in a patch's header and what hashes that."""
    dated = (b"Last-Update", b"patch_sha256 =", b"digest =")
    return {
        path.relative_to(root).as_posix(): [
            line for line in path.read_bytes().split(b"\n") if not line.startswith(dated)
        ]
        for path in (*root.glob("*.*"), *root.glob("patches/*"))
        if path.is_file()
    }


def test_back_to_upstreams_first_commit_and_up_again_is_the_identity_but_for_the_date(real: Project) -> None:
    before = dateless(real.root)
    back = real.json("rebase", "--to", FIRST[:10])
    changed = {file["path"] for file in back["files"] if file["outcome"] != "same"}
    assert changed == {ATTEND, "models/bs_roformer/bs_roformer.py"}
    assert load(real.root).pin.commit == FIRST
    real.run("vendor")
    real.run("verify")
    touching = [commit["commit"] for commit in real.json("outdated", code=1)["commits"] if commit["touches"]]
    # The two updates that upstream has made to these files since, newest first.
    assert touching[-2:] == ["c39dcdf8d76ae94744916b1528ce23cd1a883c76", "a643875da8b3c8478074cbfed9dc597e1ccca329"]
    real.run("rebase", "--to", LOCK.pin.commit)
    assert dateless(real.root) == before


def test_onto_upstreams_own_upstream_it_stops_for_the_file_that_was_deleted_there(real: Project) -> None:
    try:
        tip(MSST, "main")
    except NoSource as error:
        pytest.skip(f"cannot be reached: {MSST}: {error}")
    before = dateless(real.root)
    stopped = real.json("rebase", "--to", "main", "--url", MSST, code=3)
    assert {patch["target"]: patch["outcome"] for patch in stopped["patches"]}[SAGE] == "gone"
    assert any(SAGE in problem["text"] for problem in stopped["to_decide"])
    real.run("rebase-abort")
    assert dateless(real.root) == before


def test_six_files_of_the_baseline_differ(real: Project) -> None:
    files = {file["path"].split("/", 1)[1]: file["status"] for file in real.json("audit")["files"]}
    assert {path for path, status in files.items() if "baseline differs" in status} == {
        "bs_roformer/bs_conformer.py",
        "bs_roformer/bs_roformer.py",
        "bs_roformer/bs_roformer_experimental.py",
        "bs_roformer/mel_band_conformer.py",
        "bs_roformer/mel_band_roformer.py",
        "scnet/scnet.py",
    }
    assert all("baseline agrees" in status for status in files.values() if "baseline differs" not in status)


def test_every_claim_of_this_projects_lock_and_documents_holds(real: Project) -> None:
    assert "all claims of the lock and the documents hold" in real.run("audit", "--check").stdout
