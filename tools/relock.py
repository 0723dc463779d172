"""Writing upstream.lock: every hash in it is computed here from the real thing; nobody types one.

What a person decides stays as it is in the file, comments included: pins (url, branch, commit), component folders,
patch files and their targets, sources, wheels and their undo steps.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

from tools.apply import apply_patch
from tools.errors import HashMismatch, MalformedLock, NoSource, PatchFails
from tools.git import Commit, RemoteError, Scratch, remote_commit
from tools.hashes import blob_id, sha256
from tools.lock import LOCK_NAME, Wheel
from tools.patchset import parse
from tools.progress import Progress
from tools.sources import download_wheel
from tools.wheels import parse_step, read_member


def relock(
    text: str,
    root: Path,
    progress: Progress,
    *,
    upstream: str | None,
    keep: Callable[[bytes, str], object],
) -> str:
    """The text of a lock like `text` with pinned files, dates, wheels and patches computed anew.

    text: a whole lock, or a first one that names only what a person decides. upstream: another place for the pinned
    commit. keep: is given (bytes, origin) of each pinned file. Raises NoSource when the pin cannot be reached,
    HashMismatch when a wheel changed or a member's undo steps do not give the pinned bytes, MalformedPatch, PatchFails.
    """
    try:
        document = tomlkit.parse(text)
        pin, components = document["pin"], document["components"]
        folders = {name: str(part["path"]) for name, part in components.items()}
        url, commit = str(pin["url"]), str(pin["commit"])
    except (TOMLKitError, KeyError, TypeError, AttributeError) as error:
        raise MalformedLock(
            f"{LOCK_NAME} does not say what to lock", [f"{type(error).__name__}: {error}"], ["see README.md, The lock"]
        ) from error
    progress.line(f"git {upstream or url}: reading {commit[:12]}")
    found = _commit(upstream or url, commit, folders.values())
    pin["date"] = found.date
    for data in found.files.values():
        keep(data, f"git {url}")
    for name, folder in folders.items():
        short = tomlkit.array().multiline(True)
        short.extend(sorted(path.rsplit("/", 1)[1] for path in found.files if path.rsplit("/", 1)[0] == folder))
        components[name]["files"] = short
    document["files"] = _files(found.files)
    _date_baseline(document, progress)
    for source in document.get("sources", []):
        for wheel in source.get("wheels", []):
            _lock_wheel(wheel, found.files, progress)
    with Scratch() as scratch:
        for entry in document.get("patches", []):
            lock_patch(entry, root, found.files, scratch)
    return tomlkit.dumps(document)


def lock_patch(entry: Any, root: Path, pinned: Mapping[str, bytes], scratch: Scratch) -> None:
    """Fill in the hashes of one [[patches]] entry from its file and its base's bytes in `pinned`.

    Raises MalformedPatch, PatchFails, or HashMismatch when the result is not the blob that the patch promises.
    """
    file = str(entry["file"])
    try:
        data = (root / file).read_bytes()
    except OSError as error:
        raise MalformedLock(f"{file} cannot be read", [str(error)]) from error
    patch = parse(file, data)
    base = pinned.get(patch.target)
    if base is None:
        raise PatchFails(f"{file} changes {patch.target}, which is no pinned file")
    result = apply_patch(scratch, patch, data, base)
    entry["target"] = patch.target
    entry["sha256"] = sha256(data)
    entry["base"] = patch.base
    entry["result"] = patch.result
    entry["result_sha256"] = sha256(result)


def _commit(url: str, commit: str, folders: Any) -> Commit:
    try:
        return remote_commit(url, commit, folders)
    except RemoteError as error:
        raise NoSource(
            f"commit {commit} could not be read", [f"git {url}: {error}"], ["name another place with UPSTREAM="]
        ) from error


def _files(files: Mapping[str, bytes]) -> AoT:
    array = tomlkit.aot()
    for path in sorted(files):
        table = tomlkit.table()
        table["path"] = path
        table["sha256"] = sha256(files[path])
        table["blob"] = blob_id(files[path])
        array.append(table)
    return array


def _date_baseline(document: Any, progress: Progress) -> None:
    baseline = document["baseline"]
    url, commit = str(baseline["url"]), str(baseline["commit"])
    progress.line(f"git {url}: reading {commit[:12]}")
    try:
        baseline["date"] = remote_commit(url, commit, ()).date
    except RemoteError as error:
        if "date" not in baseline:
            raise NoSource(f"the baseline {commit} could not be read", [f"git {url}: {error}"]) from error
        progress.warn(f"the baseline's date stays as it is: {error}")


def _lock_wheel(table: Table, pinned: Mapping[str, bytes], progress: Progress) -> None:
    wheel = Wheel(str(table["name"]), str(table["version"]), str(table.get("sha256", "")), ())
    progress.line(f"index: reading {wheel.requirement}")
    data = download_wheel(wheel)
    if isinstance(data, str):
        if not wheel.sha256:
            raise NoSource(f"{wheel.requirement} could not be read", [data])
        progress.warn(f"{wheel.requirement} stays as it is: {data}")
        return
    if wheel.sha256 and wheel.sha256 != sha256(data):
        raise HashMismatch(
            f"{wheel.requirement} is not the wheel that was locked",
            [f"expected SHA-256 {wheel.sha256}", f"actual SHA-256   {sha256(data)}"],
            ["a release never changes: find out why before removing the sha256 line"],
        )
    wrong = []
    for member in table.get("members", []):
        path = str(member["path"])
        try:
            got = read_member(data, str(member["member"]), [parse_step(str(step)) for step in member.get("undo", [])])
        except (KeyError, ValueError) as error:
            wrong.append(f"{path}: {error}")
            continue
        if got != pinned.get(path):
            wrong.append(f"{path}: {member['member']} gives SHA-256 {sha256(got)} after its undo steps")
    if wrong:
        raise HashMismatch(
            f"members of {wheel.requirement} are not the pinned files", wrong, ["mend their undo steps, or drop them"]
        )
    table["sha256"] = sha256(data)
