"""Hostile repositories: upstreams that git itself would never write, made object by object."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.tools.conftest import FILES, git

CORE = "models/alpha/core.py"
FILE, LINK, SUBMODULE, FOLDER = "100644", "120000", "160000", "40000"
Entry = tuple[str, str, str]


@dataclass(frozen=True)
class Repository:
    """A commit, made in a copy of the upstream, that `lock` refuses with exit code 5 and the pattern `says`."""

    name: str
    make: Callable[[Path], str]
    says: str


def store(where: Path, kind: str, data: bytes) -> str:
    """Put an object into the repository, however wrong it is; its id."""
    command = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    return subprocess.run(command, cwd=where, input=data, capture_output=True, check=True).stdout.decode().strip()


def tree(where: Path, *entries: Entry) -> str:
    """A tree of (mode, name, id), in the order given."""
    data = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(at) for mode, name, at in entries)
    return store(where, "tree", data)


def commit(where: Path, root: str, date: str = "1767322985 +0000") -> str:
    who = f"A Tester <tester@example.org> {date}"
    text = f"tree {root}\nauthor {who}\ncommitter {who}\n\nhostile\n"
    made = store(where, "commit", text.encode())
    git("update-ref", "refs/heads/main", made, cwd=where)
    return made


def whole(where: Path, alpha: list[Entry] | None = None, root: list[Entry] | None = None, **kwargs: str) -> str:
    """A commit with the project's files, with entries `alpha` in the component's folder and `root` at the top.

    An entry with a name that is there already stands in its place.
    """
    folders: dict[str, dict[str, Entry]] = {"alpha": {}, "beta": {}}
    for path, data in FILES.items():
        _, folder, name = path.split("/")
        folders[folder][name] = (FILE, name, store(where, "blob", data))
    for entry in alpha or []:
        folders["alpha"][entry[1]] = entry
    parts = [(FOLDER, name, tree(where, *folders[name].values())) for name in folders]
    top = {"models": (FOLDER, "models", tree(where, *parts))} | {entry[1]: entry for entry in root or []}
    return commit(where, tree(where, *top.values()), **kwargs)


def _core(where: Path, mode: str, target: str) -> str:
    return whole(where, [(mode, "core.py", target)])


def _folder(mode: str, target: str) -> Callable[[Path], str]:
    def make(where: Path) -> str:
        at = target if mode == SUBMODULE else store(where, "blob", target.encode())
        beta = tree(where, (FILE, "net.py", store(where, "blob", FILES["models/beta/net.py"])))
        parts = [(mode, "alpha", at), (FOLDER, "beta", beta)]
        return commit(where, tree(where, (FOLDER, "models", tree(where, *parts))))

    return make


def _named(name: str, mode: str = FILE) -> Callable[[Path], str]:
    return lambda where: whole(where, [(mode, name, store(where, "blob", b"# let in\n"))])


def _cut_short(where: Path) -> str:
    broken = store(where, "tree", b"100644 core.py\0" + b"\1" * 7)
    return whole(where, root=[(FOLDER, "models", tree(where, (FOLDER, "alpha", broken)))])


def _large(where: Path) -> str:
    return whole(where, [(FILE, "extra.py", store(where, "blob", b"#" * (4 * 1024 * 1024 + 1)))])


def repositories() -> Iterator[Repository]:
    link = "is a symbolic link there, not a file"
    yield Repository("a link at a pinned path", lambda at: _core(at, LINK, store(at, "blob", b"/etc/passwd")), link)
    yield Repository(
        "a link whose target is the file", lambda at: _core(at, LINK, store(at, "blob", FILES[CORE])), link
    )
    yield Repository("a submodule at a pinned path", lambda at: _core(at, SUBMODULE, "1" * 40), "is a submodule there")
    yield Repository("a folder at a pinned path", lambda at: _core(at, FOLDER, tree(at)), "is a tree there, not a file")
    gone = "a component's path, models/alpha, is no folder there"
    yield Repository("a link for a component", _folder(LINK, "../../../etc"), gone)
    yield Repository("a submodule for a component", _folder(SUBMODULE, "1" * 40), gone)
    yield Repository("a file for a component", _folder(FILE, "text"), gone)
    part = "names must not contain '/'"
    yield Repository("a name that leads out", _named("../x.py"), part)
    yield Repository("a name that leads further out", _named("../../../../x.py"), part)
    yield Repository("an absolute name", _named("/x.py"), part)
    yield Repository("a name into .git", _named(".git/hooks/x.py"), part)
    yield Repository("a name with a backslash", _named("..\\x.py"), "has a backslash")
    yield Repository("a name with an escape", _named("\x1b[2Jx.py"), "has an invisible character")
    yield Repository("a name with a line end", _named("x\n.py"), "has an invisible character")
    yield Repository("a name with a stream", _named("core.py:x.py"), "has an invisible character, a quote or a colon")
    yield Repository("a tree cut short", _cut_short, "could not be read")
    yield Repository("a mode of nothing", _named("odd.py", "070000"), "could not be read")
    yield Repository("a file of four megabytes", _large, "has more than 4194304 bytes there")
    yield Repository("no such tree", lambda at: commit(at, "2" * 40), "could not be read")
    yield Repository("a commit that is a file", lambda at: store(at, "blob", b"x"), "could not be read")
    far = "9" * 15
    yield Repository("a date in the far future", lambda at: whole(at, date=f"{far} +0000"), "could not be read")


def surrounding(where: Path) -> str:
    """A good commit, with everything around the pinned files that would land elsewhere if it were checked out."""
    blob = store(where, "blob", b"#!/bin/sh\ntouch owned\n")
    hooks = tree(where, ("100755", "post-checkout", blob), ("100755", "fsmonitor", blob))
    inner = tree(where, (FOLDER, "hooks", hooks), (FILE, "config", blob))
    return whole(
        where,
        root=[
            (FILE, "../x", blob),
            (FILE, "..", blob),
            ("100755", ".git/hooks/post-checkout", blob),
            (FOLDER, ".git", inner),
            (FOLDER, ".GIT", inner),
            (FOLDER, "git~1", inner),
            (LINK, "link", store(where, "blob", b"../../..")),
            (FILE, ".gitmodules", store(where, "blob", b'[submodule "x"]\n\tpath = x\n\turl = ext::touch owned\n')),
            (FILE, ".gitattributes", store(where, "blob", b"* filter=x eol=crlf working-tree-encoding=UTF-16\n")),
            (SUBMODULE, "x", "3" * 40),
            (FILE, "PROVENANCE.json", blob),
            (FILE, "NUL", blob),
        ],
    )
