"""Pinned bytes plus patch gives result bytes, every hash checked.

Also a script: `python tools/apply.py SOURCE DEST` patches a folder that holds upstream's files into a new one.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # As a script, Python puts this folder first on the path, where our `git.py` and others hide packages.
    sys.path[0] = str(ROOT)
    if lacking := [name for name in ("attrs", "cattrs") if not find_spec(name)]:
        sys.exit(f"error: Python package {lacking[0]!r} is not installed here\nnext: make vendor sets up its own")

from tools import manifest
from tools.errors import Drift, HashMismatch, MalformedPatch, Next, ToolError, each
from tools.files import digest, sha256, write
from tools.lock import PATCHES, Component, Lock, PinnedFile, load
from tools.patch import Patch, parse, splice
from tools.tree import MANIFEST


def read_bytes(root: Path, file: PinnedFile) -> bytes:
    """The bytes of the patch file of `file`. Raises MalformedPatch for none, HashMismatch for another."""
    name = file.entry.patch
    back = f"git checkout {PATCHES}/{name} gets the file back"
    try:
        data = (root / PATCHES / name).read_bytes()
    except FileNotFoundError as error:
        steps = (back, Next("refresh", "drops the patch", {"drop": name}))
        raise MalformedPatch(f"{PATCHES}/{name} is not there", next_steps=steps) from error
    why = "after a change you meant, or a refresh or rebase that was killed"
    _admit(f"{PATCHES}/{name} is not the file the lock names", data, file.entry.patch_sha256, [Next("lock", why), back])
    return data


def read_patch(root: Path, file: PinnedFile, *, draft: bool = False) -> Patch:
    """The patch of `file`, parsed. draft: its Description may still be to write. Raises as `read_bytes` does."""
    return parse(file.entry.patch, read_bytes(root, file), draft=draft)


def read_patches(root: Path, files: Iterable[PinnedFile], *, draft: bool = False) -> dict[str, Patch]:
    """Every patch of `files`, parsed, by path. Raises what `read_patch` does, with the findings of all patches."""
    found = each((file for file in files if file.entry.patch), lambda file: read_patch(root, file, draft=draft))
    return {patch.target: patch for patch in found}


def result(root: Path, file: PinnedFile, base: bytes, extras: Sequence[str] = (), *, draft: bool = False) -> bytes:
    """What `file` holds in a vendored tree with `extras`, from upstream's bytes.

    Raises what `read_patch` and `patch.splice` raise, and HashMismatch for bytes that are not what the lock says.
    """
    _admit(f"{file.path} is not what the lock says", base, file.sha256)
    if file.patched(extras):
        base = splice(read_patch(root, file, draft=draft), base)
    _admit(f"{file.path} is not what the lock says", base, file.result(extras))
    return base


def results(
    root: Path,
    files: Iterable[PinnedFile],
    pinned: Mapping[str, bytes],
    extras: Sequence[str] = (),
    *,
    draft: bool = False,
) -> dict[str, bytes]:
    """`result` for each of `files`, by path, from upstream's bytes by path. Raises with the findings of all files."""
    return dict(each(files, lambda file: (file.path, result(root, file, pinned[file.path], extras, draft=draft))))


def _admit(fault: str, data: bytes, expected: str, steps: Sequence[str | Next] = ()) -> None:
    if (actual := sha256(data)) != expected:
        said = [f"expected SHA-256 {expected}", f"actual SHA-256   {actual}"]
        raise HashMismatch(fault, said, steps)


def folder(
    root: Path, lock: Lock, components: Sequence[Component], source: Path, dest: Path, extras: Sequence[str] = ()
) -> list[Path]:
    """Patch `components` from `source`, a folder laid out as upstream, into `dest`; the files written.

    Nothing that is there is replaced: each file of `dest` has to be absent, or what it is to become. Raises Drift
    otherwise, and what `results` raises, before anything is written.
    """
    files = [file for part in components for file in part.files]
    if missing := [file.path for file in files if not (source / file.path).is_file()]:
        raise HashMismatch(f"{source} is not laid out as upstream", [f"{path} is not there" for path in missing])
    made = results(root, files, {file.path: (source / file.path).read_bytes() for file in files}, extras)
    plan = {dest / path: data for path, data in made.items()}
    plan |= {dest / part.path / MANIFEST: manifest.render(lock, part, extras) for part in components}
    if taken := [path for path, data in plan.items() if path.exists() and digest(path) != sha256(data)]:
        step = Next("vendor", "brings a tree up to date", {"upstream": str(source), "dest": str(dest)})
        said = [f"in the way: {path}" for path in taken]
        raise Drift(f"{dest} holds other files, so nothing was written", said, ["name a new folder", step])
    for path, data in plan.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, data)
    return list(plan)


def _script() -> int:
    parser = ArgumentParser(description="Patch a folder that holds upstream's files into a new one.")
    parser.add_argument("source", type=Path, help="laid out as upstream: SOURCE/models/scnet/scnet.py")
    parser.add_argument("dest", type=Path, help="a new folder")
    given = parser.parse_args()
    try:
        lock = load(ROOT)
        print(f"{len(folder(ROOT, lock, lock.components, given.source, given.dest))} files in {given.dest.absolute()}")
        return 0
    except (ToolError, OSError) as error:
        print(f"error: {error}", *getattr(error, "findings", ()), sep="\n  ", file=sys.stderr)
        return getattr(error, "exit_code", 2)


if __name__ == "__main__":
    sys.exit(_script())
