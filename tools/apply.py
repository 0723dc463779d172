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
        sys.exit(
            f"error: {lacking[0]!r} is not installed here\nnext: make vendor, or pip install -r requirements/tools.txt"
        )

from tools.errors import Drift, HashMismatch, Next, ToolError, UsageError, each
from tools.files import digest, sha256, write
from tools.lock import PATCHES, REBASE, PinnedFile, load, meant
from tools.patch import Patch, parse, splice
from tools.tree import MANIFEST, Manifest, render_manifest


def read_bytes(root: Path, file: PinnedFile) -> bytes:
    """The patch file of `file` as bytes. Raises UsageError for a missing one, HashMismatch for a changed one."""
    name, back = f"{PATCHES}/{file.patch}", f"git checkout {PATCHES}/{file.patch}  # restores it"
    if not (root / name).exists():
        raise UsageError(f"{name} is missing", (), [back, Next("refresh", "drops the patch", {"drop": file.patch})])
    data = (root / name).read_bytes()
    step = Next("lock", "if you changed it; if a refresh was killed, run it again")
    step = Next("rebase-continue", "ends a killed rebase") if (root / REBASE).exists() else step
    _admit(f"{name} is not the file the lock names", data, file.patch_sha256, [step, back])
    return data


def read_patches(root: Path, files: Iterable[PinnedFile]) -> dict[str, Patch]:
    """The patches of `files`, by path. Raises as `read_bytes` and `patch.parse` do, for all patches at once."""
    patched = [file for file in files if file.patch]
    return dict(each(patched, lambda file: (file.path, parse(file.patch, read_bytes(root, file)))))


def results(
    files: Iterable[PinnedFile], pinned: Mapping[str, bytes], patches: Mapping[str, Patch], extras: Sequence[str] = ()
) -> dict[str, bytes]:
    """The vendored `files` from `pinned` ones, with the patches of `extras`; by path. Raises all faults at once."""

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


def _script() -> None:
    parser = ArgumentParser(description="Write a patched copy of a folder with upstream's files.")
    parser.add_argument("source", type=Path, help="a folder with upstream's files, as in models/scnet/scnet.py")
    parser.add_argument("dest", type=Path, help="a new folder")
    parser.add_argument("--extras", nargs="*", default=(), help="also apply the patches of these extras")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder with upstream.lock and patches/")
    given = parser.parse_args()
    lock, source, dest = load(given.root), given.source, given.dest
    extras = meant("extra", given.extras, lock.decisions.extras)
    if missing := [file.path for file in lock.files if not (source / file.path).is_file()]:
        raise HashMismatch(f"{source} lacks files of upstream", [f"missing: {path}" for path in missing])
    pinned = {file.path: (source / file.path).read_bytes() for file in lock.files}
    made = results(lock.files, pinned, read_patches(given.root, lock.files), extras)
    record = Manifest(extras=tuple(extras))
    made |= {f"{part.path}/{MANIFEST}": render_manifest(lock, part, record) for part in lock.components}
    if taken := [path for path, data in made.items() if (dest / path).exists() and digest(dest / path) != sha256(data)]:
        raise Drift(f"{dest} holds other files, so nothing was written", taken)
    for path, data in made.items():
        (dest / path).parent.mkdir(parents=True, exist_ok=True)
        write(dest / path, data)
    print(f"{len(made)} files in {dest.absolute()}")


if __name__ == "__main__":
    try:
        _script()
    except (ToolError, OSError) as error:
        said = error if isinstance(error, ToolError) else UsageError(str(error))
        steps = [f"next: {step}" for step in said.next_steps if isinstance(step, str)]
        print(f"error: {said.message}", *(f"  {line}" for line in said.findings), *steps, sep="\n", file=sys.stderr)
        sys.exit(said.exit_code)
