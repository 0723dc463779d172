"""What of a tree is not what the lock says. Offline; reads, never writes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import manifest
from tools.errors import Drift
from tools.lock import Component, Lock
from tools.tree import digest, leftovers, listing


@dataclass(frozen=True)
class Finding:
    """One thing that is off.

    kind: `modified` (other bytes), `missing` (a pinned file is not there), `extra` (a file in a component that is not
    pinned) or `incomplete` (a component that is not there, a manifest that is absent or of another lock, remains of a
    killed run). path is below the tree.
    """

    kind: str
    path: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


def check(tree: Path, lock: Lock, components: Iterable[Component], *, named: bool = False) -> list[Finding]:
    """Compare `components` of `tree` with `lock`.

    named: the user asked for exactly these; otherwise a component that the manifest does not list was never vendored
    here, and is no finding as long as another one was. Raises OSError from the disk.
    """
    components = list(components)
    try:
        sections = manifest.read(tree)
    except Drift as error:
        return [Finding("modified", manifest.NAME, error.message)]
    present = [part for part in components if part.name in sections or (tree / part.path).exists()]
    expected = components if named or not present else present
    found = [finding for part in expected for finding in _component(tree, lock, part)]
    for part in expected:
        if part.name in sections and not manifest.agrees(sections[part.name], lock, part):
            found.append(Finding("incomplete", manifest.NAME, f"its section {part.name} is of another lock"))
        elif part.name not in sections and (tree / part.path).exists():
            found.append(Finding("incomplete", manifest.NAME, f"has no section {part.name}"))
        if part.name in manifest.pending(tree):
            found.append(Finding("incomplete", manifest.PENDING, "left by a killed run"))
    # What is left beside a folder of several components is found for each.
    return list(dict.fromkeys(found))


def _component(tree: Path, lock: Lock, component: Component) -> Iterator[Finding]:
    for path in leftovers(tree, component.path):
        yield Finding("incomplete", path.relative_to(tree).as_posix(), "left by a killed run")
    folder = tree / component.path
    if not folder.is_dir() or folder.is_symlink():
        yield Finding("incomplete", component.path, "the component is not there")
        return
    present = {f"{component.path}/{name}": path for name, path in listing(folder).items()}
    for file in component.files:
        if file.path not in present:
            yield Finding("missing", file.path)
        elif (actual := digest(present.pop(file.path))) != (expected := lock.expected_sha256(file)):
            if actual is None:
                detail = "not a regular file"
            elif actual == file.sha256:
                detail = "upstream's bytes, the patch is not applied"
            else:
                detail = f"expected SHA-256 {expected}, actual {actual}"
            yield Finding("modified", file.path, detail)
    for extra in present:
        yield Finding("extra", extra)
