"""A miniature project and its miniature upstream, both real: git repositories, patches and a lock in `tmp_path`."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_tools

FILES = {
    "models/alpha/__init__.py": b"from .core import scale\n",
    # No newline at the end, as one of the real files.
    "models/alpha/core.py": b"FACTOR = 2\n\n\ndef scale(x):\n    print('scaling')\n    return x * FACTOR",
    "models/alpha/extra.py": b"# nothing to see\n",
    "models/beta/__init__.py": b"",
    "models/beta/net.py": b"import math\n\n\ndef area(r):\n    return 3.14 * r * r\n",
}
EDITED = {
    "models/alpha/core.py": b"FACTOR = 2\n\n\ndef scale(x):\n    return x * FACTOR\n",
    "models/beta/net.py": b"import math\n\n\ndef area(r):\n    return math.pi * r * r\n",
}
HEADER = "Description: {what}\nOrigin: other\nForwarded: no\nLast-Update: 2026-01-31\n\n"


def git(*arguments: str | Path, cwd: Path) -> str:
    """Run git in `cwd` with a fixed identity and none of this machine's configuration."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
    }
    identity = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", *identity, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    ).stdout


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
    git("add", "-A", cwd=where)
    git("commit", "-q", "-m", "models", cwd=where)
    return git("rev-parse", "HEAD", cwd=where).strip()


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below `folder`: its bytes and when it was written."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
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
    """A project at `root` on the upstream repository `upstream`; every run uses the store `store`."""

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

    def run(
        self, *arguments: str | Path, code: int | None = 0, timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """Run a verb on this project and insist on its exit code (None: any)."""
        done = run_tools("--root", self.root, "--store", self.store, *arguments, env=self.env, timeout=timeout)
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """The same with --json, parsed."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def advance(self, files: Mapping[str, bytes | None], message: str = "more") -> str:
        """A new commit of upstream's, with `files` (None: deleted); its id."""
        for path, data in files.items():
            if data is None:
                git("rm", "-q", path, cwd=self.upstream)
            else:
                write(self.upstream, {path: data})
        git("add", "-A", cwd=self.upstream)
        git("commit", "-q", "-m", message, cwd=self.upstream)
        return git("rev-parse", "HEAD", cwd=self.upstream).strip()

    def sources(self, blocks: Sequence[str]) -> None:
        """Replace the lock's sources by `blocks`, each the TOML of one [[sources]] table without its header."""
        text = self.lock.read_text(encoding="utf-8")
        head, rest = text.split("[[sources]]", 1)
        # Tables after the sources: files and patches, written by the lock verb.
        tail = re.search(r"^\[\[(files|patches)\]\]", rest, flags=re.MULTILINE)
        new = "".join(f"[[sources]]\n{block.strip()}\n\n" for block in blocks)
        self.lock.write_text(head + new + (rest[tail.start() :] if tail else ""), encoding="utf-8")

    def pieces(self, texts: Mapping[str, str]) -> None:
        """Write pieces by hand into the lock, for the pinned files at these paths."""
        text = self.lock.read_text(encoding="utf-8")
        for path, pieces in texts.items():
            head = f'path = "{path}"\nsha256 = '
            assert text.count(head) == 1
            text = text.replace(head, f'pieces = "{pieces}"\n{head}')
        self.lock.write_text(text, encoding="utf-8")


def make_project(where: Path, files: Mapping[str, bytes] = FILES, edited: Mapping[str, bytes] = EDITED) -> Project:
    """A project below `where` whose lock was written by the product's own `lock` verb, with the git source alone."""
    upstream = where / "upstream"
    commit = make_upstream(upstream, files)
    root = where / "project"
    (root / "patches").mkdir(parents=True)
    text = "# Chosen by hand, and kept.\nschema = 1\n"
    for name in ("pin", "baseline"):
        text += f'\n[{name}]\nurl = "{upstream.as_uri()}"\nbranch = "main"\ncommit = "{commit}"\n'
    for name in sorted({path.split("/")[1] for path in files}):
        text += f'\n[components.{name}]\npath = "models/{name}"\n'
    text += '\n[[sources]]\nkind = "git"\n'
    for path, new in edited.items():
        stem = Path(path).stem
        (root / "patches" / f"{stem}.patch").write_bytes(make_patch(upstream, path, new, f"Change {stem}."))
        text += f'\n[[patches]]\nfile = "patches/{stem}.patch"\ntarget = "{path}"\n'
    (root / "upstream.lock").write_text(text, encoding="utf-8")
    project = Project(root, upstream, commit, where / "store")
    project.run("lock")
    # The lock verb keeps what it read; tests want to see it fetched.
    subprocess.run(["rm", "-rf", str(project.store)], check=True)
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One project for the whole run, vendored and with a filled store. Read it, copy it, never change it."""
    project = make_project(tmp_path_factory.mktemp("template"))
    project.run("vendor")
    return project


@pytest.fixture
def vendored(template: Project, tmp_path: Path) -> Project:
    """A copy of `template`, tree and store included; only the upstream repository is shared."""
    shutil.copytree(template.root, tmp_path / "project", symlinks=True)
    shutil.copytree(template.store, tmp_path / "store")
    return Project(tmp_path / "project", template.upstream, template.commit, tmp_path / "store")


@pytest.fixture
def unfetched(vendored: Project) -> Project:
    """The same before its first run: no tree, nothing in the store."""
    shutil.rmtree(vendored.tree)
    shutil.rmtree(vendored.store)
    return vendored


@pytest.fixture(scope="session", autouse=True)
def _loopback_without_proxy() -> None:
    """A proxy for the rest of the world is no way to this machine's own servers."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
