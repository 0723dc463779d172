"""`lock` computes upstream.lock from decisions and the real things; `lint` says whether all of it is in order."""

import re
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.tools.conftest import EDITED, FILES, Project, git, make_project, make_upstream, write, write_decisions
from tests.tools.servers import make_wheel, pip_environment
from tools.files import sha256
from tools.lock import decided, dump, load

CORE, NET, EXTRA = "models/alpha/core.py", "models/beta/net.py", "models/alpha/extra.py"


def entry(project: Project, path: str) -> Any:
    return next(file for file in load(project.root).files if file.path == path)


def decide(project: Project, **decisions: Any) -> None:
    """Change pyproject.toml, as a person does: the lock stays as it is."""
    write_decisions(project.root, attrs.evolve(decided(project.root), **decisions))


@pytest.fixture
def packaged(tmp_path: Path) -> Project:
    """A project that has decided on a wheel, whose files hold one pinned file with Windows line ends, and parts of all
    others but of EXTRA.
    """
    project = make_project(tmp_path, {**FILES, EXTRA: "# schön\n".encode()})
    members = {
        "mini/net.py": FILES[NET].replace(b"\n", b"\r\n"),
        "mini/core.py": FILES[CORE][:40] + b"# not upstream's\n",
    }
    make_wheel(tmp_path / "wheels", "mini", "1.0", {**members, "mini/rest.py": FILES[CORE][40:]})
    decide(project, wheels=["mini==1.0"])
    project.env |= pip_environment(tmp_path / "wheels")
    return project


# The lock is what the real things give.


def test_what_the_baseline_has_is_locked(project: Project, tmp_path: Path) -> None:
    other = b"FACTOR = 3\n"
    files = {path: data for path, data in FILES.items() if "beta" not in path} | {CORE: other}
    url = (tmp_path / "app").as_uri()
    commit = make_upstream(tmp_path / "app", files)
    decide(project, baseline=attrs.evolve(decided(project.root).baseline, url=url, commit=commit))
    project.run("lock")
    found = {path: entry(project, path).baseline for path in FILES}
    hashes = {path: sha256(data) for path, data in files.items()}
    assert found == hashes | {path: "absent" for path in FILES if "beta" in path}


def test_a_component_that_is_decided_on_is_locked_whole(project: Project) -> None:
    project.run("refresh", "--drop", "core.patch")
    decide(project, components={"beta": "models/beta"})
    project.run("lock")
    decide(project, components={"alpha": "models/alpha", "beta": "models/beta"})
    project.run("lock")
    assert [file.path for file in load(project.root).files] == sorted(FILES)


def test_a_component_whose_folder_is_not_there_is_named(project: Project) -> None:
    decide(project, components={**decided(project.root).components, "gone": "models/gone"})
    assert "has no *.py file in models/gone" in project.run("lock", code=2).stderr


def test_what_is_new_upstream_is_left_to_a_rebase(project: Project) -> None:
    project.advance({"models/alpha/new.py": b"NEW = 1\n", EXTRA: b"more = 1\n"})
    assert project.json("lock")["changed"] == []


def test_a_token_in_a_url_reaches_no_lock(project: Project) -> None:
    decide(project, upstream=attrs.evolve(decided(project.root).upstream, url="https://me:secret@example.org/x.git"))
    done = project.run("lock", code=2)
    assert "holds a password @ pyproject.toml.upstream.url" in done.stderr
    assert "secret" not in done.stderr + project.lock.read_text(encoding="utf-8")


# Patches.


def test_a_patch_file_that_was_edited_by_hand_is_taken_up(project: Project) -> None:
    path = project.root / "patches/net.patch"
    path.write_text(path.read_text("utf-8").replace("Change net.", "Use the real pi."), encoding="utf-8")
    assert project.json("lock")["changed"] == ["upstream.lock"]
    project.run("vendor")
    assert (project.tree / NET).read_bytes() == EDITED[NET]


def test_all_patches_that_do_not_fit_are_named_at_once(project: Project) -> None:
    for name in ("core", "net"):
        path = project.root / f"patches/{name}.patch"
        path.write_text(re.sub("(?m)^-(.)", r"-not \1", path.read_text("utf-8")).replace("--not -", "---"), "utf-8")
    before = project.lock.read_bytes()
    said = project.run("lock", code=2).stderr
    assert "core.patch" in said
    assert "net.patch" in said
    assert project.lock.read_bytes() == before


def test_a_patch_of_a_file_that_is_not_pinned_is_named(project: Project) -> None:
    path = project.root / "patches/net.patch"
    path.write_text(path.read_text("utf-8").replace("beta/net.py", "beta/not.py"), encoding="utf-8")
    assert "models/beta/not.py is no pinned file" in project.run("lock", code=2).stderr


@pytest.mark.parametrize("verb", ["lock", "lint"])
def test_a_patch_that_makes_what_no_patch_may_is_refused(verb: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, edited={NET: b"def half(:\n"})
    project.run("vendor")
    assert f"{NET}: is no Python" in project.run(verb, code=2).stderr


# No false provenance.


@pytest.mark.parametrize("verb", ["lock", "vendor", "refresh", "lint"])
def test_a_lock_whose_commit_was_changed_by_hand_is_refused(verb: str, project: Project) -> None:
    later = project.advance({"README": b"Nothing pinned.\n"})
    head, tail = project.lock.read_text("utf-8").split("[baseline]")
    project.lock.write_text(f"{head.replace(project.commit, later)}[baseline]{tail}", encoding="utf-8")
    before = project.lock.read_bytes()
    said = project.run(verb, code=2).stderr
    assert "was changed by hand" in said
    assert "git checkout upstream.lock" in said
    assert project.lock.read_bytes() == before


def test_a_commit_that_is_not_there_is_exit_5_and_writes_nothing(project: Project) -> None:
    lock = load(project.root)
    project.lock.write_bytes(dump(attrs.evolve(lock, pin=attrs.evolve(lock.pin, commit="0" * 40))))
    before = project.lock.read_bytes()
    shutil.rmtree(project.store, ignore_errors=True)
    project.run("lock", code=5)
    assert project.lock.read_bytes() == before


def test_another_repository_is_followed_by_a_rebase_alone(project: Project, tmp_path: Path) -> None:
    make_upstream(tmp_path / "fork", {CORE: b"FORK = 1\n"})
    decide(project, upstream=attrs.evolve(decided(project.root).upstream, url=(tmp_path / "fork").as_uri()))
    done = project.run("lock", code=5)
    assert "make rebase URL=" in done.stderr


# What cannot be reached.


@pytest.mark.parametrize("kind", ["clone", "bundle", "folder"])
def test_upstream_names_another_place_for_the_pin(kind: str, project: Project, tmp_path: Path) -> None:
    before = project.lock.read_bytes()
    git("bundle", "create", "-q", tmp_path / "bundle", "--all", cwd=project.upstream)
    git("clone", "-q", project.upstream, tmp_path / "clone", cwd=tmp_path)
    write(tmp_path / "folder", FILES)
    project.alone()
    project.run("lock", "--upstream", tmp_path / kind)
    assert project.lock.read_bytes() == before


def test_without_upstream_the_pinned_files_are_taken_by_their_hashes(project: Project) -> None:
    """Or on a machine with an index alone, nobody could change a patch's description."""
    project.run("vendor")
    project.alone()
    path = project.root / "patches/net.patch"
    path.write_text(path.read_text("utf-8").replace("Change net.", "Use the real pi."), encoding="utf-8")
    assert "the pinned files are taken by their hashes" in project.run("lock").stderr
    project.run("lint")


def test_a_baseline_that_cannot_be_had_stops_only_a_lock_that_has_to_ask_it(project: Project) -> None:
    gone = project.upstream.with_name("gone").as_uri()
    lock = load(project.root)
    decide(project, baseline=attrs.evolve(lock.decisions.baseline, url=gone))
    assert "the baseline" in project.run("lock", code=5).stderr
    project.lock.write_bytes(dump(attrs.evolve(lock, baseline=attrs.evolve(lock.baseline, url=gone))))
    project.run("lock")


# Wheels and pieces.


def test_pieces_are_found_in_the_wheels(packaged: Project) -> None:
    done = packaged.run("lock")
    assert "looking for pieces of 5 files" in done.stderr
    assert entry(packaged, NET).pieces == f"mini:mini/net.py | a0+{len(FILES[NET])}"
    assert f"an index alone does not give {EXTRA}" in done.stderr
    packaged.alone()
    shutil.rmtree(packaged.store)
    assert "2 from index" in packaged.json("vendor", "--components", "beta")["sources"]


def test_a_file_whose_patch_holds_it_needs_no_pieces(packaged: Project) -> None:
    packaged.run("lock")
    packaged.run("vendor")
    write(packaged.tree, {NET: b"AREA = None\n"})
    packaged.run("refresh")
    assert entry(packaged, NET).pieces == ""
    assert packaged.json("lock")["changed"] == []


def test_a_wheel_that_changed_since_is_said_and_not_used(packaged: Project, tmp_path: Path) -> None:
    packaged.run("lock")
    before = packaged.lock.read_bytes()
    make_wheel(tmp_path / "wheels", "mini", "1.0", {"mini/more.py": b"\n"})
    assert "stay as they are: mini==1.0: the wheel's SHA-256 is" in packaged.run("lock").stderr
    assert packaged.lock.read_bytes() == before


def test_a_wheel_that_cannot_be_had_keeps_hash_and_pieces_once_they_are_locked(packaged: Project) -> None:
    wheel = next(packaged.root.parent.glob("wheels/*.whl"))
    away = wheel.rename(wheel.with_suffix(".away"))
    assert "wheels could not be read\n  mini==1.0: " in packaged.run("lock", code=5).stderr
    away.rename(wheel)
    packaged.run("lock")
    before = packaged.lock.read_bytes()
    wheel.unlink()
    assert "stay as they are" in packaged.run("lock").stderr
    assert packaged.lock.read_bytes() == before


# lint.


def test_lint_is_content_offline_and_says_what_it_could_not_try(project: Project) -> None:
    project.alone()
    report = project.json("lint")
    assert (report["patches"], report["untried"]) == (2, [CORE, NET])


def test_lint_names_a_patch_file_that_the_lock_does_not_know(vendored: Project) -> None:
    shutil.copy(vendored.root / "patches/net.patch", vendored.root / "patches/other.patch")
    assert "other.patch" in vendored.run("lint", code=1).stderr
    assert "the only one for it" in vendored.run("lock", code=2).stderr
