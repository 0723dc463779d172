"""Every source against a real thing: git repositories and bundles, an HTTP host on the loopback, a folder of wheels."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import run_tools
from tests.tools import servers
from tests.tools.conftest import EDITED, FILES, Project, git, make_project
from tests.tools.servers import Host, make_wheel, pip_environment, serving, wheel_table
from tools.hashes import sha256

EXPECTED = {**FILES, **EDITED}
NOWHERE = "file:///there/is/no/such/repository"


def tree_of(project: Project) -> dict[str, bytes]:
    """What stands in the tree, without the manifest."""
    return {
        path.relative_to(project.tree).as_posix(): path.read_bytes()
        for path in sorted(project.tree.rglob("*"))
        if path.is_file() and path.name != "PROVENANCE.json"
    }


def sources_in(project: Project) -> dict[str, str]:
    """Which source the manifest names for each file."""
    manifest = json.loads((project.tree / "PROVENANCE.json").read_bytes())
    return {entry["path"]: entry["source"] for part in manifest["components"].values() for entry in part["files"]}


def move_pin(project: Project, url: str) -> Project:
    """The same project with another URL for its pin."""
    text = project.lock.read_text(encoding="utf-8")
    project.lock.write_text(text.replace(project.upstream.as_uri(), url), encoding="utf-8")
    return project


def cut_off(project: Project) -> Project:
    """The same project where the pin's own URL leads nowhere."""
    return move_pin(project, NOWHERE)


@pytest.fixture
def host() -> Iterator[Host]:
    with serving(FILES) as host:
        yield host


def raw(port: int) -> str:
    return f'kind = "raw"\nurl = "http://127.0.0.1:{port}/{{commit}}/{{path}}"'


AND = "\n[[sources]]\n"
Outcome = tuple[Project, subprocess.CompletedProcess[str], float]


@pytest.fixture(scope="module")
def dead_hosts(
    template: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, "Future[Outcome]"]]:
    """A run on each kind of dead host, with the living git source behind it; all at once, as each only waits."""
    with ExitStack() as stack:
        quiet = stack.enter_context(servers.silent())
        full = stack.enter_context(servers.unreachable())
        hosts = {name: stack.enter_context(serving(FILES)) for name in ("drip", "head", "stall")}
        hosts["drip"].odd["*"] = [servers.dripping()]
        hosts["head"].odd["*"] = [servers.dripping_head()]
        hosts["stall"].odd["*"] = [servers.stalling(b"# half")]
        index = 'kind = "index"\n\n' + wheel_table("tiny", "1.0", "0" * 64)
        # Each: the lock's first source, what stands for the pin's URL, UPSTREAM=.
        cases: dict[str, tuple[str, int | None, list[str]]] = {
            "raw, never answering": (raw(quiet), None, []),
            "raw, not reachable": (raw(full), None, []),
            "raw, a byte now and then": (hosts["drip"].source, None, []),
            "raw, a byte of its head now and then": (hosts["head"].source, None, []),
            "raw, silent half way": (hosts["stall"].source, None, []),
            "git, never answering": ('kind = "git"', quiet, []),
            "git, not reachable": ('kind = "git"', full, []),
            "git, a byte now and then": ('kind = "git"', hosts["drip"].port, []),
            "upstream, never answering": ('kind = "git"', None, [f"--upstream=http://127.0.0.1:{quiet}/x.git"]),
            "upstream, git's own protocol": ('kind = "git"', None, [f"--upstream=git://127.0.0.1:{quiet}/x.git"]),
            "index, never answering": (index, None, []),
            "raw, none of three answering": (AND.join([raw(quiet), raw(full), raw(quiet)]), None, []),
            "git, nor three raw hosts": (AND.join(['kind = "git"', raw(full), raw(full), raw(full)]), full, []),
        }
        living = stack.enter_context(serving(FILES))
        pip = {"PIP_INDEX_URL": f"http://127.0.0.1:{quiet}/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}

        def run(name: str) -> Outcome:
            first, port, options = cases[name]
            where = tmp_path_factory.mktemp("dead")
            shutil.copytree(template.root, where / "project", ignore=shutil.ignore_patterns("vendor"))
            project = Project(where / "project", template.upstream, template.commit, where / "store", {**pip})
            # Of the raw hosts in a row each one keeps silent.
            project.sources([*first.split(AND), living.source])
            project.pieces({ONE: "tiny:core.py | a0+9"})
            if port:
                move_pin(project, f"http://127.0.0.1:{port}/x.git")
            start = time.monotonic()
            done = project.run("vendor", *options, code=None)
            return project, done, time.monotonic() - start

        pool = stack.enter_context(ThreadPoolExecutor(len(cases)))
        yield {name: pool.submit(run, name) for name in cases}


# git


# Asked for here, so that those runs wait while the other tests work.
@pytest.mark.usefixtures("dead_hosts")
def test_git_fetches_an_old_pin_at_depth_one(project: Project, tmp_path: Path) -> None:
    (project.upstream / "models/alpha/core.py").write_bytes(b"# rewritten since\n")
    git("commit", "-q", "-a", "-m", "later", cwd=project.upstream)
    trace = tmp_path / "trace"
    project.env = {"GIT_TRACE_PACKET": str(trace)}
    project.run("vendor")
    assert tree_of(project) == EXPECTED
    packets = [line.split("fetch> ", 1)[1] for line in trace.read_text().splitlines() if "fetch> " in line]
    assert f"want {project.commit}" in packets
    assert len([packet for packet in packets if packet.startswith("want ")]) == 1
    assert "deepen 1" in packets


def test_git_asks_where_the_users_insteadof_points(unfetched: Project, tmp_path: Path) -> None:
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "{unfetched.upstream.as_uri()}"]\n\tinsteadOf = {NOWHERE}\n')
    unfetched.env = {"GIT_CONFIG_GLOBAL": str(config)}
    cut_off(unfetched).run("vendor")
    assert tree_of(unfetched) == EXPECTED


HOSTILE = """
[core]
    autocrlf = true
    eol = crlf
    safecrlf = true
    attributesFile = {attributes}
    hooksPath = {hooks}
    whitespace = trailing-space,cr-at-eol
[apply]
    whitespace = fix
    ignoreWhitespace = change
[diff]
    noprefix = true
    mnemonicPrefix = true
    external = /bin/false
[color]
    ui = always
[filter "spoil"]
    clean = tr a-z A-Z
    smudge = tr a-z A-Z
    required = true
[init]
    templateDir = {template}
[safe]
    bareRepository = explicit
[fetch]
    prune = true
    fsckObjects = true
[transfer]
    unpackLimit = 1
"""


def test_hostile_git_configuration_and_surroundings_change_no_byte(unfetched: Project, tmp_path: Path) -> None:
    attributes, hooks = tmp_path / "attributes", tmp_path / "hooks"
    attributes.write_text("* text=auto eol=crlf ident filter=spoil\n")
    hooks.mkdir()
    (hooks / "post-index-change").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "post-index-change").chmod(0o755)
    template = tmp_path / "template"
    (template / "info").mkdir(parents=True)
    (template / "info/attributes").write_text("* text eol=crlf\n")
    config = tmp_path / "gitconfig"
    config.write_text(HOSTILE.format(attributes=attributes, hooks=hooks, template=template))
    # The project lies inside somebody else's repository, and the run comes from one of its hooks.
    outer = tmp_path / "outer"
    outer.mkdir()
    git("init", "-q", cwd=outer)
    (outer / ".gitattributes").write_text("* text eol=crlf filter=spoil\n")
    root = outer / "deep/project"
    shutil.copytree(unfetched.root, root)
    before = sorted(path.name for path in (outer / ".git").rglob("*"))
    environment = {
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.autocrlf",
        "GIT_CONFIG_VALUE_0": "true",
        "GIT_DIR": str(outer / ".git"),
        "GIT_WORK_TREE": str(outer),
        "GIT_INDEX_FILE": str(outer / ".git/index"),
        "GIT_OBJECT_DIRECTORY": str(outer / ".git/objects"),
        "GIT_EXTERNAL_DIFF": "/bin/false",
        "GIT_DEFAULT_HASH": "sha256",
        "GIT_LITERAL_PATHSPECS": "1",
        "HOME": str(tmp_path),
    }
    done = run_tools("--root", root, "--store", unfetched.store, "vendor", env=environment, cwd=outer)
    assert done.returncode == 0, done.stderr
    assert tree_of(Project(root, unfetched.upstream, unfetched.commit, unfetched.store)) == EXPECTED
    assert sorted(path.name for path in (outer / ".git").rglob("*")) == before


@pytest.fixture(scope="module")
def places(template: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """UPSTREAM= in all its forms, each of them holding the pinned bytes."""
    folder = tmp_path_factory.mktemp("places")
    moved = folder / "moved on"
    git("clone", "-q", template.upstream, moved, cwd=folder)
    git("tag", "-a", "v1", "-m", "first", cwd=moved)
    (moved / "models/alpha/core.py").write_bytes(b"# rewritten since\n")
    git("commit", "-q", "-a", "-m", "later", cwd=moved)
    git("bundle", "create", folder / "head.bundle", "HEAD", cwd=template.upstream)
    git("bundle", "create", folder / "all.bundle", "--all", cwd=moved)
    # Another history: none of the commits, all of the blobs, and a tag object among the refs.
    rewritten = folder / "rewritten"
    shutil.copytree(template.upstream, rewritten)
    git("commit", "-q", "--amend", "-m", "the same files in another history", cwd=rewritten)
    git("tag", "-a", "v2", "-m", "second", cwd=rewritten)
    git("reflog", "expire", "--expire=now", "--all", cwd=rewritten)
    git("gc", "-q", "--prune=now", cwd=rewritten)
    bare = folder / "bare.git"
    git("clone", "-q", "--bare", template.upstream, bare, cwd=folder)
    return {
        "path": str(template.upstream),
        "path with a space": str(moved),
        "url": template.upstream.as_uri(),
        "bare": str(bare),
        "bundle of HEAD": str(folder / "head.bundle"),
        "bundle of all": str(folder / "all.bundle"),
        "blobs without the commit": str(rewritten),
    }


@pytest.mark.parametrize(
    "form",
    ["path", "path with a space", "url", "bare", "bundle of HEAD", "bundle of all", "blobs without the commit"],
)
def test_upstream_is_asked_first(unfetched: Project, places: dict[str, str], form: str) -> None:
    done = cut_off(unfetched).run("vendor", "--upstream", places[form])
    assert tree_of(unfetched) == EXPECTED
    assert NOWHERE not in done.stderr, "the pin's own URL was asked as well"


def test_upstream_may_be_relative_to_where_the_user_stands(unfetched: Project, places: dict[str, str]) -> None:
    bundle = Path(places["bundle of HEAD"])
    arguments = ("--root", unfetched.root, "--store", unfetched.store, "vendor", "--upstream", bundle.name)
    assert run_tools(*arguments, cwd=bundle.parent).returncode == 0


def test_upstream_on_a_host_that_serves_only_files(unfetched: Project, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", unfetched.upstream, bare, cwd=tmp_path)
    git("repack", "-a", "-d", "-q", cwd=bare)
    git("update-server-info", cwd=bare)
    files = {f"bare.git/{path.relative_to(bare)}": path.read_bytes() for path in bare.rglob("*") if path.is_file()}
    with serving(files) as host:
        cut_off(unfetched).run("vendor", "--upstream", f"{host.url}/bare.git")
    assert tree_of(unfetched) == EXPECTED


@pytest.mark.parametrize("wrong", ["no/such/folder", "~nobody-of-that-name/repo", "x" * 5000])
def test_upstream_that_is_nothing_is_reported_and_the_next_source_serves(unfetched: Project, wrong: str) -> None:
    done = unfetched.run("vendor", f"--upstream={wrong}")
    assert tree_of(unfetched) == EXPECTED
    assert f"UPSTREAM {wrong}:" in done.stderr


def test_upstream_with_other_bytes_serves_what_it_can(unfetched: Project, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(unfetched.upstream, other)
    (other / "models/alpha/core.py").write_bytes(b"# not what was pinned\n")
    git("commit", "-q", "-a", "--amend", "-m", "changed", cwd=other)
    git("reflog", "expire", "--expire=now", "--all", cwd=other)
    git("gc", "-q", "--prune=now", cwd=other)
    done = unfetched.run("vendor", "--upstream", other)
    assert tree_of(unfetched) == EXPECTED
    assert "models/alpha/core.py: has no blob" in done.stderr
    origins = sources_in(unfetched)
    assert origins["models/alpha/core.py"] == f"git {unfetched.upstream.as_uri()}"
    assert origins["models/beta/net.py"] == "UPSTREAM"


def test_without_git_installed_the_message_says_so(unfetched: Project, tmp_path: Path) -> None:
    unfetched.env = {"PATH": str(tmp_path)}
    done = unfetched.run("vendor", code=None)
    assert done.returncode in (2, 5)
    assert "git was not found" in done.stderr
    assert not unfetched.tree.exists()


# raw


def test_raw_takes_every_file_over_one_connection(unfetched: Project, host: Host) -> None:
    unfetched.sources([host.source])
    unfetched.run("vendor")
    assert tree_of(unfetched) == EXPECTED
    assert sorted(host.asked) == sorted(FILES)
    assert host.connections == 1


ONE = "models/alpha/core.py"
GOOD = b"text = 'some of it'\n"
# What comes instead of that file, and what is said of it.
ANSWERS = {
    "not_found": (servers.status(404), "answered 404"),
    "gone": (servers.status(410), "answered 410"),
    "truncated": (servers.truncated(GOOD), "IncompleteRead"),
    "tampered": (servers.body(GOOD.replace(b"some", b"none")), "wrong bytes"),
    "error_page": (servers.body(b"<html>sign in first</html>"), "wrong bytes"),
    "empty": (servers.body(b""), "wrong bytes"),
    "huge": (servers.body(b"#" * (5 << 20)), "more than"),
    "no_gzip_after_all": (servers.body(GOOD, {"Content-Encoding": "gzip"}), "decompressing"),
    "redirected_in_a_circle": (servers.redirect("/x/models/gamma/redirected_in_a_circle.py"), "30 redirects"),
    "redirected_to_nonsense": (servers.redirect("http://[half"), "Invalid"),
    "redirected_to_a_local_file": (servers.redirect("file:///etc/hostname"), "file:///etc/hostname"),
}


def test_a_bad_answer_is_reported_and_is_the_next_sources_turn_for_that_file_alone(tmp_path: Path) -> None:
    files = {f"models/gamma/{kind}.py": GOOD + kind.encode() for kind in ["good", *ANSWERS]}
    project = make_project(tmp_path, files, {})
    with serving(files) as host:
        host.odd = {f"models/gamma/{kind}.py": [answer] for kind, (answer, _) in ANSWERS.items()}
        project.sources([host.source, 'kind = "git"'])
        done = project.run("vendor")
    assert tree_of(project) == files
    for kind, (_, reason) in ANSWERS.items():
        [said] = [line for line in done.stderr.splitlines() if f"/{kind}.py" in line.partition(reason)[0]]
        assert said.startswith("warning: raw" if reason == "wrong bytes" else "raw")
    origins = sources_in(project)
    assert origins.pop("models/gamma/good.py").startswith("raw ")
    assert {origin.split()[0] for origin in origins.values()} == {"git"}


def test_wrong_bytes_are_reported_even_when_quiet(unfetched: Project, host: Host) -> None:
    host.odd[ONE] = [servers.body(b"tampered\n")]
    unfetched.sources([host.source, 'kind = "git"'])
    done = unfetched.run("--quiet", "vendor")
    assert ONE in done.stderr
    assert "wrong bytes" in done.stderr


def test_a_host_with_a_passing_trouble_is_asked_again(unfetched: Project, host: Host) -> None:
    host.odd[ONE] = [servers.status(500), servers.body(FILES[ONE])]
    host.odd["models/beta/net.py"] = [
        servers.status(503, {"Retry-After": "3600"}),
        servers.body(FILES["models/beta/net.py"]),
    ]
    unfetched.sources([host.source])
    unfetched.run("vendor", timeout=30)
    assert tree_of(unfetched) == EXPECTED


def test_a_slow_host_is_waited_for_and_a_redirect_followed(unfetched: Project, host: Host) -> None:
    host.odd[ONE] = [servers.late(0.5, FILES[ONE])]
    host.odd["models/beta/net.py"] = [servers.redirect("/elsewhere/net")]
    host.files["net"] = FILES["models/beta/net.py"]
    unfetched.sources([host.source])
    unfetched.run("vendor")
    assert tree_of(unfetched) == EXPECTED


@pytest.mark.parametrize("code", [429, 503])
def test_a_host_in_lasting_trouble_is_not_asked_for_every_file(unfetched: Project, host: Host, code: int) -> None:
    host.odd["*"] = [servers.status(code, {"Retry-After": "3600"})]
    unfetched.sources([host.source])
    done = unfetched.run("vendor", code=5, timeout=30)
    assert f"answered {code}" in done.stderr
    assert len(set(host.asked)) == 1


def test_a_port_where_nothing_listens_is_asked_about_one_file(unfetched: Project) -> None:
    port = servers.refusing()
    unfetched.sources([raw(port)])
    done = unfetched.run("vendor", code=5, timeout=30)
    assert done.stderr.count("Connection refused") <= 2
    for path in FILES:
        assert f"missing: {path}" in done.stderr


def test_a_host_that_speaks_no_http_is_reported(unfetched: Project, host: Host) -> None:
    host.odd["*"] = [servers.bytes_of(b"SSH-2.0-OpenSSH_9.2\r\n")]
    unfetched.sources([host.source, 'kind = "git"'])
    assert "raw" in unfetched.run("vendor").stderr
    assert tree_of(unfetched) == EXPECTED


@pytest.mark.parametrize("url", ["http://[", "https://127.0.0.1:{port}"])
def test_a_raw_url_that_leads_nowhere_is_reported(unfetched: Project, host: Host, url: str) -> None:
    url = url.replace("{port}", str(host.port))
    unfetched.sources([f'kind = "raw"\nurl = "{url}/{{commit}}/{{path}}"', 'kind = "git"'])
    said = [line for line in unfetched.run("vendor").stderr.splitlines() if line.startswith("raw")]
    assert [line for line in said if "asking for" not in line]
    assert tree_of(unfetched) == EXPECTED


def test_certificates_that_are_not_there_are_reported(unfetched: Project, tmp_path: Path) -> None:
    unfetched.env = {"REQUESTS_CA_BUNDLE": str(tmp_path / "no-such-file")}
    unfetched.sources(['kind = "raw"\nurl = "https://127.0.0.1:1/{commit}/{path}"', 'kind = "git"'])
    assert "no-such-file" in unfetched.run("vendor").stderr
    assert tree_of(unfetched) == EXPECTED


def test_raw_paths_are_quoted(tmp_path: Path) -> None:
    files = {"models/gamma/a #1;.py": b"x = 1\n", "models/gamma/100%.py": b"y = 1\n"}
    project = make_project(tmp_path, files, {})
    quoted = {"models/gamma/a%20%231%3B.py": b"x = 1\n", "models/gamma/100%25.py": b"y = 1\n"}
    with serving(quoted) as host:
        project.sources([host.source])
        project.run("vendor")
    assert tree_of(project) == files


# index


def packaged(project: Project, wheels: Path, members: Mapping[str, Mapping[str, bytes]], *first: str) -> Project:
    """The same project with pieces from `members`, by wheel and path; `first` are the sources to ask before these."""
    tables = [wheel_table(name, "1.0", make_wheel(wheels, name, "1.0", files)) for name, files in members.items()]
    project.sources([*first, 'kind = "index"\n\n' + "\n".join(tables)])
    project.env |= pip_environment(wheels)
    project.run("lock")
    shutil.rmtree(project.store)
    return project


def test_index_gives_what_it_has_and_names_what_is_complete(unfetched: Project, tmp_path: Path) -> None:
    spoilt = {
        "pkg/alpha/__init__.py": b"from .core import scale\r\n",
        "pkg/alpha/core.py": (FILES[ONE] + b"\n").replace(b"\n", b"\r\n"),
        "pkg/alpha/extra.py": FILES["models/alpha/extra.py"],
    }
    cut_off(packaged(unfetched, tmp_path / "wheels", {"tiny": spoilt}, 'kind = "git"'))
    document = unfetched.json("vendor", code=5)
    assert document["exit_code"] == 5
    assert document["details"][0] == "missing: models/beta/net.py"
    said = "\n".join(document["details"][1:])
    assert f"git {NOWHERE}:" in said
    assert "index: models/beta/net.py: has no pieces in the lock" in said
    assert any("UPSTREAM=" in step for step in document["next"])
    assert any('COMPONENTS="alpha"' in step for step in document["next"])
    assert not unfetched.tree.exists()

    done = unfetched.run("vendor", "--components", "alpha")
    assert tree_of(unfetched) == {path: data for path, data in EXPECTED.items() if "alpha" in path}
    unfetched.run("verify")
    assert set(sources_in(unfetched).values()) == {"index tiny==1.0"}
    assert "\n3 from index tiny==1.0\n" in done.stdout


def test_only_components_that_were_asked_for_are_called_complete(unfetched: Project) -> None:
    done = cut_off(unfetched).run("vendor", "--components", "beta", code=5)
    assert "alpha" not in done.stderr


USE = "models/gamma/use.py"
IMPORTS = {USE: b"from models.delta import x\nimport models.delta.y\n\nz = 'models.delta'"}
# The first half of it in one wheel, the second in another, each as packagers change them.
HALVES = {
    "one": {"pkg/use.py": b"from pkg.models.delta import x\r\nimport pkg.models.delta.y\r\n"},
    "two": {"other.py": b"# more\n\nz = 'models.delta'\n", "data.txt": IMPORTS[USE]},
}


def test_index_lays_the_pieces_of_several_wheels_end_to_end(tmp_path: Path) -> None:
    project = packaged(make_project(tmp_path, IMPORTS, {}), tmp_path / "wheels", HALVES)
    done = project.run("vendor")
    assert tree_of(project) == IMPORTS
    assert "\n1 from index one==1.0, two==1.0\n" in done.stdout


def test_without_one_of_its_wheels_a_file_is_missing_and_said_why(tmp_path: Path) -> None:
    files = {**IMPORTS, "models/gamma/z.py": b"z = 'models.delta'\n"}
    project = packaged(make_project(tmp_path, files, {}), tmp_path / "wheels", HALVES)
    next((tmp_path / "wheels").glob("one-*")).unlink()
    stderr = project.run("vendor", code=5).stderr
    assert "index: one==1.0: No matching distribution found for one==1.0" in stderr
    assert f"index: {USE}: no pieces without one" in stderr
    assert [line.strip() for line in stderr.splitlines() if "missing:" in line] == [f"missing: {USE}"]
    assert not project.tree.exists()


def test_index_refuses_another_wheel_and_reports_what_is_not_there(unfetched: Project, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    core = {"core.py": FILES[ONE], "bad.py": b"# rot\n"}
    make_wheel(folder, "swapped", "1.0", core)
    short = make_wheel(folder, "short", "1.0", core)
    hashes = {"swapped": "0" * 64, "absent": "0" * 64, "short": short}
    tables = [wheel_table(name, "1.0", digest) for name, digest in hashes.items()]
    cut_off(unfetched).sources(['kind = "index"\n\n' + "\n".join(tables)])
    unfetched.pieces(
        {
            ONE: "swapped:core.py absent:core.py | a0+3 b3+3",
            "models/alpha/__init__.py": "unlisted:x.py | a0+1",
            "models/alpha/extra.py": "short:no/such/member.py | a0+4",
            "models/beta/__init__.py": "short:bad.py | a0+60",
            "models/beta/net.py": "short:bad.py | a0+5",
        }
    )
    unfetched.env = pip_environment(folder)
    stderr = unfetched.run("vendor", code=5).stderr
    assert "swapped==1.0: the wheel's SHA-256 is" in stderr
    assert "absent==1.0: No matching distribution found" in stderr
    assert f"{ONE}: no pieces without absent, swapped" in stderr
    assert "models/alpha/__init__.py: no pieces without unlisted" in stderr
    assert "models/alpha/extra.py: there is no member short:no/such/member.py" in stderr
    assert "models/beta/__init__.py: short:bad.py has 6 bytes, a piece ends at 60" in stderr
    assert "models/beta/net.py: wrong bytes" in stderr
    assert f"missing: {ONE}" in stderr


# patches


REWRITTEN = {"models/gamma/old.py": b"a = 1\nb = 2"}, {"models/gamma/old.py": b"c = 3\n"}


def test_a_patch_that_removes_every_line_is_a_source_that_needs_nobody(tmp_path: Path) -> None:
    project = cut_off(make_project(tmp_path, *REWRITTEN))
    done = project.run("vendor", "--offline")
    assert tree_of(project) == REWRITTEN[1]
    assert "\n1 from patch patches/old.patch\n" in done.stdout
    assert NOWHERE not in done.stderr


def test_a_patch_that_keeps_a_line_is_none(tmp_path: Path) -> None:
    edited = {"models/gamma/old.py": b"a = 1\nc = 3\n"}
    project = cut_off(make_project(tmp_path, REWRITTEN[0], edited))
    assert "missing: models/gamma/old.py" in project.run("vendor", "--offline", code=5).stderr


# mirrors


def test_two_mirrors_of_other_forms_stand_in_for_a_host_that_is_gone(unfetched: Project) -> None:
    # As jsDelivr has it, with one file wrong and one away; as Software Heritage has all that was ever public.
    cdn = {f"gh/owner/name@{unfetched.commit}/{path}": data for path, data in FILES.items()}
    cdn[f"gh/owner/name@{unfetched.commit}/{ONE}"] = b"tampered\n"
    del cdn[f"gh/owner/name@{unfetched.commit}/models/beta/net.py"]
    archive = {f"api/1/content/sha256:{sha256(data)}/raw/": data for data in FILES.values()}
    with serving({}) as gone, serving(cdn) as first, serving(archive) as second:
        templates = (
            f"{gone.url}/owner/name/{{commit}}/{{path}}",
            f"{first.url}/gh/owner/name@{{commit}}/{{path}}",
            f"{second.url}/api/1/content/sha256:{{sha256}}/raw/",
        )
        cut_off(unfetched).sources(['kind = "git"', *(f'kind = "raw"\nurl = "{url}"' for url in templates)])
        done = unfetched.run("vendor")
    assert tree_of(unfetched) == EXPECTED
    origins = sources_in(unfetched)
    assert {path for path, origin in origins.items() if origin == f"raw {templates[2]}"} == {ONE, "models/beta/net.py"}
    assert set(origins.values()) == {f"raw {url}" for url in templates[1:]}
    assert f"raw {first.url}/gh/owner/name@: {ONE}: wrong bytes" in done.stderr
    assert len(second.asked) == 2


# order, memory, offline


def test_each_source_gives_what_it_can_and_the_record_says_which(
    unfetched: Project, host: Host, tmp_path: Path
) -> None:
    host.files = {"models/beta/net.py": FILES["models/beta/net.py"]}
    half = make_wheel(tmp_path / "half", "half", "1.0", {"x.py": FILES["models/alpha/extra.py"]})
    unfetched.env = pip_environment(tmp_path / "half")
    unfetched.sources(['kind = "index"\n\n' + wheel_table("half", "1.0", half), host.source, 'kind = "git"'])
    unfetched.pieces({"models/alpha/extra.py": "half:x.py | a0+17"})
    unfetched.run("vendor")
    assert tree_of(unfetched) == EXPECTED
    origins = {path: origin.split()[0] for path, origin in sources_in(unfetched).items()}
    assert origins == dict.fromkeys(FILES, "git") | {"models/alpha/extra.py": "index", "models/beta/net.py": "raw"}
    first = (unfetched.tree / "PROVENANCE.json").read_bytes()
    shutil.rmtree(unfetched.tree)
    unfetched.run("vendor")
    assert (unfetched.tree / "PROVENANCE.json").read_bytes() == first, "from the store"
    shutil.rmtree(unfetched.tree)
    shutil.rmtree(unfetched.store)
    unfetched.run("vendor")
    assert (unfetched.tree / "PROVENANCE.json").read_bytes() == first, "from the sources again"


def test_two_paths_with_the_same_bytes_have_the_same_origin_every_time(tmp_path: Path) -> None:
    files = {"models/gamma/a.py": b"x = 1\n", "models/gamma/b.py": b"x = 1\n"}
    project = make_project(tmp_path, files, {})
    digests = {name: make_wheel(tmp_path / "wheels", name, "1.0", {"x.py": b"x = 1\n"}) for name in ("one", "two")}
    tables = [wheel_table(name, "1.0", digest) for name, digest in digests.items()]
    project.sources(['kind = "index"\n\n' + "\n".join(tables)])
    project.pieces({"models/gamma/a.py": "one:x.py | a0+6", "models/gamma/b.py": "two:x.py | a0+6"})
    project.env = pip_environment(tmp_path / "wheels")
    project.run("vendor")
    first = (project.tree / "PROVENANCE.json").read_bytes()
    shutil.rmtree(project.tree)
    project.run("vendor")
    assert (project.tree / "PROVENANCE.json").read_bytes() == first


def test_offline_with_a_filled_store_needs_no_source(vendored: Project) -> None:
    shutil.rmtree(vendored.tree)
    cut_off(vendored).sources(
        ['kind = "git"', f'kind = "raw"\nurl = "http://127.0.0.1:{servers.refusing()}/{{commit}}/{{path}}"']
    )
    done = vendored.run("vendor", "--offline")
    assert tree_of(vendored) == EXPECTED
    assert "asking" not in done.stderr


def test_offline_with_an_empty_store_asks_nobody(unfetched: Project, host: Host) -> None:
    unfetched.sources([host.source, 'kind = "git"'])
    done = unfetched.run("vendor", "--offline", code=5)
    assert done.stderr.count("not asked, offline") >= 2
    assert "without OFFLINE=1" in done.stderr
    assert host.connections == 0
    assert not unfetched.tree.exists()


@pytest.mark.parametrize("form", ["path", "url", "bundle of HEAD"])
def test_offline_takes_an_upstream_that_needs_no_network(unfetched: Project, places: dict[str, str], form: str) -> None:
    cut_off(unfetched).run("vendor", "--offline", "--upstream", places[form])
    assert tree_of(unfetched) == EXPECTED


# dead hosts


@pytest.mark.parametrize(
    "kind",
    [
        "raw, never answering",
        "raw, not reachable",
        "raw, a byte now and then",
        "raw, a byte of its head now and then",
        "raw, silent half way",
        "git, never answering",
        "git, not reachable",
        "git, a byte now and then",
        "upstream, never answering",
        "upstream, git's own protocol",
        "index, never answering",
        "raw, none of three answering",
        "git, nor three raw hosts",
    ],
)
def test_a_dead_host_costs_seconds_and_is_reported(dead_hosts: Mapping[str, "Future[Outcome]"], kind: str) -> None:
    project, done, seconds = dead_hosts[kind].result()
    assert done.returncode == 0, done.stderr
    assert tree_of(project) == EXPECTED
    # A dozen runs at once take their time, too. Of several hosts each one is waited for less than the one before.
    assert seconds < (30 if "three" in kind else 40), done.stderr
    assert " at 0x" not in done.stderr
    source = {"upstream": "UPSTREAM"}.get(kind.partition(",")[0], kind.partition(",")[0])
    said = [line for line in done.stderr.splitlines() if line.startswith(source) and ": asking for" not in line]
    assert said, done.stderr
