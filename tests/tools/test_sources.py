"""Tests the sources of files: real repositories, local servers and wheels, with good and bad answers."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import servers
from tests.tools.conftest import CORE, EDITED, FILES, Project, git, make_project, snapshot, write
from tools.files import sha256
from tools.sources import on_github

TEMPLATE = "/{commit}/{path}"


@pytest.fixture
def raw(project: Project) -> Iterator[servers.Host]:
    """A host with the project's files; upstream's repository is gone."""
    project.alone()
    with servers.serving(FILES) as host:
        project.decide(raw=[host.url + TEMPLATE])
        yield host


def missing(project: Project, *arguments: str) -> str:
    """Standard error of a `vendor` that exits with 5 and writes nothing."""
    said = project.run("vendor", *arguments, code=5).stderr
    assert not project.tree.exists()
    return said


def test_raw_urls_are_asked_by_path_or_by_hash_when_git_cannot_be(project: Project, raw: servers.Host) -> None:
    assert "5 from raw 127.0.0.1:" in project.run("vendor").stdout
    assert sorted(raw.asked) == sorted(FILES)
    raw.files = {f"by/{sha256(data)}": data for data in FILES.values()}
    project.decide(raw=["https://raw.githubusercontent.com/{repository}/{commit}/{path}", raw.url + "/x/by/{sha256}"])
    shutil.rmtree(project.store)
    done = project.run("vendor", "--dest", project.root / "other")
    assert ("5 from raw 127.0.0.1:" in done.stdout, "github" in done.stderr) == (True, False)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/a/b.c.git", "a/b.c"),
        ("https://tok@github.com/a/b", "a/b"),
        ("git@github.com:a/b.git", "a/b"),
        ("https://gitlab.com/a/b.git", None),
        ("https://example.org/github.com/a/b", None),
        ("https://github.com.example.org/a/b", None),
    ],
)
def test_the_name_of_a_repository_on_github_is_found(url: str, name: str | None) -> None:
    assert on_github(url) == name


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (servers.reply(b"tampered"), "wrong bytes (8, SHA-256 "),
        (servers.reply(code=404), "answered 404"),
        (servers.reply(b"half", promised=100), "4 bytes read, 100 more expected"),
        (servers.reply(b"x" * 5_000_000), "wrong bytes (4194304, "),
        (servers.reply(code=302, Location="file:///etc/passwd"), "InvalidSchema"),
        (servers.bytes_of(b"SSH-2.0\r\n"), "BadStatusLine"),
        (servers.drip, "not done after 10 s"),
    ],
    ids=["wrong", "404", "truncated", "huge", "redirect", "no HTTP", "drip"],
)
def test_after_a_bad_answer_the_next_source_is_asked(
    project: Project, raw: servers.Host, answer: servers.Answer, said: str
) -> None:
    raw.odd["*"] = [answer]
    with servers.serving(FILES) as good:
        project.decide(raw=[raw.url + TEMPLATE, good.url + TEMPLATE])
        assert said in project.run("vendor").stderr
    assert (project.tree / CORE).read_bytes() == EDITED[CORE]


def test_a_busy_host_is_asked_three_times(project: Project, raw: servers.Host) -> None:
    raw.odd["*"] = [servers.reply(code=503), servers.reply(FILES["models/alpha/__init__.py"])]
    raw.odd[CORE] = [servers.reply(code=500)]
    said = missing(project)
    assert "raw 127.0.0.1" in said
    assert "500" in said
    assert raw.asked.count(CORE) == 3


@pytest.mark.parametrize("host", [servers.silent, servers.unreachable])
def test_a_silent_host_is_given_up_after_seconds(project: Project, host) -> None:  # type: ignore[no-untyped-def]
    project.alone()
    with host() as port:
        project.decide(raw=[f"http://127.0.0.1:{port}" + TEMPLATE])
        began = time.monotonic()
        assert "imeout" in missing(project)
    assert time.monotonic() - began < 10


def test_an_index_alone_is_enough(project: Project, tmp_path: Path) -> None:
    parts = {"one/a.py": b"".join(FILES.values()).replace(b"\n", b"\r\n"), "one/b.py": b"import math"}
    project.wheels(tmp_path / "index", {"one==1.0": parts, "two==2": {"two/c.py": FILES["models/alpha/extra.py"]}})
    project.alone()
    done = project.run("vendor")
    assert "5 from index" in done.stdout
    project.run("verify")
    shutil.rmtree(project.store)
    shutil.rmtree(project.tree)
    [path] = (tmp_path / "index").glob("one-*")
    servers.make_wheel(tmp_path / "index", "one", "1.0", {**parts, "one/more.py": b"#"})
    assert "the wheel's SHA-256 is" in missing(project)
    path.unlink()
    said = missing(project)
    assert f"missing: {CORE}" in said
    assert "one==1.0: No matching distribution" in said


def test_a_patch_that_removes_every_line_is_a_source_of_its_file(tmp_path: Path) -> None:
    new = {CORE: b"from .other import *\n"}
    project = make_project(tmp_path, {CORE: FILES[CORE]}, new)
    project.alone()
    done = project.run("vendor", "--offline")
    assert done.stderr == ""
    assert "1 from patches" in done.stdout
    assert (project.tree / CORE).read_bytes() == new[CORE]


def test_offline_uses_only_the_store_and_local_sources(project: Project, raw: servers.Host) -> None:
    said = missing(project, "--offline")
    assert f"raw {raw.url[7:]}: not asked, offline" in said
    assert "next: python -m tools vendor  # asks the network" in said
    assert raw.asked == []


@pytest.mark.parametrize("kind", ["clone", "bundle", "bare", "folder"])
def test_upstream_may_be_a(project: Project, tmp_path: Path, kind: str) -> None:
    git("bundle", "create", "-q", tmp_path / "bundle", "--all", cwd=project.upstream)
    git("clone", "-q", project.upstream, tmp_path / "clone", cwd=tmp_path)
    git("clone", "-q", "--bare", project.upstream, tmp_path / "bare", cwd=tmp_path)
    write(tmp_path / "folder", FILES)
    project.alone()
    lock, place = project.lock.read_bytes(), tmp_path / kind
    assert f"5 from UPSTREAM {place}" in project.run("vendor", "--offline", "--upstream", place).stdout
    project.run("verify")
    shutil.rmtree(project.store)
    project.run("lock", "--upstream", place)
    assert project.lock.read_bytes() == lock


def test_upstream_that_is_not_there_no_upstream_or_a_partial_clone_is_told(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, said in (("nowhere", "does not exist"), ("empty", "is no repository")):
        done = project.run("vendor", "--upstream", tmp_path / place, code=2)
        assert (said in done.stderr, "asking" in done.stderr) == (True, False)
    git("config", "uploadpack.allowFilter", "true", cwd=project.upstream)
    partial = tmp_path / "partial"
    git("clone", "-q", "-n", "--filter=blob:none", project.upstream.as_uri(), partial, cwd=tmp_path)
    project.alone()
    assert f"is a partial clone, which lacks files; `git -C {partial}" in missing(project, "--upstream", str(partial))


@pytest.mark.parametrize(
    "start", ["http://me:secret@", "http://secret@", "HTTP://me:secret@", "http://me:sec'@secret@"]
)
def test_a_password_is_never_shown_or_saved(project: Project, raw: servers.Host, start: str) -> None:
    url = raw.url.replace("http://", start) + "/repo.git"
    done = project.run("vendor", "--upstream", url)
    assert re.search("UPSTREAM http://127.0.0.1", done.stderr, re.IGNORECASE)
    raw.odd["*"] = [servers.reply(code=404)]
    shutil.rmtree(project.store)
    failed = project.run("vendor", "--dest", project.root / "other", "--upstream", url, "--json", code=5)
    assert "secret" not in done.stdout + done.stderr + failed.stdout + failed.stderr
    assert not [path for path, data in project.state().items() if b"secret" in data]


def test_a_commit_that_the_server_does_not_serve_by_id_is_found_in_its_branch(project: Project, tmp_path: Path) -> None:
    """By default git serves only commits that its refs name."""
    project.advance({"README": b"newer"})
    git("clone", "-q", "--bare", project.upstream, tmp_path / "bare", cwd=tmp_path)
    git("update-server-info", cwd=tmp_path / "bare")
    # A plain HTTP host can serve no commit by its id.
    with servers.serving({path: data for path, (data, _) in snapshot(tmp_path / "bare").items()}) as host:
        project.alone()
        done = project.run("vendor", "--upstream", f"{host.url}/x.git")
    assert f"5 from UPSTREAM {host.url}/x.git" in done.stdout


@pytest.mark.parametrize(
    "address", ["ssh://-oProxyCommand=touch%20ran/y", "ssh://%2doProxyCommand=x/y", "ext::touch ran"]
)
def test_no_url_runs_a_program(project: Project, tmp_path: Path, address: str) -> None:
    ran = tmp_path / "ran"
    project.alone()
    said = missing(project, "--upstream", address.replace("ran", str(ran)))
    assert re.search("strange hostname|not allowed", said)
    # Also not one that the user's configuration puts in its place.
    config = tmp_path / "config"
    config.write_text(
        f'[url "ext::touch {ran} "]\n insteadOf = {project.upstream.as_uri()}\n[protocol]\n allow = always\n'
    )
    project.env["GIT_CONFIG_GLOBAL"] = str(config)
    assert "not allowed" in missing(project)
    assert not ran.exists()


def test_json_hides_passwords_and_nothing_else(vendored: Project) -> None:
    (vendored.tree / CORE).write_bytes(b"# see https://example.org\n@cached\ndef scale(x): ...\n")
    diffs = [file["diffs"]["upstream_vendored"] for file in vendored.json("audit")["files"] if file["path"] == CORE]
    assert "+# see https://example.org\n+@cached\n" in diffs[0]


def test_a_damaged_file_in_the_store_is_replaced(vendored: Project) -> None:
    entry = vendored.store / "sha256" / sha256(FILES[CORE])[:2] / sha256(FILES[CORE])[2:]
    entry.write_bytes(b"rotten")
    shutil.rmtree(vendored.tree)
    done = vendored.run("vendor", "--upstream", vendored.upstream)
    assert "damaged file removed from the store" in done.stderr
    assert "4 from the store, 1 from UPSTREAM" in done.stdout
    assert entry.read_bytes() == FILES[CORE]
