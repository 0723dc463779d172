"""Disks that fill up, rights that go, hosts that lie: an error in words or the next source, and nothing half done."""

import gzip
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools import servers
from tests.tools.conftest import EDITED, FILES, Project, write
from tests.tools.faults import MERGES, NET, files_below
from tests.tools.servers import serving
from tools.limits import LARGEST_CHILD, LARGEST_WHEEL

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
PLACES = ("vendor/models", "vendor/PROVENANCE.json", "patches", "upstream.lock", "build")


def run(
    project: Project, *words: str, shell: str = "", before: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """A verb, after the commands `shell` and run by the program `before`; never with a traceback."""
    verb = [*before, sys.executable, "-m", "tools", "--root", str(project.root), "--store", str(project.store), *words]
    done = subprocess.run(
        ["bash", "-c", f'{shell}\nexec "$@"', "bash", *verb],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **project.env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(done: "subprocess.CompletedProcess[str]", reason: str, place: Path) -> None:
    """It ended with code 2, and the error names `reason` and a path below `place`."""
    assert done.returncode == 2, done.stderr
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert reason in error
    assert str(place) in error
    assert "next: " in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="this system has no limit on the address space of a process")
def test_a_file_larger_than_memory_beside_or_in_place_of_ours(vendored: Project) -> None:
    large = 400 * 1024 * 1024
    theirs, limit = vendored.tree / "models/beta/checkpoint.bin", "ulimit -v 400000"
    theirs.touch()
    os.truncate(theirs, large)
    done = run(vendored, "vendor", shell=limit)
    assert done.returncode == 1, done.stderr
    assert "not made by us: models/beta/checkpoint.bin" in done.stderr
    theirs.unlink()
    os.truncate(vendored.tree / NET, large)
    for words, code in ((["vendor"], 1), (["refresh"], 2), (["vendor", "--force"], 0)):
        done = run(vendored, *words, shell=limit)
        assert done.returncode == code, done.stderr
        assert "models/beta/net.py" in done.stderr
    vendored.run("verify")


# full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path, leave: int) -> None:
    """Leave `leave` bytes of room in `place`."""
    room = os.statvfs(place)
    (place / "ballast").write_bytes(b"\0" * (room.f_bavail * room.f_frsize - leave))


@pytest.mark.parametrize("leave", [0, 12288])
def test_a_full_disk_under_the_destination_leaves_the_old_tree(vendored: Project, small_disk: Path, leave: int) -> None:
    tree = small_disk / "tree"
    vendored.run("vendor", "--dest", tree)
    core = tree / "models/alpha/core.py"
    core.write_bytes(FILES["models/alpha/core.py"])
    (tree / NET).write_bytes(FILES[NET])
    before = files_below(tree, "models", "PROVENANCE.json")
    fill(small_disk, leave)
    refused(run(vendored, "vendor", "--dest", str(tree)), "No space left on device", tree)
    assert files_below(tree, "models", "PROVENANCE.json") == before
    (small_disk / "ballast").unlink()
    vendored.run("vendor", "--dest", tree)
    vendored.run("verify", "--dest", tree)
    assert not list(tree.rglob(".*"))


@pytest.mark.parametrize("leave", [0, 8192, 12288, 16384, 20480, 24576, 28672])
def test_a_full_temporary_disk_is_named(vendored: Project, small_disk: Path, leave: int) -> None:
    (vendored.tree / NET).write_bytes(EDITED[NET] + b"# more\n")
    before = files_below(vendored.root, "patches", "upstream.lock", "vendor")
    fill(small_disk, leave)
    vendored.env["TMPDIR"] = str(small_disk)
    done = run(vendored, "refresh")
    if done.returncode:
        # Git says it in words of its own.
        assert "next: " in done.stderr
        assert str(small_disk) in done.stderr
        assert files_below(vendored.root, "patches", "upstream.lock", "vendor") == before
    else:
        assert leave


def test_a_full_disk_under_the_store_is_a_warning(unfetched: Project, small_disk: Path) -> None:
    unfetched.store = small_disk / "store"
    fill(small_disk, 8192)
    done = run(unfetched, "vendor")
    assert done.returncode == 0, done.stderr
    [warning] = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert str(unfetched.store) in warning
    assert "No space left" in warning
    unfetched.run("verify")
    assert not list(small_disk.rglob("*.tmp"))


def test_a_full_disk_under_temporary_files_is_an_error_in_words(unfetched: Project, small_disk: Path) -> None:
    unfetched.env = {"TMPDIR": str(small_disk)}
    # Room for the folder, and not for what git puts there.
    fill(small_disk, 40960)
    done = run(unfetched, "vendor")
    assert done.returncode == 5, done.stderr
    assert "No space left" in done.stderr
    assert not unfetched.tree.exists()
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


@pytest.mark.parametrize(("words", "blocks"), [(["refresh"], 1), (["rebase", "main"], 0), (["rebase", "main"], 2)])
def test_a_limit_on_the_size_of_files_leaves_project_and_tree(project: Project, words: list[str], blocks: int) -> None:
    project.run("vendor")
    if words[0] == "refresh":
        write(project.tree, {path: data + b"# more\n" for path, data in EDITED.items()})
    else:
        project.advance(dict(MERGES))
    before = files_below(project.root, *PLACES)
    # In units of 1,024 bytes; the lock alone has more.
    done = run(project, *words, shell=f"ulimit -f {blocks}")
    assert done.returncode not in (0, 1), done.stderr
    assert "next: " in done.stderr
    assert files_below(project.root, *PLACES) == before
    project.run(*words)


# rights


@pytest.fixture(scope="session")
def bound() -> Sequence[str]:
    """What to put before a command so that it minds the rights of files: root does not, unless its power is taken."""
    if not AS_ROOT:
        return ()
    powers = "-dac_override,-dac_read_search"
    command = ("setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}")
    if not shutil.which("setpriv") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("root minds no rights, and setpriv cannot change that here")
    return command


@pytest.fixture
def edited(vendored: Project) -> Iterator[Project]:
    """A project with something to do, whose folders get their rights back in the end."""
    write(vendored.tree, {path: FILES[path] for path in EDITED})
    yield vendored
    for path in [vendored.root, *vendored.root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


@pytest.mark.parametrize("place", ["vendor", "vendor/models", "vendor/models/alpha"])
def test_a_destination_that_may_only_be_read_is_left_as_it_is(
    edited: Project, bound: Sequence[str], place: str
) -> None:
    before = files_below(edited.root, *PLACES)
    folders = [path for path in (edited.root / place, *(edited.root / place).rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    refused(run(edited, "vendor", before=bound), "Permission denied", edited.tree)
    for path in folders:
        path.chmod(0o755)
    assert files_below(edited.root, *PLACES) == before
    edited.run("vendor")
    edited.run("verify")
    assert not list(edited.tree.rglob(".*"))


@pytest.mark.parametrize("place", ["", "patches"])
def test_a_project_that_may_only_be_read_is_left_as_it_is(edited: Project, bound: Sequence[str], place: str) -> None:
    write(edited.tree, {path: data + b"# more\n" for path, data in EDITED.items()})
    before = files_below(edited.root, *PLACES)
    (edited.root / place).chmod(0o555)
    refused(run(edited, "refresh", before=bound), "Permission denied", edited.root)
    (edited.root / place).chmod(0o755)
    edited.run("status")
    edited.run("refresh")
    after = files_below(edited.root, *PLACES)
    assert after != before
    edited.run("verify")


def test_rights_that_go_half_way_leave_the_old_tree_or_the_new_one(edited: Project, bound: Sequence[str]) -> None:
    old = files_below(edited.root, "vendor/models")
    new = {f"vendor/{path}": EDITED.get(path, data) for path, data in FILES.items()}
    for delay in (0.15, 0.2, 0.25):
        write(edited.tree, {path: FILES[path] for path in EDITED})

        def take(delay: float = delay) -> None:
            time.sleep(delay)
            edited.tree.chmod(0o555)
            (edited.tree / "models").chmod(0o555)

        taker = threading.Thread(target=take)
        taker.start()
        done = run(edited, "vendor", before=bound)
        taker.join()
        for path in (edited.tree, edited.tree / "models"):
            path.chmod(0o755)
        if done.returncode:
            refused(done, "Permission denied", edited.tree)
        assert files_below(edited.root, "vendor/models/alpha", "vendor/models/beta") in (old, new)
    edited.run("vendor")
    assert files_below(edited.root, "vendor/models") == new
    assert not list(edited.tree.rglob(".*"))


def test_what_a_killed_run_left_and_cannot_be_removed_is_named(edited: Project, bound: Sequence[str]) -> None:
    left = edited.tree / "models/.alpha.dsu-staging-x"
    write(left, {"inner/file": b"x\n"})
    left.chmod(0o555)
    refused(run(edited, "vendor", before=bound), "Permission denied", left)
    left.chmod(0o755)
    edited.run("vendor")
    assert not left.exists()


# the store


def test_a_store_that_vanishes_again_and_again_stops_nobody(unfetched: Project) -> None:
    stop = threading.Event()

    def remove() -> None:
        while not stop.wait(0.005):
            shutil.rmtree(unfetched.store, ignore_errors=True)

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(2):
            unfetched.run("vendor")
            shutil.rmtree(unfetched.tree)
    finally:
        stop.set()
        remover.join()
    unfetched.run("vendor")
    unfetched.run("verify")


def test_an_entry_with_a_flipped_bit_is_fetched_again(vendored: Project) -> None:
    shutil.rmtree(vendored.tree)
    for path in sorted((vendored.store / "sha256").rglob("*")):
        if path.is_file() and path.suffix != ".origin" and path.stat().st_size:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    done = vendored.run("vendor")
    flipped = [line for line in done.stderr.splitlines() if line.startswith("warning: store entry dropped")]
    assert len(flipped) == sum(map(bool, FILES.values()))
    vendored.run("verify")


# hosts


@pytest.fixture
def host() -> Iterator[servers.Host]:
    with serving(FILES) as host:
        yield host


@pytest.fixture
def offered(unfetched: Project, host: servers.Host) -> tuple[Project, servers.Host]:
    """A project that asks a host before git."""
    unfetched.sources([host.source, 'kind = "git"'])
    return unfetched, host


def by_source(project: Project) -> dict[str, str]:
    return {row["path"]: row["source"].split()[0] for row in project.json("vendor")["files"]}


def short(data: bytes) -> servers.Answer:
    """Promises less than it sends; what is over comes where the next answer should."""

    def answer(handler: servers._Handler) -> None:
        handler.head(200, len(data) - 5)
        handler.wfile.write(data)

    return answer


def test_a_length_that_is_less_than_what_comes_is_the_next_sources_turn(
    offered: tuple[Project, servers.Host],
) -> None:
    project, host = offered
    host.odd[NET] = [short(FILES[NET])]
    assert by_source(project)[NET] == "git"
    project.run("verify")


def test_files_in_one_anothers_place_are_refused_by_their_hash(offered: tuple[Project, servers.Host]) -> None:
    project, host = offered
    core = "models/alpha/core.py"
    host.odd = {NET: [servers.body(FILES[core])], core: [servers.body(FILES[NET])]}
    found = by_source(project)
    assert {path for path, source in found.items() if source == "git"} == {NET, core}
    project.run("verify")


def test_pages_with_status_200_for_every_file_are_the_next_sources_turn(
    offered: tuple[Project, servers.Host],
) -> None:
    project, host = offered
    host.odd["*"] = [servers.body(b"<html>sign in first</html>", {"Content-Type": "text/html"})]
    assert set(by_source(project).values()) == {"git"}


def test_connections_that_are_reset_are_the_next_sources_turn(offered: tuple[Project, servers.Host]) -> None:
    project, host = offered

    def reset(handler: servers._Handler) -> None:
        handler.head(200, 1000)
        handler.wfile.write(b"#" * 10)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        handler.connection.close()
        handler.close_connection = True

    host.odd["*"] = [reset]
    begun = time.monotonic()
    assert set(by_source(project).values()) == {"git"}
    assert time.monotonic() - begun < 20


def test_a_process_without_threads_is_told_so(unfetched: Project, host: servers.Host) -> None:
    unfetched.sources([host.source])
    # Every thread would get a stack larger than all the memory that there may be.
    done = run(unfetched, "vendor", shell="ulimit -S -s 4194304 && ulimit -v 2097152 || exit 77")
    if done.returncode == 77:
        pytest.skip("memory cannot be limited here")
    assert done.returncode == 5, done.stderr
    assert f"raw {host.url}" in done.stderr
    assert "can't start new thread" in done.stderr


# memory


def with_a_peak(project: Project, *words: str, code: int = 0) -> tuple["subprocess.CompletedProcess[str]", float]:
    """A verb that ends with `code`, and the most memory that it or a process of its had, in MiB."""
    peak = project.root.parent / "peak"
    measure = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[2:]); "
        "open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); "
        "sys.exit(done.returncode)"
    )
    verb = [sys.executable, "-m", "tools", "--root", project.root, "--store", project.store, *words]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", measure, peak, *verb],
        cwd=ROOT,
        env={**os.environ, **project.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert time.monotonic() - begun < 30
    # In KiB on Linux, bytes on macOS.
    return done, int(peak.read_text()) / (1024 if sys.platform == "linux" else 1 << 20)


linux = pytest.mark.skipif(sys.platform != "linux", reason="this system has no limit on another process's memory")


def bomb(layers: int, mib: int = 512) -> bytes:
    """Half a GiB of zeroes, compressed; twice, and it is a few kilobytes."""
    data = gzip.compress(b"\0" * (1 << 20), 9) * mib
    for _ in range(layers - 1):
        data = gzip.compress(data, 9)
    return data


@pytest.mark.parametrize("layers", [1, 2])
def test_a_compressed_bomb_costs_little_memory(offered: tuple[Project, servers.Host], layers: int) -> None:
    project, host = offered
    host.odd[NET] = [servers.body(bomb(layers), {"Content-Encoding": ", ".join(["gzip"] * layers)})]
    done, mib = with_a_peak(project, "vendor")
    assert mib < 160, f"{mib:.0f} MiB"
    assert [line for line in done.stderr.splitlines() if NET in line and line.startswith(("raw", "warning: raw"))]


@pytest.mark.parametrize("kind", ["bomb", "huge"])
def test_a_redirect_is_followed_and_its_body_left_unread(offered: tuple[Project, servers.Host], kind: str) -> None:
    project, host = offered
    data = bomb(1) if kind == "bomb" else b""

    def leading_to(place: str) -> servers.Answer:
        def answer(handler: servers._Handler) -> None:
            headers = {"Location": place} | ({"Content-Encoding": "gzip"} if data else {})
            handler.head(302, len(data) or 1 << 30, headers)
            handler.wfile.write(data)
            for _ in range(0 if data else 1 << 10):
                handler.wfile.write(b"#" * (1 << 20))
            handler.close_connection = True

        return answer

    host.odd = {NET: [leading_to("/elsewhere/again")], "again": [leading_to("/elsewhere/net")]}
    host.files["net"] = FILES[NET]
    _, mib = with_a_peak(project, "vendor")
    assert mib < 160, f"{mib:.0f} MiB"
    assert by_source(project)[NET] == "raw"


def test_a_huge_wheel_is_left_unread(unfetched: Project, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    digest = servers.make_wheel(folder, "tiny", "1.0", {"net.py": FILES[NET]})
    servers.inflate_wheel(folder, "tiny", 256 << 20)
    unfetched.sources([f'kind = "index"\n\n{servers.wheel_table("tiny", "1.0", digest)}', 'kind = "git"'])
    unfetched.pieces({NET: "tiny:net.py | a0+9"})
    unfetched.env = servers.pip_environment(folder)
    done, mib = with_a_peak(unfetched, "vendor")
    assert mib < 160, f"{mib:.0f} MiB"
    assert f"index: tiny==1.0: the wheel has {256 << 20} bytes, more than {LARGEST_WHEEL}" in done.stderr


@linux
def test_an_index_page_that_unpacks_to_more_than_there_is_ends_pip(unfetched: Project, host: servers.Host) -> None:
    page = gzip.compress(b"<!-- " + b"\0" * (1 << 20), 9) * (2 * LARGEST_CHILD >> 20)
    host.odd["*"] = [servers.body(page, {"Content-Type": "text/html", "Content-Encoding": "gzip"})]
    unfetched.sources([f'kind = "index"\n\n{servers.wheel_table("tiny", "1.0", "0" * 64)}', 'kind = "git"'])
    unfetched.pieces({NET: "tiny:net.py | a0+9"})
    unfetched.env = {"PIP_INDEX_URL": f"{host.url}/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    done, mib = with_a_peak(unfetched, "vendor")
    # Its code comes on top.
    assert mib < (LARGEST_CHILD >> 20) + 64, f"{mib:.0f} MiB"
    assert "index: tiny==1.0: MemoryError" in done.stderr


def packet(line: bytes) -> bytes:
    """A line as git's own protocol has it."""
    return b"%04x" % (len(line) + 4) + line


def refs(numbers: range, tail: bytes = b"") -> bytes:
    return b"".join(packet(b"%040x refs/heads/%060000d%s\n" % (number + 1, number, tail)) for number in numbers)


BRANCH = packet(b"%040x HEAD\0 side-band-64k allow-tip-sha1-in-want\n" % 1) + packet(b"%040x refs/heads/main\n" % 1)
MESSAGE = packet(b"\2" + b"#" * 60000 + b"\n")


def endless_refs(client: socket.socket) -> None:
    client.sendall(BRANCH)
    many = refs(range(100))
    while True:
        client.sendall(many)


def many_refs_of_one_name(client: socket.socket) -> None:
    client.sendall(BRANCH)
    for first in range(0, 5000, 100):
        client.sendall(refs(range(first, first + 100), b"/refs/heads/main"))
    client.sendall(b"0000")


def endless_messages(client: socket.socket) -> None:
    client.sendall(BRANCH + b"0000")
    asked = b""
    while b"want" not in asked:
        if not (more := client.recv(65536)):
            # It was for the branch alone.
            return
        asked += more
    client.sendall(packet(b"NAK\n"))
    while True:
        client.sendall(MESSAGE)


@linux
@pytest.mark.parametrize(
    ("talk", "says", "most"),
    [
        (endless_refs, "memory", (LARGEST_CHILD >> 20) + 64),
        (many_refs_of_one_name, "more than", 700),
        (endless_messages, "more than", 160),
    ],
)
def test_a_remote_that_never_stops_costs_bounded_memory(
    unfetched: Project, talk: Callable[[socket.socket], None], says: str, most: int
) -> None:
    def serve() -> None:
        # Until the listener is closed.
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.recv(65536)
                with suppress(OSError):
                    talk(client)
                client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"--upstream=git://127.0.0.1:{listener.getsockname()[1]}/x"
        done, mib = with_a_peak(unfetched, "outdated", url, code=5)
    # On a slow machine the time is up first.
    assert says in done.stderr.lower() or "no answer within" in done.stderr
    assert mib < most, f"{mib:.0f} MiB"
