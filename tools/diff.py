"""Compares a tree with upstream, and exports the differences as patches."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tools.apply import read_patches
from tools.errors import Drift, Next, UsageError
from tools.files import write
from tools.git import Repo
from tools.lock import Lock, PinnedFile
from tools.patch import compose


def differences(tree: Path, files: Iterable[PinnedFile], pinned: Mapping[str, bytes], context: int) -> dict[str, str]:
    """The diffs of `files` in `tree` from upstream (`pinned`, bytes by path), by path; equal ones are left out.

    Raises Drift for missing files.
    """
    paths = [file.path for file in files]
    if missing := [f"missing: {path}" for path in paths if not (tree / path).is_file()]:
        raise Drift(f"{tree} lacks files to compare", missing, [Next("vendor")])
    with Repo.temporary() as repo:
        texts = {path: repo.diff(path, pinned[path], (tree / path).read_bytes(), context) for path in paths}
    return {path: text for path, text in texts.items() if text}


def line_counts(diff: str) -> tuple[int, int]:
    """The lines that a diff of one file adds and removes."""
    body = diff.split("\n@@", 1)[-1].split("\n")[1:] if diff else []
    return sum(line.startswith("+") for line in body), sum(line.startswith("-") for line in body)


def export(root: Path, lock: Lock, diffs: Mapping[str, str], folder: Path) -> list[Path]:
    """Write `diffs` (by path) as conventional patches to `folder`; the files written.

    Raises UsageError where other files are in the way.
    """
    patches = read_patches(root, lock.patched)
    plan = {}
    for target, text in diffs.items():
        patch = patches.get(target)
        name = patch.name if patch else target.replace("/", "-") + ".patch"
        plan[folder / name] = compose(patch.header if patch else {}, text).lstrip(b"\n")
    if taken := [str(path) for path, data in plan.items() if path.exists() and path.read_bytes() != data]:
        raise UsageError("files are in the way of the export", taken, ["choose an empty folder with EXPORT="])
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in plan.items():
        write(path, data)
    return list(plan)
