"""Pinned bytes plus patch gives result bytes; a component's results become a swapped-in tree.

Also a script: `python tools/apply.py UPSTREAM_FOLDER DEST` is the `apply` verb.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # As a script, Python puts this folder first on the path, where our `git.py` would hide GitPython.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools import interrupt

    interrupt.arm()

from tools.errors import HashMismatch, MalformedPatch, PatchFails, ToolError
from tools.git import Scratch
from tools.hashes import blob_id, sha256
from tools.limits import LARGEST_PATCH, read_small
from tools.lock import Component, Lock, LockedPatch
from tools.patchset import Patch, misfits, parse


@dataclass(frozen=True)
class Built:
    """A component whose every file has the hash the lock gives it: bytes by path, below the tree's root."""

    component: Component
    files: Mapping[str, bytes]


def read_patch(root: Path, locked: LockedPatch, *, draft: bool = False) -> tuple[Patch, bytes]:
    """The patch file that `locked` names, parsed, and its bytes. draft: its Description may still be to write.

    Raises HashMismatch when it is not the file that was locked, MalformedPatch when it cannot be read, breaks a rule or
    names another target, base or result than the lock.
    """
    try:
        data = read_small(root / locked.file, LARGEST_PATCH)
    except OSError as error:
        raise MalformedPatch(f"{locked.file} cannot be read", [str(error)]) from error
    patch = parse(locked.file, data, draft=draft)
    if (actual := sha256(data)) != locked.sha256:
        raise HashMismatch(
            f"{locked.file} is not the file the lock names",
            [f"expected SHA-256 {locked.sha256}", f"actual SHA-256   {actual}"],
            ["after a change you meant: make lock docs", f"to get the file back: git checkout {locked.file}"],
        )
    said = {"target": patch.target, "base": patch.base, "result": patch.result}
    meant = {"target": locked.target, "base": locked.base, "result": locked.result}
    wrong = [f"{key}: the lock says {meant[key]}, the patch {said[key]}" for key in said if said[key] != meant[key]]
    if wrong:
        raise MalformedPatch(f"{locked.file} and the lock disagree", wrong, ["make lock docs"])
    return patch, data


def read_patches(root: Path, lock: Lock, *, draft: bool = False) -> dict[str, Patch]:
    """Every patch of `lock`, parsed, by its target. Raises what `read_patch` does, with the findings of all patches."""
    found = {}
    failures: list[ToolError] = []
    for locked in lock.patches:
        try:
            found[locked.target], _ = read_patch(root, locked, draft=draft)
        except ToolError as error:
            failures.append(error)
    if failures:
        raise joined(failures)
    return found


def apply_patch(scratch: Scratch, patch: Patch, data: bytes, base: bytes) -> bytes:
    """What `patch`, whose file holds `data`, makes of `base`.

    Raises PatchFails, naming every hunk that does not fit, when `base` is not the blob that the patch was made for, and
    HashMismatch when the outcome is not the blob that the patch promises.
    """
    if (actual := blob_id(base)) != patch.base:
        raise PatchFails(
            f"{patch.name} does not apply to {patch.target}",
            [f"expected base blob {patch.base}", f"actual base blob   {actual}", *misfits(patch, base)],
        )
    if found := misfits(patch, base):
        raise PatchFails(f"{patch.name} does not apply to {patch.target}", found)
    result = scratch.apply(patch.target, base, data, patch.name)
    if (actual := blob_id(result)) != patch.result:
        raise HashMismatch(
            f"{patch.name} gives another result than it promises",
            [f"expected blob {patch.result}", f"actual blob   {actual}"],
            ["after an edit of the patch by hand: apply it to a vendored tree and run `make refresh`"],
        )
    return result


def build(
    root: Path, lock: Lock, components: Iterable[Component], pinned: Mapping[str, bytes], *, draft: bool = False
) -> list[Built]:
    """Apply the patches in `root` to `pinned` (bytes by path) and check every file of `components` against `lock`.

    Raises the first error that `read_patch` and `apply_patch` raise with the findings of all patches, HashMismatch for
    bytes that are not what the lock says.
    """
    built = []
    failures: list[ToolError] = []
    with Scratch() as scratch:
        for component in components:
            files: dict[str, bytes] = {}
            for file in component.files:
                data = pinned[file.path]
                locked = lock.patch_for(file.path)
                try:
                    if locked:
                        data = apply_patch(scratch, *read_patch(root, locked, draft=draft), data)
                    _admit(file.path, data, lock.expected_sha256(file))
                except ToolError as error:
                    failures.append(error)
                files[file.path] = data
            built.append(Built(component, files))
    if failures:
        raise joined(failures)
    return built


def _admit(path: str, data: bytes, expected: str) -> None:
    if (actual := sha256(data)) != expected:
        raise HashMismatch(
            f"{path} is not what the lock says", [f"expected SHA-256 {expected}", f"actual SHA-256   {actual}"]
        )


def joined(failures: Sequence[ToolError]) -> ToolError:
    """All failures of a run as one, of the first one's kind."""
    first = failures[0]
    if len(failures) == 1:
        return first
    findings = list(first.findings)
    for other in failures[1:]:
        findings += [other.message, *(f"  {finding}" for finding in other.findings)]
    steps = dict.fromkeys(step for failure in failures for step in failure.next_steps)
    return type(first)(first.message, findings, steps)


if __name__ == "__main__":
    from tools.__main__ import main

    sys.exit(interrupt.answering(lambda: main(["apply", *sys.argv[1:]])))
