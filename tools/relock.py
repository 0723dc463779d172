"""Writing upstream.lock: every hash in it is computed here from the real thing; nobody types one.

What a person decides stays as it is in the file, comments included: pins (url, branch, commit), component folders and
their files once there is a list of them, patch files and their targets, sources and wheels.
"""

import re
import textwrap
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
from tools.lock import ABSENT, LOCK_NAME, Lock, Pin, Wheel, path_fault
from tools.patchset import Patch, held_base, parse
from tools.pieces import MOST, find, python_members
from tools.progress import Progress
from tools.sources import asked_at, download_wheels, on_this_machine


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
    findings of all wheels and patches HashMismatch when a wheel changed, MalformedPatch, PatchFails.
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
    before = _pieces(document)
    _set_files(document, files)
    for data in _lock_baseline(document, chosen.baseline, chosen.folders.values(), progress):
        if data not in found.files.values():
            keep(data, f"git {chosen.baseline[0]}")
    failures: list[ToolError] = []
    held = set()
    with Scratch() as scratch:
        for entry, file in chosen.patches:
            try:
                data = (root / file).read_bytes()
                patch = parse(file, data)
                lock_patch(entry, patch, data, files, scratch)
                held |= {patch.target} if held_base(patch) is not None else set()
            except OSError as error:
                failures.append(MalformedLock(f"{file} cannot be read", [str(error)]))
            except ToolError as error:
                failures.append(error)
    try:
        members, whole = _read_wheels(chosen.wheels, progress)
        _lock_pieces(document, files, held, {} if whole else before, members, progress, whole)
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
    """The pin moved: where to, each component's files there, and their bytes by path."""

    pin: Pin
    components: Mapping[str, Sequence[str]]
    files: Mapping[str, bytes]


def moved(text: str, lock: Lock, move: Move, patches: Mapping[str, bytes], progress: Progress, *, offline: bool) -> str:
    """The text of `lock`, which is `text`, once its pin has moved; comments stay.

    patches: patch files for the new pin by name; one of the lock's that is not there is dropped. The pieces of files
    that changed are looked for. The baseline is asked only for paths that the lock did not have. No network is asked
    when `offline`. Raises what `lock_patch` raises.
    """
    document: Any = tomlkit.parse(text)
    for key in ("url", "branch", "commit", "date"):
        _set(document["pin"], key, getattr(move.pin, key))
    for name, paths in move.components.items():
        _set_names(document["components"][name], sorted(path.rpartition("/")[2] for path in paths))
    before = _pieces(document)
    _set_files(document, move.files)
    unknown = [str(table["path"]) for table in document["files"] if "baseline" not in table]
    if unknown and offline and not on_this_machine(lock.baseline.url):
        progress.warn(f"offline, what the baseline has of {', '.join(unknown)} stays unknown; make lock asks for it")
    elif unknown:
        baseline = (lock.baseline.url, lock.baseline.commit)
        _lock_baseline(document, baseline, [part.path for part in lock.components], progress)
    slugs = [_slug(lock.pin.url), _slug(move.pin.url)]
    for source in document.get("sources", []):
        if source.get("kind") == "raw" and all(slugs):
            source["url"] = re.sub(rf"(?<=/){re.escape(slugs[0] or '')}(?=[/@])", slugs[1] or "", str(source["url"]))
    entries = document.get("patches", [])
    for at in reversed(range(len(entries))):
        if entries[at]["file"] not in patches:
            behind = _taken_from_behind(entries[at]) if isinstance(entries, AoT) else []
            del entries[at]
            for item in behind if at else ():
                entries[at - 1].add(item)
    held = set()
    with Scratch() as scratch:
        for entry in entries:
            data = patches[entry["file"]]
            patch = parse(str(entry["file"]), data)
            lock_patch(entry, patch, data, move.files, scratch)
            held |= {patch.target} if held_base(patch) is not None else set()
    wheels = _read(document).wheels
    members: dict[str, bytes] = {}
    whole = not wheels
    if not offline and any(sha256(data) not in before for path, data in move.files.items() if path not in held):
        try:
            members, whole = _read_wheels(wheels, progress)
        except ToolError as error:
            progress.warn("; ".join([error.message, *error.findings]))
    _lock_pieces(document, move.files, held, before, members, progress, whole)
    return tomlkit.dumps(document)


def _slug(url: str) -> str | None:
    """`owner/name` of a repository on a host that serves raw files under that; None for any other place."""
    found = re.fullmatch(r"(?:https?://|ssh://git@|git@)[^/:]+[/:]([^/]+/[^/]+?)(?:\.git)?/?", url)
    return found[1] if found else None


def _read(document: Any) -> _Chosen:
    pin, baseline = document["pin"], document["baseline"]
    wheels = []
    for source in document.get("sources", []):
        for table in source.get("wheels", []):
            wheels.append((table, Wheel(str(table["name"]), str(table["version"]), str(table.get("sha256", "")))))
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


def _read_wheels(wheels: Sequence[tuple[Any, Wheel]], progress: Progress) -> tuple[dict[str, bytes], bool]:
    """The members of the wheels that can be had, whose hashes go into their tables; and whether these are all.

    wheels: each with its table. Raises NoSource for one without a hash that cannot be had, HashMismatch for another
    wheel than was locked or for what is none, with the findings of all.
    """
    members: dict[str, bytes] = {}
    whole = True
    failures: list[ToolError] = []
    if wheels:
        progress.line(f"index: reading {', '.join(wheel.requirement for _, wheel in wheels)}")
    for (table, wheel), data in zip(wheels, download_wheels([wheel for _, wheel in wheels]), strict=True):
        if isinstance(data, str):
            whole = False
            if wheel.sha256:
                progress.warn(f"{wheel.requirement} stays as it is: {data}")
            else:
                failures.append(NoSource(f"{wheel.requirement} could not be read", [data]))
            continue
        if wheel.sha256 and wheel.sha256 != sha256(data):
            failures.append(
                HashMismatch(
                    f"{wheel.requirement} is not the wheel that was locked",
                    [f"expected SHA-256 {wheel.sha256}", f"actual SHA-256   {sha256(data)}"],
                    ["a release never changes: find out why before removing the sha256 line"],
                )
            )
            continue
        try:
            members |= python_members(data, wheel.name)
        except ValueError as error:
            failures.append(HashMismatch(f"{wheel.requirement} cannot be read", [str(error)]))
        _set(table, "sha256", sha256(data))
    if failures:
        raise joined(failures)
    return members, whole


def _pieces(document: Any) -> dict[str, str]:
    """The text of the pieces of each pinned file that has one, by the SHA-256 of the file."""
    tables = document.get("files")
    found = [table for table in tables if "pieces" in table] if isinstance(tables, AoT) else []
    return {str(table.get("sha256")): " ".join(str(table["pieces"]).split()) for table in found}


def _lock_pieces(
    document: Any,
    files: Mapping[str, bytes],
    held: Collection[str],
    known: Mapping[str, str],
    members: Mapping[str, bytes],
    progress: Progress,
    whole: bool,
) -> None:
    """Give each of `files`, bytes by path, its pieces, and warn of those that an index alone does not give.

    held: paths of files that need none, since their patch holds them. known: texts by the SHA-256 of their file, for
    those not to look for in `members`. whole: these are the members of all wheels.
    """
    start = time.monotonic()
    tables = {str(table["path"]): table for table in document["files"]}
    without = []
    for path, data in files.items():
        if path not in held and (text := known.get(sha256(data)) or (find(data, members) if members else None)):
            _set(tables[path], "pieces", _broken(text))
        else:
            tables[path].pop("pieces", None)
            without += [path] if path not in held else []
    if members:
        progress.line(f"pieces looked for in {len(members)} members, in {time.monotonic() - start:.1f} s")
    if without and (members or not whole):
        why = f"not in {MOST} pieces" if whole else "not all wheels were there; make lock looks again"
        progress.warn(f"a package index alone does not give {', '.join(without)}: {why}")


def _broken(pieces: str) -> Any:
    """`pieces` as TOML, in lines of at most 120."""
    lines = textwrap.wrap(pieces, 120, break_long_words=False, break_on_hyphens=False)
    # `find` writes nothing that would have to be escaped.
    return tomlkit.value(f'"{pieces}"' if len(lines) == 1 else "\n".join(['"""', *lines, '"""']))
