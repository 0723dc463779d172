"""Upstream against a tree: what a person reads, and what `refresh` makes patches of."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from tools.apply import read_patches
from tools.errors import Drift, Next, UsageError
from tools.files import write
from tools.git import Repo
from tools.lock import Lock, PinnedFile
from tools.patch import compose


@attrs.frozen
class Difference:
    """One file, upstream against a tree: added and removed lines and the diff's text."""

    path: str
    added: int
    removed: int
    text: str


def differences(tree: Path, files: Iterable[PinnedFile], pinned: Mapping[str, bytes], context: int) -> list[Difference]:
    """Those of `files` that differ between upstream (`pinned`, bytes by path) and `tree`, with `context` lines around.

    Raises Drift when `tree` lacks one of them.
    """
    paths = [file.path for file in files]
    if missing := [f"missing: {path}" for path in paths if not (tree / path).is_file()]:
        raise Drift(f"{tree} lacks files to compare", missing, [Next("vendor")])
    with Repo.temporary() as repo:
        texts = {path: repo.diff(path, pinned[path], (tree / path).read_bytes(), context) for path in paths}
    return [Difference(path, *line_counts(text), text) for path, text in texts.items() if text]


def line_counts(diff: str) -> tuple[int, int]:
    """Lines that a diff of one file adds and removes, as `git diff --numstat` counts them."""
    body = diff.split("\n@@", 1)[-1].split("\n")[1:] if diff else []
    return sum(line.startswith("+") for line in body), sum(line.startswith("-") for line in body)


def export(root: Path, lock: Lock, found: Iterable[Difference], folder: Path) -> list[Path]:
    """Write each difference below `folder` as a conventional patch with our header; the files written.

    Raises UsageError rather than replace a file that is there and differs.
    """
    patches = read_patches(root, lock.patched)
    plan = {}
    for difference in found:
        patch = patches.get(difference.path)
        name = patch.name if patch else difference.path.replace("/", "-") + ".patch"
        plan[folder / name] = compose(patch.header if patch else {}, difference.text).lstrip(b"\n")
    if taken := [str(path) for path, data in plan.items() if path.exists() and path.read_bytes() != data]:
        raise UsageError("files are in the way of the export", taken, ["name an empty folder with EXPORT="])
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in plan.items():
        write(path, data)
    return list(plan)
