"""Compares a tree with the lock (the verbs `verify` and `status`) and with upstream (`diff`)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from tools.apply import read_patches
from tools.errors import Drift, Next, ToolError, UsageError
from tools.files import digest, write
from tools.git import Repo
from tools.lock import REBASE, Component, Lock, PinnedFile
from tools.patch import compose
from tools.sources import Project
from tools.tree import MANIFEST, leftovers, python_files, read_manifest, render_manifest, standing

_NO_MANIFEST = "missing"


class Finding(NamedTuple):
    """A difference between a tree and the lock. path: below the tree."""

    kind: str  # modified, missing, extra (not recorded), or incomplete (folder, manifest, leftovers)
    path: str
    detail: str = ""

    @property
    def foreign(self) -> bool:
        """Whether `vendor` would stop for it, since the file may be somebody's."""
        return self.kind == "extra" or self.detail == _NO_MANIFEST

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


def vendored(tree: Path, component: Component) -> bool:
    """Whether `tree` has `component`, or leftovers of a killed run."""
    return (tree / component.path / MANIFEST).exists() or bool(leftovers(tree / component.path))


def check(tree: Path, lock: Lock, component: Component, extras: Sequence[str] | None = None) -> Iterator[Finding]:
    """Compare a component with `lock`. extras: by default its manifest's. Raises Drift for one that is not ours."""
    folder = tree / component.path
    for path in leftovers(folder):
        yield Finding("incomplete", path.relative_to(tree).as_posix(), "left by a killed run, or a run is at work")
    if not folder.is_dir():
        yield Finding("incomplete", component.path, "the component is missing")
        return
    made = read_manifest(folder)
    made = made if extras is None else attrs.evolve(made, extras=tuple(extras))
    for file in component.files:
        if not (folder / file.name).exists():
            yield Finding("missing", file.path)
        elif (actual := digest(folder / file.name)) != (wanted := file.result(made.extras)):
            here = actual[:12] if actual else "no regular file"
            yield Finding("modified", file.path, f"is {here}, not {wanted[:12]}")
    for name in sorted(python_files(folder).keys() - {*made.carried, *(file.name for file in component.files)}):
        yield Finding("extra", f"{component.path}/{name}")
    if made.data != render_manifest(lock, component, made):
        old, new = made.commit[:7], lock.pin.commit[:7]
        why = f"built for {old}, the lock now says {new}" if old != new else "not as the lock gives it now"
        yield Finding("incomplete", f"{component.path}/{MANIFEST}", why if made.data else _NO_MANIFEST)


def extras_in(tree: Path, lock: Lock) -> dict[str, list[str]]:
    """The components of `tree` that have each extra, by its name. Raises Drift for a manifest that is not ours."""
    found = {part.name: read_manifest(standing(tree / part.path)).extras for part in lock.components}
    names = sorted({*lock.decisions.extras}.union(*found.values()))
    return {name: [part for part in found if name in found[part]] for name in names}


def status(project: Project) -> dict[str, Any]:
    """The report of `status` for --json."""
    lock, tree = project.lock, project.tree
    trees = dict.fromkeys((part.name for part in lock.components), "not vendored")
    for part in (part for part in lock.components if vendored(tree, part)):
        found = [*check(tree, lock, part)]
        trees[part.name] = f"has {len(found)} findings, see verify" if found else "as locked"
    patches = {}
    for file in lock.patched:
        try:
            patches[file.patch] = read_patches(project.root, [file])[file.path].counts
        except ToolError as error:
            patches[file.patch] = error.message
    extras = {name: f"in {', '.join(parts) or 'no component'}" for name, parts in extras_in(tree, lock).items()}
    stored = sum(project.store.get(file.upstream) is not None for file in lock.files)
    counts = {"pin": lock.pin.commit, "date": lock.pin.date, "stored": stored, "total": len(lock.files)}
    return {**counts, "tree": trees, "patches": patches, "extras": extras, "rebase": (project.root / REBASE).exists()}


def differences(tree: Path, files: Iterable[PinnedFile], pinned: Mapping[str, bytes], context: int) -> dict[str, str]:
    """The diffs, by path, of those `files` in `tree` that differ from `pinned`. Raises Drift for missing files."""
    paths = [file.path for file in files]
    if missing := [f"missing: {path}" for path in paths if not (tree / path).is_file()]:
        raise Drift(f"{tree} lacks files to compare", missing, [Next("vendor")])
    with Repo.temporary() as repo:
        texts = {path: repo.diff(path, pinned[path], (tree / path).read_bytes(), context) for path in paths}
    return {path: text for path, text in texts.items() if text}


def export(root: Path, lock: Lock, diffs: Mapping[str, str], folder: Path) -> list[Path]:
    """Write `diffs` (by path) as patches to `folder`; the files written. Raises UsageError for others in the way."""
    known = {path: (patch.name, patch.header) for path, patch in read_patches(root, lock.patched).items()}
    plan = {}
    for path, text in diffs.items():
        name, header = known.get(path, (path.replace("/", "-") + ".patch", {}))
        plan[folder / name] = compose(header, text).lstrip(b"\n")
    if taken := [str(place) for place, data in plan.items() if place.exists() and place.read_bytes() != data]:
        raise UsageError("files are in the way of the export", taken, ["choose an empty folder with EXPORT="])
    folder.mkdir(parents=True, exist_ok=True)
    for place, data in plan.items():
        write(place, data)
    return list(plan)
