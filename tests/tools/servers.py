"""Real things on the loopback to fetch from: an HTTP host that behaves or does not, dead hosts, a folder of wheels."""

import hashlib
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[["_Handler"], None]


class Host:
    """An HTTP host: serves `files` by path, except where `odd` holds other answers for a path, or for "*".

    Odd answers are given in order; the last one stays. `asked` and `connections` say what came in.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.odd: dict[str, list[Answer]] = {}
        self.asked: list[str] = []
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str) -> Answer:
        self.asked.append(path)
        queue = self.odd.get(path) or self.odd.get("*")
        if queue:
            return queue.pop(0) if len(queue) > 1 else queue[0]
        return body(self.files[path]) if path in self.files else status(404)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host

    def setup(self) -> None:
        super().setup()
        self.host.connections += 1

    def do_GET(self) -> None:
        # The first part is the commit; a URL without one is somebody's static file.
        path = self.path.partition("?")[0].removeprefix("/")
        found = path if path in self.host.files or path in self.host.odd else path.partition("/")[2]
        try:
            self.host.answer(found)(self)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass

    def head(self, code: int, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Host]:
    host = Host(files)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"host": host}))
    host.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()


def body(data: bytes) -> Answer:
    def answer(handler: _Handler) -> None:
        handler.head(200, len(data))
        handler.wfile.write(data)

    return answer


def status(code: int, headers: Mapping[str, str] | None = None) -> Answer:
    def answer(handler: _Handler) -> None:
        handler.head(code, 0, headers)

    return answer


def redirect(to: str) -> Answer:
    return status(302, {"Location": to})


def truncated(data: bytes) -> Answer:
    """Promises a hundred bytes more than it sends."""

    def answer(handler: _Handler) -> None:
        handler.head(200, len(data) + 100)
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def bytes_of(data: bytes) -> Answer:
    """These bytes where an HTTP answer is expected, then the end."""

    def answer(handler: _Handler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


@contextmanager
def silent() -> Iterator[int]:
    """The port of a host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


@contextmanager
def unreachable() -> Iterator[int]:
    """The port of a host that does not even take a connection: its queue is full, so the kernel drops the next one."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        clients = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            clients.append(client)
        try:
            yield listener.getsockname()[1]
        finally:
            for client in clients:
                client.close()


def make_wheel(folder: Path, name: str, version: str, members: Mapping[str, bytes]) -> str:
    """A wheel that pip takes, in `folder`; its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*members, *meta, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**members, **meta, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(member, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pip_environment(folder: Path) -> dict[str, str]:
    """Has pip look in `folder` and nowhere else."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_EXTRA_INDEX_URL": "",
    }
