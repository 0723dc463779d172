"""Inputs bent at random, for every reader of what somebody else may have written.

`make fuzz` spends SECONDS on them and keeps the figures; test_fuzz.py spends a moment. Whatever the input, a reader may
raise nothing but ToolError, takes a bounded time, writes nothing beside the project, and lets nothing through that does
not meet its hash.
"""

import argparse
import io
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.figures import record
from tests.tools.conftest import EDITED, FILES, Project, make_project
from tests.tools.hostile.cases import ADDRESSES, PATHS
from tests.tools.hostile.wheels import MEMBER, PLAIN, packed
from tools import lock, manifest
from tools.__main__ import main
from tools.apply import apply_patch, read_patch
from tools.errors import ToolError
from tools.git import Scratch
from tools.hashes import blob_id, sha256
from tools.pieces import python_members
from tools.rebase_state import resume
from tools.transaction import recover

CORE = "models/alpha/core.py"
SLOWEST = 5.0
# Bytes that one process may take on top of what Python and its libraries do.
MEMORY = 2 << 30
_WORDS = [
    *(path.encode() for path in PATHS),
    *(address.encode() for address in ADDRESSES),
    b"0", b"-1", b"9" * 30, b"9" * 5000, b"0x" + b"f" * 5000, b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""',
    b"\0", b"\r", b"\r\n", b"\n", b"\n\n", b"\x1b[2J", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\xef\xbb\xbf",
    "\u0661".encode(), "\u202e".encode(), "\u2028".encode(), "\u0130".encode(), "e\u0301".encode(),
    b"[" * 200, b"{" * 200, b"a." * 200, b'"""', b"'''", b"#", b"=", b"@@", b"@@ -1 +1 @@\n", b"diff --git a/x b/x\n",
    b"rename from a\n", b"new file mode 120000\n", b"GIT binary patch\n", b"\\ No newline at end of file\n",
    b"PK\x01\x02", b"PK\x05\x06",
]  # fmt: skip


@st.composite
def bent(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of `seeds` after a few edits that know of lines, numbers and quoted fields; or, now and then, pure bytes."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=200))
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        data = draw(st.sampled_from(_EDITS))(draw, data, seeds)
    return data


def _place(draw: st.DrawFn, data: bytes) -> tuple[int, int]:
    start = draw(st.integers(0, len(data)))
    return start, draw(st.integers(start, min(len(data), start + 80)))


def _byte(draw: st.DrawFn, data: bytes, _: list[bytes]) -> bytes:
    if not data:
        return draw(st.binary(max_size=4))
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]


def _word(draw: st.DrawFn, data: bytes, _: list[bytes]) -> bytes:
    start, end = _place(draw, data)
    return (
        data[:start]
        + draw(st.sampled_from(_WORDS) | st.binary(max_size=4))
        + data[draw(st.sampled_from([start, end])) :]
    )


def _lines(draw: st.DrawFn, data: bytes, seeds: list[bytes]) -> bytes:
    """A line moved, doubled, dropped, taken from another input, or there a thousand times."""
    lines = data.split(b"\n")
    at, to = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    kind = draw(st.sampled_from(["move", "double", "drop", "other", "many"]))
    if kind == "move":
        lines.insert(to, lines.pop(at))
    elif kind == "double":
        lines.insert(to, lines[at])
    elif kind == "drop":
        del lines[at : at + 1 + draw(st.integers(0, 3))]
    elif kind == "other":
        lines.insert(to, draw(st.sampled_from(draw(st.sampled_from(seeds)).split(b"\n"))))
    else:
        lines[at : at + 1] = [lines[at]] * draw(st.sampled_from([10, 100, 1000]))
    return b"\n".join(lines)


def _pick(draw: st.DrawFn, data: bytes, found: list[tuple[int, int]], new: Callable[[bytes], bytes]) -> bytes:
    if not found:
        return data
    start, end = draw(st.sampled_from(found))
    return data[:start] + new(data[start:end]) + data[end:]


def _number(draw: st.DrawFn, data: bytes, _: list[bytes]) -> bytes:
    big = st.sampled_from([b"0", b"-1", b"2", b"65536", b"4294967296", b"18446744073709551617", b"9" * 400])
    spans = [(at.start(), at.end()) for at in re.finditer(rb"(?<![0-9a-zA-Z])[0-9]+(?![0-9a-zA-Z])", data)]
    return _pick(draw, data, spans, lambda old: draw(big | st.just(old + b"0")))


def _field(draw: st.DrawFn, data: bytes, _: list[bytes]) -> bytes:
    """What stands in one pair of quotes, or is one path, in the place of another, or something hostile there."""
    spans = [(at.start(1), at.end(1)) for at in re.finditer(rb'"([^"\n]*)"|(?<=[ab]/)(\S+)', data) if at[1]]
    values = st.sampled_from([data[start:end] for start, end in spans] or [b""]) | st.sampled_from(_WORDS)
    return _pick(draw, data, spans, lambda _: draw(values))


_EDITS = [_byte, _word, _lines, _number, _field]


@dataclass
class Reader:
    """One reader: good inputs to bend, and what is done with one; True when it was let through."""

    name: str
    seeds: list[bytes]
    read: Callable[[bytes], bool]


@dataclass
class Tally:
    """What was tried, of that let through, and the longest that one input took."""

    tried: Counter[str] = field(default_factory=Counter)
    admitted: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def attempt(reader: Reader, data: bytes, tally: Tally) -> None:
    """Give `data` to `reader`. Anything but ToolError, and any input that takes too long, is a failure."""
    start = time.perf_counter()
    with suppress(ToolError):
        tally.admitted[reader.name] += reader.read(data)
    tally.tried[reader.name] += 1
    took = time.perf_counter() - start
    tally.slowest = max(tally.slowest, took)
    assert took < SLOWEST, f"{reader.name}: {took:.1f} s for {len(data)} bytes"


def readers(project: Project, scratch: Scratch) -> list[Reader]:
    """Every reader, on a vendored `project` with a filled store."""
    good = lock.load(project.root)
    found = good.patch_for(CORE)
    assert found is not None
    patches = [path.read_bytes() for path in sorted((project.root / "patches").iterdir())]
    text = project.lock.read_bytes()
    wheels = [PLAIN, packed((MEMBER, FILES[CORE])), packed(("x/" + MEMBER, b"x"), (MEMBER, FILES[CORE]), method=0)]
    rooms = project.root.parent / "rooms"
    for name in ("patches", "tree"):
        (rooms / name).mkdir(parents=True, exist_ok=True)

    def patch(data: bytes) -> bool:
        (rooms / "patches/core.patch").write_bytes(data)
        # The lock as somebody has it who means harm: it names this very file, and the rest as it was.
        listed = lock.LockedPatch(found.file, found.target, sha256(data), found.base, found.result, found.result_sha256)
        read, raw = read_patch(rooms, listed)
        result = apply_patch(scratch, read, raw, FILES[CORE])
        assert blob_id(result) == read.result == found.result
        assert sha256(result) == found.result_sha256
        assert result == EDITED[CORE]
        return True

    def locked(data: bytes) -> bool:
        (rooms / "upstream.lock").write_bytes(data)
        (rooms / "patches/core.patch").write_bytes(b"")
        try:
            decoded = data.decode()
        except UnicodeDecodeError:
            decoded = ""
        try:
            read = lock.load(rooms)
        except ToolError:
            # Its second half looks for the patches, which are not all there.
            read = lock.parse(decoded)
        paths = [*(file.path for file in read.files), *(entry.file for entry in read.patches)]
        assert not [path for path in paths if lock.path_fault(path)]
        return True

    def recorded(data: bytes) -> bool:
        (rooms / "tree" / manifest.NAME).write_bytes(data)
        sections = manifest.read(rooms / "tree")
        assert not [path for path in manifest.ours(rooms / "tree") if lock.path_fault(path)]
        manifest.settle(rooms / "tree")
        for part in sections.values():
            assert all(
                type(text) is str
                for text in (*manifest.origins(part).values(), *sum(manifest.hashes(part).values(), ()))
            )
            for component in good.components:
                manifest.agrees(part, good, component)
        manifest.render(sections)
        return True

    unfinished = _unfinished(project, rooms / "rebase")
    state = unfinished.root / "build/rebase/state.json"

    def resumed(data: bytes) -> bool:
        state.write_bytes(data)
        resume(unfinished.root, good)
        return True

    begun = rooms / "begun"

    def finished(data: bytes) -> bool:
        shutil.rmtree(begun, ignore_errors=True)
        journal = begun / "build/journal"
        journal.mkdir(parents=True)
        (begun / "file").write_bytes(b"old")
        (journal / "0").write_bytes(b"new")
        (journal / "plan.json").write_bytes(data)
        done = recover(begun)
        # A plan may name any file of the project, and nothing but what was staged for it gets there.
        outside = [path for path in begun.rglob("*") if path.is_file() and "build" not in path.parts]
        assert all(path.read_bytes() in (b"old", b"new") for path in outside)
        return bool(done)

    def unpacked(data: bytes) -> bool:
        try:
            members = python_members(data, "tiny")
        except ValueError:
            return False
        assert all(len(got) <= 4 << 20 for got in members.values())
        return members.get(f"tiny:{MEMBER}") == FILES[CORE]

    return [
        Reader("patch", patches, patch),
        Reader("lock", [text, *_richer(text)], locked),
        Reader("manifest", [(project.tree / manifest.NAME).read_bytes()], recorded),
        Reader("wheel", wheels, unpacked),
        Reader("rebase state", [state.read_bytes()], resumed),
        Reader("journal", [_plan(None), _plan("build/rebase")], finished),
        *(_whole(project, name, place, seeds) for name, place, seeds in (
            ("vendor with a bent patch", "patches/core.patch", patches),
            ("vendor with a bent lock", "upstream.lock", [text]),
            ("vendor with a bent manifest", "vendor/PROVENANCE.json", [(project.tree / manifest.NAME).read_bytes()]),
        )),
    ]  # fmt: skip


def _plan(remove: str | None) -> bytes:
    """The plan of a journal that puts `new` in the place of `old`."""
    entry = {"path": "file", "before": sha256(b"old"), "after": sha256(b"new"), "staged": "0"}
    return json.dumps({"files": [entry], "remove": remove}, indent=2).encode()


def _unfinished(project: Project, where: Path) -> Project:
    """A copy of `project` in which a rebase has stopped at a conflict."""
    shutil.copytree(project.root, where / "project")
    shutil.copytree(project.upstream, where / "upstream")
    found = Project(where / "project", where / "upstream", project.commit, project.store)
    found.advance({CORE: FILES[CORE].replace(b"scaling", b"SCALING")})
    found.run("rebase", "--upstream", found.upstream, "main", code=3)
    return found


def _richer(text: bytes) -> Iterator[bytes]:
    from tests.tools.test_lock import LOCK

    yield LOCK.encode()
    yield text.replace(b'kind = "git"', b'kind = "raw"\nurl = "https://example.org/{commit}/{path}"')


def _whole(project: Project, name: str, place: str, seeds: list[bytes]) -> Reader:
    """The command line, offline, with one of the project's files bent: the tree ends whole or as it was."""
    path = project.root / place
    before = path.read_bytes()
    expected = FILES | EDITED

    def run(data: bytes) -> bool:
        path.write_bytes(data)
        words = ["--root", str(project.root), "--store", str(project.store), "--quiet", "vendor", "--offline"]
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
            code = main(words)
        path.write_bytes(before)
        assert code in (0, 1, 2, 3, 4, 5), said.getvalue()
        tree = {file.relative_to(project.tree).as_posix(): file.read_bytes() for file in _files(project.tree)}
        tree.pop(manifest.NAME, None)
        # A lock that was bent into another good one may leave a component out, and touches none of the old one then.
        assert tree == expected, f"exit {code}: {said.getvalue()}"
        return code == 0

    return Reader(name, seeds, run)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


@contextmanager
def untouched(where: Path, project: Project) -> Iterator[None]:
    """Insist that nothing in `where` changes but the project's tree, the rooms, the store and locks."""
    ours = [project.root, project.store, where / "rooms"]

    def seen() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in _files(where) if not any(path.is_relative_to(at) for at in ours)}

    before = seen()
    yield
    assert seen() == before


def try_many(reader: Reader, examples: int, number: int, tally: Tally) -> None:
    """Try `examples` inputs on `reader`, the same ones for the same `number`. What fails is made small and raised."""

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck),
              phases=[Phase.generate, Phase.shrink])  # fmt: skip
    @given(bent(reader.seeds))
    def property_holds(data: bytes) -> None:
        attempt(reader, data, tally)

    property_holds()


def fuzz(seconds: float, number: int = 0) -> Tally:
    """Spend `seconds` on all readers in turn, beginning with the seed `number`."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="dsu-fuzz-") as folder, Scratch() as scratch:
        project = make_project(Path(folder))
        project.run("vendor")
        everyone = readers(project, scratch)
        end = time.monotonic() + seconds
        with untouched(Path(folder), project):
            while time.monotonic() < end:
                for reader in everyone:
                    try_many(reader, 50 if reader.name.startswith("vendor") else 250, number, tally)
                    number += 1
    return tally


def run(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.hostile.fuzz", description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    given_words = parser.parse_args(arguments)
    # Not on Windows, where only the readers are tried.
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    # One failure, and there are no figures.
    tally = fuzz(given_words.seconds, given_words.seed)
    rows: list[tuple[str, int | str]] = [("seconds", f"{given_words.seconds:g}"), ("inputs", sum(tally.tried.values()))]
    rows += [(f"inputs: {name}", count) for name, count in tally.tried.items()]
    rows += [(f"of these let through: {name}", tally.admitted[name]) for name in tally.tried]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    rows += [("slowest input, seconds", f"{tally.slowest:.2f}"), ("most memory, MiB", peak)]
    path = record(
        "fuzz",
        command="make fuzz" if given_words.seconds == 120 else f"make fuzz SECONDS={given_words.seconds:g}",
        about="Patches, locks, manifests and wheels bent at random, given to their readers and to the command line.",
        rows=rows,
    )
    print(*(f"{figure:>8}  {what}" for what, figure in rows), f"written: {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(run())
