"""Local servers for the tests: HTTP hosts with good or bad answers, hosts that do not answer, and wheels for pip."""

import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[["_Handler"], None]


@dataclass
class Host:
    """An HTTP host that serves `files` by path. `odd` has other answers for a path, or for "*" (any path).

    Odd answers are given in order; the last one stays. `asked` says what came in.
    """

    files: Mapping[str, bytes]
    url: str = ""
    odd: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> Answer:
        self.asked.append(path)
        queue = self.odd.get(path) or self.odd.get("*")
        if queue:
            return queue.pop(0) if len(queue) > 1 else queue[0]
        return reply(self.files[path]) if path in self.files else reply(code=404)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host

    def do_GET(self) -> None:
        # Most URLs start with a commit.
        path = self.path.partition("?")[0].removeprefix("/")
        found = path if path in self.host.files or path in self.host.odd else path.partition("/")[2]
        try:
            self.host.answer(found)(self)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Host]:
    host = Host(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"host": host}))
    server.block_on_close = False
    host.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()


def reply(data: bytes = b"", code: int = 200, *, promised: int = 0, **headers: str) -> Answer:
    """An HTTP answer. promised: how many bytes its length exceeds `data` by."""

    def answer(handler: _Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(data) + promised), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = promised > 0

    return answer


def bytes_of(data: bytes) -> Answer:
    """These bytes in place of an HTTP answer."""

    def answer(handler: _Handler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def drip(handler: _Handler) -> None:
    """An answer that brings a byte now and then, and never ends."""
    reply(promised=1000)(handler)
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.5)


@contextmanager
def silent() -> Iterator[int]:
    """The port of a host that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


@contextmanager
def unreachable() -> Iterator[int]:
    """The port of a host that accepts no connection, since its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for client in clients:
            client.close()


def make_wheel(folder: Path, name: str, version: str, members: Mapping[str, bytes]) -> None:
    """A wheel that pip takes, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    wheel = b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**members, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}.items():
            archive.writestr(member, data)


def pip_environment(folder: Path) -> dict[str, str]:
    """The environment that makes pip look only in `folder`."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_EXTRA_INDEX_URL": "",
    }
