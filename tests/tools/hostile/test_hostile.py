"""Every hostile input is refused through the command line, with its own message, and nothing anywhere is written."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.conftest import FILES, Project, git
from tests.tools.hostile import calls, locks, manifests, patches, repositories, wheels
from tests.tools.hostile.cases import Case
from tests.tools.servers import redirect, serving, wheel_table
from tools.__main__ import main
from tools.hashes import sha256

CASES = [*patches.cases(), *locks.cases(), *calls.cases(), *manifests.cases()]
Seen = dict[str, tuple[str, bytes]]


class Arena:
    """A project and all that a run could reach: HOME, store, temporary and working folder, and a canary beside them."""

    def __init__(self, where: Path, template: Project) -> None:
        self.where = where
        self.upstream = where / "upstream"
        shutil.copytree(template.upstream, self.upstream)
        shutil.copytree(template.root, where / "project")
        shutil.copytree(template.store, where / "store")
        text = (where / "project/upstream.lock").read_text(encoding="utf-8")
        self.project = Project(where / "project", self.upstream, template.commit, where / "store")
        self.project.lock.write_text(text.replace(template.upstream.as_uri(), self.upstream.as_uri()), encoding="utf-8")
        for name in ("home", "temporary", "working", "canary"):
            (where / name).mkdir()
            (where / name / "mine").write_bytes(b"to be left alone\n")

    def seen(self) -> Seen:
        """Everything there: its kind, and its bytes or where it leads."""
        found: Seen = {}
        for path in self.where.rglob("*"):
            kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
            data = os.fsencode(path.readlink()) if kind == "link" else path.read_bytes() if kind == "file" else b""
            found[path.relative_to(self.where).as_posix()] = (kind, data)
        return found

    def run(self, *arguments: str) -> int:
        return main(["--root", str(self.project.root), "--store", str(self.project.store), *arguments])


@pytest.fixture(scope="module")
def surroundings() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def shared(
    template: Project, tmp_path_factory: pytest.TempPathFactory, surroundings: pytest.MonkeyPatch
) -> tuple[Arena, Seen]:
    """One for all cases, since none of them may change it, and what is in it."""
    arena = Arena(tmp_path_factory.mktemp("arena"), template)
    surroundings.setenv("HOME", str(arena.where / "home"))
    surroundings.setenv("XDG_CACHE_HOME", str(arena.where / "home/cache"))
    surroundings.setattr("tempfile.tempdir", str(arena.where / "temporary"))
    surroundings.chdir(arena.where / "working")
    return arena, arena.seen()


@pytest.fixture
def arena(shared: tuple[Arena, Seen]) -> Iterator[Arena]:
    """The same, held to be as it was when a test is over."""
    arena, before = shared
    yield arena
    assert arena.seen() == before


@pytest.fixture
def own(template: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arena:
    """An arena to be changed, before its first run: no tree, nothing in the store."""
    arena = Arena(tmp_path / "arena", template)
    shutil.rmtree(arena.project.tree)
    shutil.rmtree(arena.project.store)
    monkeypatch.setenv("HOME", str(arena.where / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(arena.where / "temporary"))
    monkeypatch.chdir(arena.where / "working")
    return arena


def refused(
    arena: Arena, code: int, says: tuple[str, ...], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = arena.seen()
    capsys.readouterr()
    assert arena.run(*arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.isprintable() or all(char.isprintable() or char == "\n" for char in said.err)
    missing = [pattern for pattern in says if not re.search(pattern, said.err)]
    assert not missing, said.err[:3000]
    assert arena.seen() == before


def test_no_two_cases_are_one() -> None:
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name!a}")
def test_refused(case: Case, arena: Arena, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {name: (arena.project.root / name).read_bytes() for name in case.files}
    try:
        for name, data in case.files.items():
            (arena.project.root / name).write_bytes(data)
        refused(arena, case.code, case.says, case.arguments(arena.where / "canary"), capsys)
    finally:
        for name, data in kept.items():
            (arena.project.root / name).write_bytes(data)


@pytest.mark.parametrize("wheel", [*wheels.wheels()], ids=lambda wheel: f"wheel: {wheel.name!a}")
def test_a_wheel_is_refused(
    wheel: wheels.Wheel, own: Arena, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = sha256(wheel.data) if wheel.known else "0" * 64
    own.project.sources(['kind = "index"\n\n' + wheel_table("tiny", "1.0", digest)])
    own.project.pieces({"models/alpha/core.py": f"tiny:{wheels.MEMBER} | a0+1"})
    # What pip would have brought, without half a second for pip.
    monkeypatch.setattr("tools.sources.download_wheels", lambda _: iter([wheel.data]))
    refused(own, 5, (wheel.says, "missing: models/alpha/core.py"), ["vendor"], capsys)


@pytest.mark.parametrize("case", [*repositories.repositories()], ids=lambda case: f"repository: {case.name}")
def test_a_repository_is_refused(case: repositories.Repository, own: Arena, capsys: pytest.CaptureFixture[str]) -> None:
    made = case.make(own.upstream)
    text = own.project.lock.read_text(encoding="utf-8")
    own.project.lock.write_text(
        text.replace(f'commit = "{own.project.commit}"', f'commit = "{made}"', 1), encoding="utf-8"
    )
    refused(own, 5, (case.says,), ["lock"], capsys)


def test_what_surrounds_the_pinned_files_lands_nowhere(own: Arena) -> None:
    """Hooks, configuration, `..` and links at other paths: the pinned files come, and nothing else of it."""
    made = repositories.surrounding(own.upstream)
    config = own.upstream / ".git/config"
    run = f"touch {own.where}/canary/owned"
    config.write_text(
        config.read_text() + f'[uploadpack]\n\tpackObjectsHook = "{run}; #"\n[core]\n\tfsmonitor = "{run}"\n'
        f'\tsshCommand = "{run}"\n\tgitProxy = "{run}"\n'
    )
    for name in ("post-checkout", "pre-receive", "post-update", "reference-transaction"):
        hook = own.upstream / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{run}\n")
        hook.chmod(0o755)
    text = own.project.lock.read_text(encoding="utf-8")
    own.project.lock.write_text(text.replace(own.project.commit, made), encoding="utf-8")
    before = own.seen()
    assert own.run("vendor") == 0
    after = own.seen()
    new = {path for path in after if path not in before and after[path][0] != "folder"}
    assert {path for path in new if not path.startswith("store/sha256/")} == {
        "project/vendor/PROVENANCE.json",
        *(f"project/vendor/{path}" for path in FILES),
    }
    assert {path: after.get(path) for path in before} == before


def test_no_configuration_of_the_user_brings_a_remote_helper_back(
    own: Arena, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = own.where / "home/gitconfig"
    config.write_text(
        f'[protocol "ext"]\n\tallow = always\n[url "ext::touch {own.where}/canary/"]\n\tinsteadOf = https://example.org/\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    text = own.project.lock.read_text(encoding="utf-8")
    own.project.lock.write_text(text.replace(own.upstream.as_uri(), "https://example.org/owned"), encoding="utf-8")
    refused(own, 5, ("transport 'ext' not allowed",), ["vendor"], capsys)


def test_the_users_own_narrower_choice_of_transports_stays(
    own: Arena, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "https:ext")
    refused(own, 5, ("transport 'file' not allowed",), ["vendor"], capsys)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "file://localhost/etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_another_scheme_is_not_followed(to: str, own: Arena, capsys: pytest.CaptureFixture[str]) -> None:
    with serving({}) as host:
        host.odd["*"] = [redirect(to)]
        own.project.sources([host.source])
        refused(own, 5, ("InvalidSchema: No connection adapters were found for",), ["vendor"], capsys)


def test_a_hosts_control_characters_do_not_reach_the_terminal(own: Arena, capsys: pytest.CaptureFixture[str]) -> None:
    with serving({}) as host:
        host.odd["*"] = [redirect("gopher://x/\x1b]0;owned\x07")]
        own.project.sources([host.source])
        refused(own, 5, ("No connection adapters",), ["vendor"], capsys)


@pytest.mark.parametrize("what", ["a link to a device", "a folder", "a pipe"])
@pytest.mark.parametrize("name", ["patches/core.patch", "upstream.lock", "vendor/PROVENANCE.json"])
def test_only_a_regular_file_is_read(
    what: str, name: str, own: Arena, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own.project.root / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if what == "a link to a device":
        path.symlink_to("/dev/zero")
    elif what == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    # A pipe cannot be part of the picture: reading it waits for a writer.
    monkeypatch.setattr(Arena, "seen", lambda _: {})
    says = "is not a manifest that this tool wrote" if "vendor" in name else "is no regular file"
    refused(own, 1 if "vendor" in name else 2, (says,), ["vendor"], capsys)


def test_the_upstream_of_these_tests_is_a_good_one(own: Arena) -> None:
    made = repositories.whole(own.upstream)
    text = own.project.lock.read_text(encoding="utf-8")
    own.project.lock.write_text(text.replace(own.project.commit, made), encoding="utf-8")
    assert own.run("lock") == 0
    assert git("rev-parse", "main", cwd=own.upstream).strip() == made
