"""Replaces a component's folder as a whole: builds the new one beside it, and renames both.

Only `*.py` files and the manifest are replaced; everything else moves to the new folder. `scnet` is built as
`.scnet.new`, and the old folder becomes `.scnet.old`. `recover` cleans up after a kill at any moment.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from tools.errors import HashMismatch, UsageError, log
from tools.files import digest, held, sha256, write

MANIFEST = "PROVENANCE.json"


def python_files(folder: Path) -> dict[str, Path]:
    """The regular `*.py` files directly in `folder`, by name; none where there is no folder. Raises OSError."""
    with suppress(FileNotFoundError):
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(".py"))
        return {path.name: path for path in paths if path.is_file() and not path.is_symlink()}
    return {}


def reserved(tree: Path) -> AbstractContextManager[None]:
    """Lock `tree` against other runs. Raises UsageError as `files.held` does."""
    return held(tree / ".dsu-vendor.lock")


def standing(folder: Path) -> Path:
    """The component's folder, or the old one, where a killed run left that alone."""
    old = _beside(folder)[1]
    return old if old.exists() and not folder.exists() else folder


def leftovers(folder: Path) -> list[Path]:
    """The folders that a killed or a running run has beside `folder`."""
    return [path for path in _beside(folder) if path.exists()]


def recover_all(tree: Path, paths: Iterable[str]) -> None:
    """Finish or undo what a killed run left beside the folders `paths` of `tree`. Call it while `reserved`.

    Raises UsageError for a link or a file on the way to one.
    """
    for folder in (tree / path for path in paths):
        for here in (folder, *folder.parents):
            if tree in here.parents and (here.is_symlink() or here.is_file()):
                raise UsageError(f"{here} is not a plain folder", (), ["replace it, or choose another DEST="])
        _recover(folder)


def _recover(folder: Path) -> None:
    new, old = _beside(folder)
    if old.exists() and not folder.exists():
        old.rename(folder)
        log.info(f"{folder}: restored after a killed run")
    elif old.exists():
        ours = {MANIFEST, *python_files(old)}
        for path in sorted(old.iterdir()):
            if path.name not in ours and not os.path.lexists(folder / path.name):
                path.rename(folder / path.name)
        shutil.rmtree(old)
    if new.exists():
        shutil.rmtree(new)


def swap(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `files` (bytes by name) the only `*.py` files and manifest in `folder`; an empty folder is removed.

    Call it while `reserved`. Raises HashMismatch when a written file reads back different, and OSError; the old folder
    stays then.
    """
    new, old = _beside(folder)
    try:
        new.mkdir(parents=True)
        if folder.exists():
            shutil.copymode(folder, new)
        for name, data in files.items():
            write(new / name, data)
            if digest(new / name) != sha256(data):
                raise HashMismatch(f"{new / name} reads back different", next_steps=["check the disk"])
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        # Also after an error: this is what the next run would do.
        _recover(folder)
    if not files:
        with suppress(OSError):
            folder.rmdir()


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
