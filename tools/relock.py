"""Writing upstream.lock: every hash in it is computed here from the real thing; nobody types one.

What a person decides stays as it is in the file, comments included: pins (url, branch, commit), component folders and
their files once there is a list of them, patch files and their targets, sources, wheels and their undo steps.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Table

from tools.apply import apply_patch, joined
from tools.errors import HashMismatch, MalformedLock, NoSource, PatchFails, ToolError
from tools.git import Commit, RemoteError, Scratch, remote_commit
from tools.hashes import blob_id, sha256
from tools.lock import ABSENT, LOCK_NAME, Lock, Member, Pin, Wheel, path_fault
from tools.patchset import Patch, parse
from tools.progress import Progress
from tools.sources import asked_at, download_wheel, on_this_machine
from tools.wheels import parse_step, read_member


@dataclass(frozen=True)
class _Chosen:
    """What a person decided: two pins as (url, commit), folders by component, and tables to complete."""

    pin: tuple[str, str]
    baseline: tuple[str, str]
    folders: Mapping[str, str]
    wheels: tuple[tuple[Any, Wheel], ...]
    patches: tuple[tuple[Any, str], ...]


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
    commit. keep: is given (bytes, origin) of each pinned file, and of what the baseline has instead. Raises
    MalformedLock when `text` lacks one of those decisions, NoSource when the pin cannot be reached, and with the
    findings of all wheels and patches HashMismatch when a wheel changed or a member's undo steps do not give the pinned
    bytes, MalformedPatch, PatchFails.
    """
    try:
        document = tomlkit.parse(text)
        chosen = _read(document)
    except (TOMLKitError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise MalformedLock(
            f"{LOCK_NAME} does not say what to lock", [f"{type(error).__name__}: {error}"], ["see README.md, The lock"]
        ) from error
    url, commit = chosen.pin
    progress.line(f"git {upstream or url}: reading {commit[:12]}")
    found = _commit(asked_at(upstream) if upstream else url, commit, chosen.folders, bool(upstream))
    _set(document["pin"], "date", found.date)
    for data in found.files.values():
        keep(data, "UPSTREAM" if upstream else f"git {url}")
    files: dict[str, bytes] = {}
    gone: list[str] = []
    for name, folder in chosen.folders.items():
        there = {path.rpartition("/")[2]: path for path in found.files if path.rpartition("/")[0] == folder}
        table = document["components"][name]
        if "files" not in table:
            _set_names(table, sorted(there))
        # Chosen once, they stay: what is new upstream comes in by `rebase`.
        files |= {there[short]: found.files[there[short]] for short in table["files"] if short in there}
        gone += [f"gone: {folder}/{short}" for short in table["files"] if short not in there]
    if gone:
        raise NoSource(
            f"commit {commit} lacks files that {LOCK_NAME} lists",
            gone,
            [f"make rebase TO={commit[:12]}, from a lock that stands, sees to that"],
        )
    _set_files(document, files)
    for data in _lock_baseline(document, chosen.baseline, chosen.folders.values(), progress):
        if data not in found.files.values():
            keep(data, f"git {chosen.baseline[0]}")
    failures: list[ToolError] = []
    for table, wheel in chosen.wheels:
        try:
            _lock_wheel(table, wheel, files, progress)
        except ToolError as error:
            failures.append(error)
    with Scratch() as scratch:
        for entry, file in chosen.patches:
            try:
                data = (root / file).read_bytes()
                lock_patch(entry, parse(file, data), data, files, scratch)
            except OSError as error:
                failures.append(MalformedLock(f"{file} cannot be read", [str(error)]))
            except ToolError as error:
                failures.append(error)
    if failures:
        raise joined(failures)
    return tomlkit.dumps(document)


def lock_patch(entry: Any, patch: Patch, data: bytes, pinned: Mapping[str, bytes], scratch: Scratch) -> None:
    """Fill in one [[patches]] entry from `patch`, whose file holds `data`, and its base's bytes in `pinned`.

    Raises PatchFails, or HashMismatch when the result is not the blob that the patch promises.
    """
    base = pinned.get(patch.target)
    if base is None:
        raise PatchFails(f"{patch.name} changes {patch.target}, which is no pinned file")
    result = apply_patch(scratch, patch, data, base)
    _set(entry, "target", patch.target)
    _set(entry, "sha256", sha256(data))
    _set(entry, "base", patch.base)
    _set(entry, "result", patch.result)
    _set(entry, "result_sha256", sha256(result))


@dataclass(frozen=True)
class Move:
    """The pin moved: where to, each component's files there, where each old path is now (None: gone), and its bytes."""

    pin: Pin
    components: Mapping[str, Sequence[str]]
    paths: Mapping[str, str | None]
    files: Mapping[str, bytes]


def moved(text: str, lock: Lock, move: Move, patches: Mapping[str, bytes], progress: Progress, *, offline: bool) -> str:
    """The text of `lock`, which is `text`, once its pin has moved; comments stay.

    patches: patch files for the new pin by name; one of the lock's that is not there is dropped. A wheel member whose
    file changed remembers which blob it gives, so that a move back finds it again. The baseline is asked only for paths
    that the lock did not have, and over no network when `offline`. Raises what `lock_patch` raises.
    """
    document: Any = tomlkit.parse(text)
    for key in ("url", "branch", "commit", "date"):
        _set(document["pin"], key, getattr(move.pin, key))
    for name, paths in move.components.items():
        _set_names(document["components"][name], sorted(path.rpartition("/")[2] for path in paths))
    _set_files(document, move.files)
    unknown = [str(table["path"]) for table in document["files"] if "baseline" not in table]
    if unknown and offline and not on_this_machine(lock.baseline.url):
        progress.warn(f"offline, what the baseline has of {', '.join(unknown)} stays unknown; make lock asks for it")
    elif unknown:
        baseline = (lock.baseline.url, lock.baseline.commit)
        _lock_baseline(document, baseline, [part.path for part in lock.components], progress)
    slugs = [_slug(lock.pin.url), _slug(move.pin.url)]
    old_blobs = {file.path: file.blob for file in lock.files}
    for source in document.get("sources", []):
        if source.get("kind") == "raw" and all(slugs):
            source["url"] = str(source["url"]).replace(f"/{slugs[0]}/", f"/{slugs[1]}/")
        for wheel in source.get("wheels", []):
            _move_members(wheel, move, old_blobs)
    entries = document.get("patches", [])
    for at in reversed(range(len(entries))):
        if entries[at]["file"] not in patches:
            behind = _taken_from_behind(entries[at]) if isinstance(entries, AoT) else []
            del entries[at]
            for item in behind if at else ():
                entries[at - 1].add(item)
    with Scratch() as scratch:
        for entry in entries:
            data = patches[entry["file"]]
            lock_patch(entry, parse(str(entry["file"]), data), data, move.files, scratch)
    return tomlkit.dumps(document)


def _slug(url: str) -> str | None:
    """`owner/name` of a repository on a host that serves raw files under that; None for any other place."""
    found = re.fullmatch(r"(?:https?://|ssh://git@|git@)[^/:]+[/:]([^/]+/[^/]+?)(?:\.git)?/?", url)
    return found[1] if found else None


def _move_members(wheel: Any, move: Move, old_blobs: Mapping[str, str]) -> None:
    members = wheel.get("members", [])
    for at in reversed(range(len(members))):
        path = str(members[at]["path"])
        now = move.paths.get(path)
        if now is None:
            del members[at]
            continue
        members[at]["path"] = now
        gives = str(members[at].get("blob", old_blobs[path]))
        if gives != blob_id(move.files[now]):
            _set(members[at], "blob", gives)
        elif "blob" in members[at]:
            del members[at]["blob"]


def _read(document: Any) -> _Chosen:
    pin, baseline = document["pin"], document["baseline"]
    wheels = []
    for source in document.get("sources", []):
        for table in source.get("wheels", []):
            members = tuple(
                Member(
                    str(member["path"]),
                    str(member["member"]),
                    tuple(parse_step(str(step)) for step in member.get("undo", [])),
                    str(member["blob"]) if "blob" in member else None,
                )
                for member in table.get("members", [])
            )
            wheels.append(
                (table, Wheel(str(table["name"]), str(table["version"]), str(table.get("sha256", "")), members))
            )
    patches = [(entry, str(entry["file"])) for entry in document.get("patches", [])]
    for _, file in patches:
        if why := path_fault(file):
            raise ValueError(f"file {file!r} {why}")
    return _Chosen(
        (str(pin["url"]), str(pin["commit"])),
        (str(baseline["url"]), str(baseline["commit"])),
        {name: str(part["path"]) for name, part in document["components"].items()},
        tuple(wheels),
        tuple(patches),
    )


def _commit(url: str, commit: str, folders: Mapping[str, str], everything: bool) -> Commit:
    try:
        return remote_commit(url, commit, folders.values(), everything=everything)
    except RemoteError as error:
        raise NoSource(
            f"commit {commit} could not be read", [f"git {url}: {error}"], ["name another place with UPSTREAM="]
        ) from error


def _set(table: Any, key: str, value: Any) -> None:
    """`table[key] = value`; a new key goes right behind the last one, before any comment, which is on what follows."""
    body = table.value.body if isinstance(table, Table) else []
    simple = [name for name, item in body if name and not isinstance(item, Table | AoT)]
    if key in table or not simple:
        table[key] = value
    else:
        # tomlkit has no public way to say where.
        table.value._insert_after(simple[-1], key, value)


def _set_files(document: Any, files: Mapping[str, bytes]) -> None:
    """One [[files]] table for each of `files`, in order. Those of paths that were there stay, comments included."""
    old = document.get("files")
    tables = {str(table.get("path")): table for table in old} if isinstance(old, AoT) else {}
    paths = sorted(files)
    fresh = {path: tables.get(path) or tomlkit.table() for path in paths}
    for path, table in fresh.items():
        _set(table, "path", path)
        _set(table, "sha256", sha256(files[path]))
        _set(table, "blob", blob_id(files[path]))
    if list(tables) == paths:
        return
    if not tables:
        document["files"] = tomlkit.aot()
        for table in fresh.values():
            document["files"].append(table)
        return
    # What stands behind a table is on what follows: behind the last, on what follows them all.
    before = dict(zip([*list(tables)[1:], ""], map(_taken_from_behind, tables.values()), strict=True))
    for path, following in zip(paths, [*paths[1:], ""], strict=True):
        for item in before.get(following, [tomlkit.nl()]):
            fresh[path].add(item)
    # "Parsed", they stand as they are; `append` would put one more blank line between any two.
    document["files"] = AoT(list(fresh.values()), parsed=True)


def _taken_from_behind(table: Any) -> list[Any]:
    """The comments and blank lines behind the last key of `table`, which loses them."""
    body = table.value.body
    found = [item for _, item in takewhile(lambda entry: entry[0] is None, reversed(body))]
    del body[len(body) - len(found) :]
    return found[::-1]


def _set_names(table: Any, names: Sequence[str]) -> None:
    """The list `files` of a component; what stays in it keeps its place and its comment."""
    if "files" not in table:
        short = tomlkit.array().multiline(True)
        short.extend(names)
        _set(table, "files", short)
        return
    array = table["files"]
    for name in [name for name in array if name not in names]:
        array.remove(name)
    for name in names:
        if name not in array:
            array.insert(sum(other < name for other in array), name)


def _lock_baseline(document: Any, pin: tuple[str, str], folders: Iterable[str], progress: Progress) -> Iterable[bytes]:
    """Fill in the baseline's date, and its hashes of each pinned path; the bytes it has of those paths."""
    url, commit = pin
    progress.line(f"git {url}: reading {commit[:12]}")
    try:
        found = remote_commit(url, commit, folders, lenient=True)
    except RemoteError as error:
        if "date" not in document["baseline"]:
            raise NoSource(f"the baseline {commit} could not be read", [f"git {url}: {error}"]) from error
        progress.warn(f"what the lock says of the baseline stays as it is: {error}")
        return []
    _set(document["baseline"], "date", found.date)
    files = {str(table["path"]): table for table in document["files"]}
    for path, table in files.items():
        data = found.files.get(path)
        _set(table, "baseline", ABSENT if data is None else blob_id(data))
        if data is not None:
            _set(table, "baseline_sha256", sha256(data))
        else:
            table.pop("baseline_sha256", None)
    return [found.files[path] for path in files if path in found.files]


def _lock_wheel(table: Any, wheel: Wheel, pinned: Mapping[str, bytes], progress: Progress) -> None:
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
    for member in wheel.members:
        try:
            got = read_member(data, member.member, member.undo)
        except (KeyError, ValueError) as error:
            wrong.append(f"{member.path}: {error}")
            continue
        right = blob_id(got) == member.blob if member.blob else got == pinned.get(member.path)
        if not right:
            wrong.append(f"{member.path}: {member.member} gives SHA-256 {sha256(got)} after its undo steps")
    if wrong:
        raise HashMismatch(
            f"members of {wheel.requirement} are not the pinned files", wrong, ["mend their undo steps, or drop them"]
        )
    _set(table, "sha256", sha256(data))
