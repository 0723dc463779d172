"""A project to audit, in miniature: its baseline is another repository, as the app's is."""

import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from tests.tools.conftest import FILES, Project, git, make_project, make_upstream
from tools.__main__ import main

CORE, EXTRA, INIT, NET = (f"models/{name}.py" for name in ("alpha/core", "alpha/extra", "alpha/__init__", "beta/net"))
# What the app had made of upstream's files: one changed that we patch, one changed that we do not, one not there.
OTHER_NET = b"import math\n\n\ndef area(r):\n    # rounded\n    return 3.1416 * r * r\n"
OTHER_INIT = b"from .core import scale\n\n__all__ = ['scale']\n"
APP = {path: data for path, data in FILES.items() if path != EXTRA} | {NET: OTHER_NET, INIT: OTHER_INIT}
DOCUMENTS = ("pins", "files", "baseline", "patches")


# What a careless page would take for markup, a template, or something that ends a line.
HOSTILE = (
    b"</script><script>alert(1)</script>\n<b title='\"'>{{ 7 * 7 }}</b>\r\n"
    b"'''\n<!-- \x0c \x1b[31m --> & \xe2\x80\xae\n'''"
)


def audit(project: Project, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`audit` without a process of its own, which would take most of the time here."""
    return run(project, "audit", *arguments, code=code)


def run(project: Project, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    out, err = StringIO(), StringIO()
    words = [str(word) for word in ("--root", project.root, "--store", project.store, *arguments)]
    with redirect_stdout(out), redirect_stderr(err):
        actual = main(words)
    assert actual == code, f"exit {actual}\n{out.getvalue()}\n{err.getvalue()}"
    return subprocess.CompletedProcess(words, actual, out.getvalue(), err.getvalue())


def page(project: Project, *arguments: str | Path, code: int = 0) -> str:
    audit(project, "--html", *arguments, code=code)
    return (project.root / "build/audit/index.html").read_text(encoding="utf-8")


def make_audited(where: Path) -> Project:
    """A vendored project whose baseline is a repository of its own, `where`/app, with documents; all up to date."""
    project = make_project(where)
    commit = make_upstream(where / "app", {**APP, "app.py": b"import models\n"})
    git("tag", "-m", "first", "v1", cwd=where / "app")
    text = project.lock.read_text(encoding="utf-8")
    head, tail = text.split("[baseline]")
    tail = tail.replace(project.upstream.as_uri(), (where / "app").as_uri(), 1).replace(project.commit, commit, 1)
    project.lock.write_text(f"{head}[baseline]{tail}", encoding="utf-8")
    for name in ("README.md", "MODEL_CHANGES.md"):
        parts = "".join(f"<!-- computed: {part} -->\n<!-- end -->\n\n" for part in DOCUMENTS)
        (project.root / name).write_text(f"# Title\n\n{parts}See `patches/net.patch`.\n", encoding="utf-8")
    run(project, "lock")
    run(project, "vendor")
    run(project, "lint", "--write")
    return project
