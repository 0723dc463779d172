"""Rebase, outdated and audit on the real histories, where this machine reaches them.

The miniatures of test_rebase.py show the same on every machine.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.conftest import Project
from tools.git import RemoteError, remote_tip
from tools.lock import load

LOCK = load(ROOT)
FIRST = "70c37d35cdbf91d4a01090884a33f4d539fa142f"
MSST = "https://github.com/ZFTurbo/Music-Source-Separation-Training.git"
ATTEND, SAGE = "models/bs_roformer/attend.py", "models/bs_roformer/attend_sage.py"


def reach(url: str) -> None:
    """Skip, or fail under REQUIRE_UPSTREAM=1, unless `url` can be asked."""
    try:
        remote_tip(url, "main")
    except RemoteError as error:
        message = f"cannot be reached: {url}: {error}"
        if os.environ.get("REQUIRE_UPSTREAM"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real") / "store"


@pytest.fixture
def real(tmp_path: Path, store: Path) -> Project:
    """A copy of this project's own lock, patches and documents."""
    reach(LOCK.pin.url)
    root = tmp_path / "project"
    root.mkdir()
    shutil.copytree(ROOT / "patches", root / "patches")
    for name in ("upstream.lock", "README.md", "MODEL_CHANGES.md"):
        shutil.copyfile(ROOT / name, root / name)
    # What documents tell of besides lock and patches.
    if (ROOT / "tests" / "results").exists():
        shutil.copytree(ROOT / "tests" / "results", root / "tests" / "results")
    return Project(root, Path(), LOCK.pin.commit, store)


def ours(project: Project) -> dict[str, list[bytes]]:
    """Patches and lock, without the day in a patch's header and what follows from it."""
    files = [project.lock, *sorted((project.root / "patches").iterdir())]
    return {
        path.name: [
            line for line in path.read_bytes().split(b"\n") if not line.startswith((b"Last-Update", b"sha256 ="))
        ]
        for path in files
    }


def test_the_pin_is_held_against_its_branch(real: Project) -> None:
    report = real.run("outdated", "--json", code=None)
    assert report.returncode in (0, 1)


def test_back_to_upstreams_first_commit_and_up_again(real: Project) -> None:
    before = ours(real)
    back = real.json("rebase", FIRST[:10])
    assert {file["path"] for file in back["files"] if file["outcome"] != "same"} == {
        ATTEND,
        "models/bs_roformer/bs_roformer.py",
    }
    assert load(real.root).pin.commit == FIRST
    real.run("lint")
    real.run("vendor")
    real.run("verify")
    behind = real.json("outdated", code=1)
    touching = [commit["commit"] for commit in behind["commits"] if commit["touches"]]
    # The two updates that upstream has made to these files since, newest first.
    assert touching[-2:] == ["c39dcdf8d76ae94744916b1528ce23cd1a883c76", "a643875da8b3c8478074cbfed9dc597e1ccca329"]
    dry = real.json("rebase", LOCK.pin.commit, "--dry-run")
    assert {patch["outcome"] for patch in dry["patches"]} <= {"clean", "merged"}
    up = real.json("rebase", LOCK.pin.commit)
    assert up["patches"] == dry["patches"]
    assert ours(real) == before
    assert real.run("verify", code=1).returncode == 1
    real.run("vendor")
    real.run("verify")


def test_on_to_the_newest_of_upstreams_own_upstream(real: Project) -> None:
    reach(MSST)
    before = ours(real)
    stopped = real.json("rebase", "main", "--url", MSST, code=3)
    outcomes = {patch["target"]: patch["outcome"] for patch in stopped["patches"]}
    # It was deleted there in January 2026.
    assert outcomes[SAGE] == "gone"
    assert any(SAGE in problem["text"] for problem in stopped["to_decide"])
    assert len([file for file in stopped["files"] if file["outcome"] == "changed"]) > 2
    assert ours(real) == before
    assert "is gone upstream" in real.run("rebase-status").stdout
    real.run("rebase", "main", code=2)
    real.run("rebase-abort")
    assert ours(real) == before
    real.run("rebase", "main", "--url", MSST, code=3)
    needed = [problem["drop"] for problem in stopped["to_decide"] if problem["drop"]]
    if any(not problem["drop"] for problem in stopped["to_decide"]):
        # Upstream's upstream has since moved into a conflict, which takes a person.
        real.run("rebase-continue", *(word for name in needed for word in ("--drop", name)), code=3)
        return
    done = real.json("rebase-continue", *(word for name in needed for word in ("--drop", name)))
    assert "patches/attend_sage.patch" in done["removed"]
    real.run("lint")
    real.run("lock", "--check")
    real.run("vendor")
    real.run("verify")
    assert not (real.tree / SAGE).exists()
    assert (real.tree / ATTEND).exists()


def test_six_files_of_the_baseline_differ_as_the_readme_shows(real: Project) -> None:
    reach(LOCK.baseline.url)
    real.run("vendor")
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
    sample = (ROOT / "README.md").read_text(encoding="utf-8").split("    $ make audit\n")[1].split("\n\n")[0]
    rows = [line.removeprefix("    ") for line in sample.splitlines() if line.strip() != "..."]
    assert len(rows) > 4
    assert set(rows) <= set(real.run("audit").stdout.splitlines())


def test_every_claim_of_this_projects_lock_and_documents_holds(real: Project) -> None:
    reach(LOCK.baseline.url)
    here = Project(ROOT, real.upstream, real.commit, real.store)
    claims = here.json("audit", "--check", "--dest", real.tree)["claims"]
    assert claims["false"] == []
    # Two for each pinned file at upstream, two at the baseline, and those of the documents.
    assert claims["checked"] > 4 * len(LOCK.files)


def test_a_checkout_with_windows_line_ends_is_what_it_was_but_for_them(real: Project) -> None:
    real.run("vendor")
    for path in real.tree.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    files = real.json("audit", "--tree", real.tree, "--dest", real.root / "nowhere")["files"]
    assert {file["path"]: file["tree"]["diff"] for file in files if file["tree"]["diff"]} == {}
    assert {word for file in files for word in file["status"] if word.startswith("is ")} == {
        f"is {side} but for CRLF" for side in ("upstream", "baseline", "vendored")
    }
    assert all("is vendored but for CRLF" in file["status"] for file in files)
