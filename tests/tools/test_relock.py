"""Tests `lock`, which computes upstream.lock, and `lint`, which checks it."""

import re
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.tools.conftest import CORE, EXTRA, FILES, NET, Project, make_patch, make_project, make_upstream, write
from tests.tools.servers import make_wheel, pip_environment
from tools.lock import Pin, dump, load


def entry(project: Project, path: str) -> Any:
    return next(file for file in load(project.root).files if file.path == path)


@pytest.fixture
def packaged(tmp_path: Path) -> Project:
    """A project that has decided on a wheel, which has NET with Windows line ends, and no part of EXTRA."""
    project = make_project(tmp_path, {**FILES, EXTRA: "# schön\n".encode()})
    members = {"net.py": FILES[NET].replace(b"\n", b"\r\n"), "core.py": FILES[CORE][:40] + b"# not upstream's\n"}
    make_wheel(tmp_path / "wheels", "mini", "1.0", {**members, "rest.py": FILES[CORE][40:]})
    project.decide(wheels=["mini==1.0"])
    project.env |= pip_environment(tmp_path / "wheels")
    return project


def test_a_new_component_is_locked_as_a_whole(tmp_path: Path) -> None:
    project = make_project(tmp_path, edited={})
    whole = project.lock.read_bytes()
    for names in (["beta"], ["alpha", "beta"]):
        project.decide(components={name: f"models/{name}" for name in names})
        project.run("lock")
        assert (project.lock.read_bytes() == whole) == (len(names) == 2)
    project.decide(components={"alpha": "models/alpha", "gone": "models/gone"})
    assert "has no *.py file in models/gone" in project.run("lock", code=2).stderr


# Patches.


def test_all_patches_that_do_not_fit_are_named_at_once(project: Project) -> None:
    core, net = (project.root / f"patches/{name}.patch" for name in ("core", "net"))
    lock, good = project.lock.read_bytes(), net.read_text("utf-8")
    net.write_text(good.replace("beta/net.py", "beta/not.py"), encoding="utf-8")
    assert "net.patch: models/beta/not.py" in project.run("lock", code=2).stderr
    for path, text in ((core, core.read_text("utf-8")), (net, good)):
        path.write_text(re.sub("(?m)^-(?!--)", "-not ", text), encoding="utf-8")
    said = project.run("lock", code=3).stderr
    assert ("core.patch" in said, "net.patch" in said) == (True, True)
    assert project.lock.read_bytes() == lock


def test_a_lock_that_no_verb_could_read_is_not_written(project: Project) -> None:
    lock = project.lock.read_bytes()
    project.decide(extras={"fast": ["nett.patch"]})
    assert "extras.fast: no patch is called nett.patch" in project.run("lock", code=2).stderr
    project.decide(extras={})
    write(project.root, {"patches/my extra.patch": make_patch(project.upstream, EXTRA, b"x = 1\n", "Ours.")})
    assert "should be a file name that ends in .patch, is 'my extra.patch'" in project.run("lock", code=2).stderr
    assert project.lock.read_bytes() == lock


def test_a_component_leaves_the_lock_with_its_patch(project: Project) -> None:
    project.decide(components={"alpha": "models/alpha"})
    said = project.run("lock", code=2).stderr
    assert f"  net.patch: {NET}\nnext: rm patches/net.patch  # or" in said
    (project.root / "patches/net.patch").unlink()
    project.run("lock")
    project.run("vendor")


# No false provenance.


@pytest.mark.parametrize("verb", ["lock", "vendor", "verify", "refresh", "lint"])
def test_a_lock_whose_commit_was_changed_by_hand_is_refused(verb: str, project: Project) -> None:
    later = project.advance({"README": b"Nothing pinned.\n"})
    forged = project.lock.read_bytes().replace(project.commit.encode(), later.encode(), 1)
    project.lock.write_bytes(forged)
    said = project.run(verb, code=2).stderr
    assert "was changed by hand" in said
    assert "git checkout upstream.lock" in said
    assert f"rebase --to {later}" in said
    assert project.lock.read_bytes() == forged


def test_what_is_new_and_another_repository_are_left_to_a_rebase(project: Project, tmp_path: Path) -> None:
    project.advance({"models/alpha/new.py": b"NEW = 1\n", EXTRA: b"more = 1\n"})
    assert "are up to date" in project.run("lock").stdout
    make_upstream(tmp_path / "fork", {CORE: b"FORK = 1\n"})
    project.decide(upstream=Pin((tmp_path / "fork").as_uri(), "main"))
    assert "rebase --to main  # follows the repository" in project.run("lock", code=5).stderr


# What cannot be reached.


def test_without_upstream_the_pinned_files_are_found_by_their_hashes(project: Project) -> None:
    """With a package index alone, a patch's description can be changed."""
    project.run("vendor")
    project.alone()
    path = project.root / "patches/net.patch"
    path.write_text(path.read_text("utf-8").replace("Change net.", "Use the real pi."), encoding="utf-8")
    assert project.run("lock").stdout == "written: upstream.lock\n"
    project.run("lint")


def test_a_pin_and_a_baseline_that_cannot_be_had_stop_a_lock_that_has_to_ask(project: Project) -> None:
    gone = project.upstream.with_name("gone").as_uri()
    lock = load(project.root)
    project.decide(baseline=Pin(gone, "main", project.commit))
    assert f"git {gone} failed" in project.run("lock", code=5).stderr
    asked = attrs.evolve(lock, baseline=attrs.evolve(lock.baseline, url=gone))
    project.lock.write_bytes(dump(asked))
    project.run("lock")
    forged = dump(attrs.evolve(asked, pin=attrs.evolve(lock.pin, commit="0" * 40)))
    project.lock.write_bytes(forged)
    shutil.rmtree(project.store, ignore_errors=True)
    project.run("lock", code=5)
    assert project.lock.read_bytes() == forged


# Wheels and pieces.


def test_pieces_are_found_in_the_wheels_except_for_files_that_their_patch_holds(packaged: Project) -> None:
    said = packaged.run("lock").stderr
    assert "looking for pieces of 5 files" in said
    assert entry(packaged, NET).pieces == f"mini:net.py | 0:0+{len(FILES[NET])}"
    assert f"the wheels do not have all of {EXTRA}" in said
    packaged.alone()
    shutil.rmtree(packaged.store)
    assert "2 from index" in packaged.run("vendor", "--components", "beta").stdout
    packaged.upstream.with_name("away").rename(packaged.upstream)
    write(packaged.tree, {NET: b"AREA = None\n"})
    packaged.run("refresh")
    assert entry(packaged, NET).pieces == ""
    assert "are up to date" in packaged.run("lock").stdout


def test_a_wheel_that_changed_or_cannot_be_had_keeps_hash_and_pieces(packaged: Project, tmp_path: Path) -> None:
    [wheel] = tmp_path.glob("wheels/*.whl")
    away = wheel.rename(wheel.with_suffix(".away"))
    assert "wheels could not be read\n  mini==1.0: " in packaged.run("lock", code=5).stderr
    away.rename(wheel)
    packaged.run("lock")
    before = packaged.lock.read_bytes()
    make_wheel(tmp_path / "wheels", "mini", "1.0", {"mini/more.py": b"\n"})
    assert "mini==1.0: the wheel's SHA-256 is" in packaged.run("lock").stderr
    assert packaged.lock.read_bytes() == before
    wheel.unlink()
    assert "mini==1.0: No matching distribution" in packaged.run("lock").stderr
    assert packaged.lock.read_bytes() == before
    # Pieces of a wheel that is not wanted any more go with it.
    packaged.decide(wheels=[])
    packaged.run("lock")
    assert entry(packaged, NET).pieces == ""


# lint.


def test_lint_is_offline_and_names_what_it_could_not_try_and_unknown_patches(project: Project) -> None:
    project.alone()
    said = project.run("lint").stdout
    assert [line.partition(": not in the store")[0] for line in said.splitlines()[:-1]] == [CORE, NET]
    shutil.copy(project.root / "patches/net.patch", project.root / "patches/other.patch")
    assert "other.patch" in project.run("lint", code=1).stderr
    away = project.upstream.with_name("away")
    assert "must be the only patch of a pinned file" in project.run("lock", "--upstream", away, code=2).stderr
