"""A small project with a small upstream for the tests: real git repositories, patches and a lock in `tmp_path`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.conftest import ran, run_tools
from tests.tools.servers import make_wheel, pip_environment
from tools.files import sha256
from tools.lock import Decisions, Lock, Pin, PinnedFile, dump, load

CORE, NET, EXTRA = "models/alpha/core.py", "models/beta/net.py", "models/alpha/extra.py"
FILES = {
    "models/alpha/__init__.py": b"from .core import scale\n",
    # No newline at the end, as one of the real files.
    CORE: b"FACTOR = 2\n\n\ndef scale(x):\n    print('scaling')\n    return x * FACTOR",
    EXTRA: b"# nothing to see\n",
    "models/beta/__init__.py": b"",
    NET: b"import math\n\n\ndef area(r):\n    return 3.14 * r * r\n",
}
EDITED = {
    CORE: b"FACTOR = 2\n\n\ndef scale(x):\n    return x * FACTOR\n",
    NET: b"import math\n\n\ndef area(r):\n    return math.pi * r * r\n",
}
# Runs a verb, and kills itself at the rename with the number in its first argument.
KILLED_AT = """
import os, sys
left = int(sys.argv.pop(1))
def counted(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return function(*arguments, **named)
    return call
os.rename, os.replace = counted(os.rename), counted(os.replace)
from tools.cli import main
sys.exit(main())
"""
HEADER = "Description: {what}\nOrigin: other\nForwarded: no\nLast-Update: 2026-01-31\n\n"


def git(*arguments: str | Path, cwd: Path) -> str:
    """Run git in `cwd` with a fixed identity and none of this machine's configuration."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment["GIT_COMMITTER_DATE"] = "2026-01-02T03:04:05Z"
    identity = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.org", "-c", "init.defaultBranch=main")
    return ran("git", *identity, *arguments, cwd=cwd, env=environment, text=False, check=True).stdout.decode()


def write(root: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` (bytes by relative path) below `root`."""
    for path, data in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def make_upstream(where: Path, files: Mapping[str, bytes] = FILES) -> str:
    """A repository at `where` with one commit holding `files`; the commit's id."""
    where.mkdir(parents=True)
    git("init", "-q", cwd=where)
    write(where, files)
    return commit_all(where, "models")


def commit_all(where: Path, message: str) -> str:
    """A new commit of all that is in the repository `where`; its id."""
    git("add", "-A", cwd=where)
    git("commit", "-q", "-m", message, cwd=where)
    return git("rev-parse", "HEAD", cwd=where).strip()


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below `folder`: its bytes and when it was written."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def dateless(root: Path) -> dict[str, list[bytes]]:
    """Decisions, lock, patches and documents below `root`, without dates of patches and their hashes."""
    dated = (b"Last-Update", b"patch_sha256 =", b"digest =")
    paths = [path for path in (*root.glob("*.*"), *root.glob("patches/*")) if path.is_file()]
    return {
        path.name: [line for line in path.read_bytes().split(b"\n") if not line.startswith(dated)] for path in paths
    }


def make_patch(upstream: Path, path: str, new: bytes, what: str) -> bytes:
    """The zero-context patch, with our header, that turns upstream's `path` into `new`."""
    old = (upstream / path).read_bytes()
    (upstream / path).write_bytes(new)
    text = git("diff", "-U0", "--full-index", "--", path, cwd=upstream)
    (upstream / path).write_bytes(old)
    return (HEADER.format(what=what) + re.sub(r"^(@@ [^@]+ @@).*$", r"\1", text, flags=re.MULTILINE)).encode()


@dataclass
class Project:
    """A project at `root`, its upstream repository and its store."""

    root: Path
    upstream: Path
    commit: str
    store: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def lock(self) -> Path:
        return self.root / "upstream.lock"

    @property
    def tree(self) -> Path:
        return self.root / "vendor"

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of a verb on this project."""
        words = ["--root", self.root, "--store", self.store, *arguments]
        return [sys.executable, "-m", "tools", *map(str, words)]

    def copied(self, where: Path) -> "Project":
        """A copy of this project, with tree and store, below `where`; the upstream repository is shared."""
        shutil.copytree(self.root, where / "project", symlinks=True)
        shutil.copytree(self.store, where / "store")
        return replace(self, root=where / "project", store=where / "store", env={**self.env})

    def cloned(self, where: Path) -> "Project":
        """This project, on a clone of its upstream."""
        git("clone", "-q", self.upstream, where, cwd=self.root)
        return replace(self, upstream=where)

    def run(self, *arguments: str | Path, code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run a verb on this project, and check its exit code (None: any)."""
        done = run_tools("--root", self.root, "--store", self.store, *arguments, env=self.env)
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str | Path, code: int | None = 0) -> Any:
        """The JSON report of a verb."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def state(self) -> dict[str, bytes]:
        """Every file of the project outside build/."""
        return {path: data for path, (data, _) in snapshot(self.root).items() if not path.startswith("build/")}

    def killed_at(self, renames: int, *arguments: str | Path) -> bool:
        """Run a verb, and kill it at rename number `renames`, from 0 on; whether it came that far."""
        code = ran(sys.executable, "-c", KILLED_AT, str(renames), *self.command(*arguments)[3:]).returncode
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def advance(self, files: Mapping[str, bytes | None], message: str = "more") -> str:
        """Commit `files` (None: deleted) to upstream; the commit's id."""
        write(self.upstream, {path: data for path, data in files.items() if data is not None})
        for path in (path for path, data in files.items() if data is None):
            (self.upstream / path).unlink()
        return commit_all(self.upstream, message)

    def decide(self, **decisions: Any) -> None:
        """Change pyproject.toml, as a person does: the lock stays as it is."""
        write_decisions(self.root, attrs.evolve(load(self.root, agreed=False).decisions, **decisions))

    def wheels(self, folder: Path, wheels: Mapping[str, Mapping[str, bytes]]) -> None:
        """Make wheels (members by NAME==VERSION) in `folder`, let pip find only them, and lock their pieces."""
        for wheel, members in wheels.items():
            make_wheel(folder, *wheel.split("=="), members)
        self.env |= pip_environment(folder)
        self.decide(wheels=list(wheels))
        self.run("lock")
        shutil.rmtree(self.store)

    def alone(self) -> None:
        """Move upstream's repository away."""
        self.upstream.rename(self.upstream.with_name("away"))


def write_decisions(root: Path, decisions: Decisions) -> None:
    tables = attrs.asdict(decisions)
    tables = {"": {name: tables.pop(name) for name in ("raw", "wheels")}, **tables}
    lines = []
    for name, values in tables.items():
        lines += [f"[tool.vendor.{name}]".replace(".]", "]")]
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value or not name]
    (root / "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_project(
    where: Path,
    files: Mapping[str, bytes] = FILES,
    edited: Mapping[str, bytes] = EDITED,
    extras: Mapping[str, list[str]] | None = None,
) -> Project:
    """A project below `where` with git as its only source, and a patch for each of `edited`, named after its file."""
    upstream = where / "upstream"
    commit = make_upstream(upstream, files)
    root = where / "project"
    (root / "patches").mkdir(parents=True)
    url = upstream.as_uri()
    folders = {path.split("/")[1]: path.rpartition("/")[0] for path in sorted(files)}
    decisions = Decisions(Pin(url, "main"), Pin(url, "main", commit), folders, extras=dict(extras or {}))
    pinned = {}
    for path, data in sorted(files.items()):
        pinned[path] = PinnedFile(path=path, upstream=sha256(data), baseline=sha256(data))
    for path, new in edited.items():
        name = f"{Path(path).stem}.patch"
        patch = make_patch(upstream, path, new, f"Change {Path(path).stem}.")
        (root / "patches" / name).write_bytes(patch)
        hashes = {"patch_sha256": sha256(patch), "patched": sha256(new)}
        pinned[path] = attrs.evolve(pinned[path], patch=name, **hashes)
    pin = Pin(url, "main", commit, "2026-01-02T03:04:05+00:00")
    write_decisions(root, decisions)
    (root / "upstream.lock").write_bytes(dump(Lock(decisions, pin, pin, tuple(pinned.values()), {})))
    return Project(root, upstream, commit, where / "store")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One vendored project with a filled store for the whole run; tests copy it, and never change it."""
    project = make_project(tmp_path_factory.mktemp("template"))
    project.run("vendor")
    return project


@pytest.fixture
def vendored(template: Project, tmp_path: Path) -> Project:
    return template.copied(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _loopback_without_proxy() -> None:
    """Reach servers on this machine without the proxy."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
