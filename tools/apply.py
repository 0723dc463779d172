"""Applies patches to pinned files, and checks every hash.

As a script, `python tools/apply.py SOURCE DEST` writes a patched copy of a folder with upstream's files.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # Python puts the script's folder first on the path, where `git.py` would hide a package.
    sys.path[0] = str(ROOT)
    if lacking := [name for name in ("attrs", "cattrs") if not find_spec(name)]:
        sys.exit(f"error: Python package {lacking[0]!r} is not installed here\nnext: make vendor  # installs it")

from tools.errors import Drift, HashMismatch, Next, ToolError, UsageError, each
from tools.files import digest, sha256, write
from tools.lock import PATCHES, Lock, PinnedFile, load, meant
from tools.manifest import Manifest, render
from tools.patch import Patch, parse, splice
from tools.tree import MANIFEST


def read_bytes(root: Path, file: PinnedFile) -> bytes:
    """The patch file of `file` as bytes. Raises UsageError for a missing one, HashMismatch for a changed one."""
    name = file.patch
    back = f"git checkout {PATCHES}/{name} restores it"
    try:
        data = (root / PATCHES / name).read_bytes()
    except FileNotFoundError as error:
        steps = (back, Next("refresh", "drops the patch", {"drop": name}))
        raise UsageError(f"{PATCHES}/{name} is missing", next_steps=steps) from error
    why = "if you changed it, or a refresh or rebase was killed"
    _admit(f"{PATCHES}/{name} is not the file the lock names", data, file.patch_sha256, [Next("lock", why), back])
    return data


def read_patches(root: Path, files: Iterable[PinnedFile]) -> dict[str, Patch]:
    """The patches of `files`, by path. Raises as `read_bytes` and `patch.parse` do, for all patches at once."""
    patched = [file for file in files if file.patch]
    return dict(each(patched, lambda file: (file.path, parse(file.patch, read_bytes(root, file)))))


def results(
    files: Iterable[PinnedFile], pinned: Mapping[str, bytes], patches: Mapping[str, Patch], extras: Sequence[str] = ()
) -> dict[str, bytes]:
    """The vendored `files` from upstream's, `pinned`, with the patches of `extras`; all by path.

    Raises as `patch.splice` does, and HashMismatch for bytes that are not as locked, for all files at once.
    """

    def result(file: PinnedFile) -> tuple[str, bytes]:
        data = pinned[file.path]
        _admit(f"{file.path} is not what the lock says", data, file.upstream)
        if file.is_patched(extras):
            data = splice(patches[file.path], data)
        _admit(f"{file.path} is not what the lock says", data, file.result(extras))
        return file.path, data

    return dict(each(files, result))


def _admit(fault: str, data: bytes, expected: str, steps: Sequence[str | Next] = ()) -> None:
    if (actual := sha256(data)) != expected:
        raise HashMismatch(fault, [f"expected SHA-256 {expected}", f"actual SHA-256   {actual}"], steps)


def folder(root: Path, lock: Lock, source: Path, dest: Path, extras: Sequence[str] = ()) -> int:
    """Write a patched copy of `source`, a folder with upstream's files, to `dest`; the number of files written.

    Raises Drift for other files in `dest`, and as `results` does, before anything is written.
    """
    if missing := [file.path for file in lock.files if not (source / file.path).is_file()]:
        raise HashMismatch(f"{source} lacks files of upstream", [f"missing: {path}" for path in missing])
    pinned = {file.path: (source / file.path).read_bytes() for file in lock.files}
    made = results(lock.files, pinned, read_patches(root, lock.files), extras)
    made |= {f"{part.path}/{MANIFEST}": render(lock, part, Manifest(extras=tuple(extras))) for part in lock.components}
    if taken := [path for path, data in made.items() if (dest / path).exists() and digest(dest / path) != sha256(data)]:
        raise Drift(f"{dest} holds other files, so nothing was written", taken, ["choose a new folder"])
    for path, data in made.items():
        (dest / path).parent.mkdir(parents=True, exist_ok=True)
        write(dest / path, data)
    return len(made)


def _script() -> int:
    parser = ArgumentParser(description="Write a patched copy of a folder with upstream's files.")
    parser.add_argument("source", type=Path, help="a folder with upstream's files, as in models/scnet/scnet.py")
    parser.add_argument("dest", type=Path, help="a new folder")
    parser.add_argument("--extras", nargs="*", default=(), help="also apply the patches of these extras")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder with upstream.lock and patches/")
    given = parser.parse_args()
    try:
        lock = load(given.root)
        count = folder(given.root, lock, given.source, given.dest, meant("extra", given.extras, lock.decisions.extras))
    except (ToolError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, ToolError) else 2
    print(f"{count} files in {given.dest.absolute()}")
    return 0


if __name__ == "__main__":
    sys.exit(_script())
