"""Folders on disk: building one beside its place, renaming it in, and putting right what a killed run left.

Only `*.py` files directly in a component's folder, and the manifest, are ours to replace; all else there moves along.
For component `scnet`, `.scnet.new` is being built and `.scnet.old` has been moved aside. A kill leaves the old folder,
the new one, or, between two renames, none, and then `.scnet.old`; `recover` goes on from each.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from tools.errors import HashMismatch, UsageError, log
from tools.files import digest, held, sha256, write

MANIFEST = "PROVENANCE.json"


def python_files(folder: Path) -> dict[str, Path]:
    """The regular `*.py` files directly in `folder` by name; {} when it is not there. Raises OSError."""
    with suppress(FileNotFoundError):
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(".py"))
        return {path.name: path for path in paths if path.is_file() and not path.is_symlink()}
    return {}


def refuse_links(tree: Path, path: str) -> None:
    """UsageError when something on the way from `tree` to `path` is no plain folder: what lies behind is not ours."""
    for here in (tree / path, *(tree / path).parents):
        if tree in here.parents and (here.is_symlink() or here.is_file()):
            raise UsageError(f"{here} is not a plain folder", (), ["replace it by a folder, or name another DEST="])


def reserved(tree: Path) -> AbstractContextManager[None]:
    """Hold `tree`, which is made, against other runs. Raises UsageError as `files.held` does."""
    return held(tree / ".dsu-vendor.lock")


def leftovers(folder: Path) -> list[Path]:
    """What a killed run, or one still at work, has beside the component folder `folder`."""
    return [path for path in _beside(folder) if path.exists()]


def recover(folder: Path) -> None:
    """Put right, and say, what a killed run left beside `folder`. Call it while `reserved`."""
    new, old = _beside(folder)
    if old.exists() and not folder.exists():
        old.rename(folder)
        log.info(f"{folder}: put back, a killed run had moved it aside")
    elif old.exists():
        ours = {MANIFEST, *python_files(old)}
        for path in sorted(old.iterdir()):
            if path.name not in ours and not os.path.lexists(folder / path.name):
                path.rename(folder / path.name)
        shutil.rmtree(old)
    if new.exists():
        shutil.rmtree(new)


def swap(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `files` (bytes by name) the only `*.py` files and manifest in `folder`; everything else there stays.

    With no files and nothing else there, the folder goes. Call it while `reserved`, and recovered. Raises HashMismatch
    when what was written does not read back, OSError from the disk; the old folder stands then.
    """
    new, old = _beside(folder)
    try:
        new.mkdir(parents=True)
        if folder.exists():
            shutil.copymode(folder, new)
        for name, data in files.items():
            write(new / name, data)
            if digest(new / name) != sha256(data):
                raise HashMismatch(f"{new / name} does not read back as it was written", next_steps=["check the disk"])
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        # Whether all went well or not, what is left to do is what a later run would do.
        recover(folder)
    if not files:
        with suppress(OSError):
            folder.rmdir()


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
