"""Where bytes come from: real repositories, loopback servers and wheels; and what happens when they misbehave."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import servers
from tests.tools.conftest import EDITED, FILES, Project, git, make_project, write
from tools import git as tools_git
from tools.sources import on_github

CORE = "models/alpha/core.py"
TEMPLATE = "/{commit}/{path}"


@pytest.fixture
def raw(project: Project) -> Iterator[servers.Host]:
    """The project's files on a host, its repository away."""
    project.alone()
    with servers.serving(FILES) as host:
        project.decide(raw=[host.url + TEMPLATE])
        yield host


def missing(project: Project, *arguments: str) -> str:
    """What a vendor run says that ends with 5, and writes nothing."""
    said = project.run("vendor", *arguments, code=5).stderr
    assert not project.tree.exists()
    return said


def test_raw_urls_are_asked_when_git_cannot_be(project: Project, raw: servers.Host) -> None:
    done = project.run("vendor")
    assert "5 from raw 127.0.0.1:" in done.stdout
    assert sorted(raw.asked) == sorted(FILES)


def test_a_template_may_ask_by_hash_and_one_for_github_is_left_out_elsewhere(
    project: Project, raw: servers.Host
) -> None:
    from tools.files import sha256

    raw.files = {f"by/{sha256(data)}": data for data in FILES.values()}
    project.decide(raw=["https://raw.githubusercontent.com/{repository}/{commit}/{path}", raw.url + "/x/by/{sha256}"])
    assert "github" not in project.run("vendor").stderr


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
def test_what_is_on_github(url: str, name: str | None) -> None:
    assert on_github(url) == name


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (servers.body(b"tampered"), "wrong bytes (8, SHA-256 "),
        (servers.status(404), "answered 404"),
        (servers.truncated(b"half"), "wrong bytes (4, "),
        (servers.body(b"x" * 5_000_000), "wrong bytes (4194304, "),
        (servers.redirect("file:///etc/passwd"), "InvalidSchema"),
        (servers.bytes_of(b"SSH-2.0\r\n"), "BadStatusLine"),
    ],
    ids=["wrong", "404", "truncated", "huge", "redirect", "no HTTP"],
)
def test_a_bad_answer_is_the_next_sources_turn(
    project: Project, raw: servers.Host, answer: servers.Answer, said: str
) -> None:
    raw.odd["*"] = [answer]
    with servers.serving(FILES) as good:
        project.decide(raw=[raw.url + TEMPLATE, good.url + TEMPLATE])
        assert said in project.run("vendor").stderr
    assert (project.tree / CORE).read_bytes() == EDITED[CORE]


def test_a_host_that_is_busy_is_asked_again_and_then_left(project: Project, raw: servers.Host) -> None:
    raw.odd["*"] = [servers.status(503), servers.body(FILES["models/alpha/__init__.py"])]
    raw.odd[CORE] = [servers.status(500)]
    said = missing(project)
    assert "raw 127.0.0.1" in said
    assert "500" in said
    assert raw.asked.count(CORE) == 3


@pytest.mark.parametrize("host", [servers.silent, servers.unreachable])
def test_a_host_that_does_not_answer_costs_seconds_once(project: Project, host) -> None:  # type: ignore[no-untyped-def]
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


def test_a_patch_that_removes_every_line_holds_its_file(tmp_path: Path) -> None:
    new = {CORE: b"from .other import *\n"}
    project = make_project(tmp_path, {CORE: FILES[CORE]}, new)
    project.alone()
    done = project.run("vendor", "--offline")
    assert done.stderr == ""
    assert "1 from patches" in done.stdout
    assert (project.tree / CORE).read_bytes() == new[CORE]


def test_offline_asks_the_store_and_this_machine_alone(project: Project, raw: servers.Host) -> None:
    said = missing(project, "--offline")
    assert f"raw {raw.url[7:]}: not asked, offline" in said
    assert "next: python -m tools vendor  # asks the network" in said
    assert raw.connections == 0


def upstreams(project: Project, tmp_path: Path) -> dict[str, Path]:
    """What UPSTREAM= takes."""
    git("bundle", "create", tmp_path / "up.bundle", "--all", cwd=project.upstream)
    git("clone", "-q", "--bare", project.upstream, tmp_path / "bare", cwd=tmp_path)
    write(tmp_path / "archive", FILES)
    return {
        "clone": project.upstream,
        "bundle": tmp_path / "up.bundle",
        "bare": tmp_path / "bare",
        "folder": tmp_path / "archive",
    }


@pytest.mark.parametrize("kind", ["clone", "bundle", "bare", "folder"])
def test_upstream_may_be(project: Project, tmp_path: Path, kind: str) -> None:
    place = upstreams(project, tmp_path)[kind]
    done = project.run("vendor", "--offline", "--upstream", place)
    assert f"5 from UPSTREAM {place}" in done.stdout
    project.run("verify")


def test_upstream_that_is_not_there_or_no_upstream_is_an_error_before_all_else(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for place, said in (("nowhere", "there is no such path"), ("empty", "is no repository")):
        done = project.run("vendor", "--upstream", tmp_path / place, code=2)
        assert said in done.stderr
        assert "asking" not in done.stderr


def test_a_partial_clone_is_told_apart(project: Project, tmp_path: Path) -> None:
    git("config", "uploadpack.allowFilter", "true", cwd=project.upstream)
    partial = tmp_path / "partial"
    git("clone", "-q", "-n", "--filter=blob:none", project.upstream.as_uri(), partial, cwd=tmp_path)
    project.alone()
    assert f"is a partial clone, which lacks files; `git -C {partial}" in missing(project, "--upstream", str(partial))


def test_a_password_is_shown_to_nobody(project: Project, raw: servers.Host) -> None:
    url = raw.url.replace("//", "//me:secret@") + "/repo.git"
    done = project.run("vendor", "--upstream", url)
    assert "UPSTREAM http://127.0.0.1" in done.stderr
    raw.odd["*"] = [servers.status(404)]
    shutil.rmtree(project.store)
    shutil.rmtree(project.tree)
    failed = project.run("vendor", "--upstream", url, "--json", code=5)
    for text in (done.stdout, done.stderr, failed.stdout, failed.stderr):
        assert "secret" not in text
    for path in (project.root).rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes()


def test_a_commit_that_is_not_advertised_is_found_in_its_branch(project: Project, tmp_path: Path) -> None:
    """Over the network git gives only what its refs name, unless it is told otherwise."""
    project.advance({"README": b"newer"})
    repo = tools_git.Repo(tmp_path / "repo")
    git("update-server-info", cwd=project.upstream)
    files = {
        str(path.relative_to(project.upstream)): path.read_bytes()
        for path in project.upstream.rglob("*")
        if path.is_file()
    }
    # The dumb protocol has no other way at all.
    with servers.serving(files) as host:
        repo.fetch(f"{host.url}/.git", project.commit, branch="main")
    assert repo.read(project.commit, CORE) == FILES[CORE]
    with pytest.raises(tools_git.NoSource):
        repo.fetch(project.upstream.as_uri(), "c" * 40, branch="main")


@pytest.mark.parametrize(
    "address", ["ssh://-oProxyCommand=touch%20ran/y", "ssh://%2doProxyCommand=x/y", "ext::touch ran"]
)
def test_no_address_runs_a_program(project: Project, tmp_path: Path, address: str) -> None:
    ran = tmp_path / "ran"
    project.alone()
    said = missing(project, "--upstream", address.replace("ran", str(ran)))
    assert re.search("strange hostname|not allowed", said)
    # Nor does one that the user's configuration puts in the place of another.
    config = tmp_path / "config"
    config.write_text(
        f'[url "ext::touch {ran} "]\n insteadOf = {project.upstream.as_uri()}\n[protocol]\n allow = always\n'
    )
    project.env["GIT_CONFIG_GLOBAL"] = str(config)
    assert "not allowed" in missing(project)
    assert not ran.exists()


def test_the_store_checks_what_it_gives(vendored: Project) -> None:
    from tools.files import sha256

    entry = vendored.store / "sha256" / sha256(FILES[CORE])[:2] / sha256(FILES[CORE])[2:]
    entry.write_bytes(b"rotten")
    shutil.rmtree(vendored.tree)
    done = vendored.run("vendor", "--upstream", vendored.upstream)
    assert "store entry dropped" in done.stderr
    assert "4 from the store, 1 from UPSTREAM" in done.stdout
    assert entry.read_bytes() == FILES[CORE]
