"""Ctrl-C, whenever it comes: one line, exit code 130, no traceback.

To be loaded before anything that takes time to load.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LINE = "interrupted; nothing is left half-written"


def arm() -> None:
    """End this process at Ctrl-C from now on, until `answering`: while modules are loaded, nothing has begun."""
    # Started in the background, it may have been told to ignore that signal.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def answering(main: Callable[[], int]) -> int:
    """The exit code of `main`, or 130 when Ctrl-C came and `main` did not answer it; none is listened to behind it."""
    armed = signal.getsignal(signal.SIGINT) is _end
    sys.unraisablehook = _unraisable
    try:
        if armed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main()
        ignore()
    except KeyboardInterrupt:
        _end()
    # Where the interruption met an exec(), as dataclasses use it, Python ends by the signal unless another follows.
    exec("")
    return code


def ignore() -> None:
    """Listen to no further Ctrl-C: what is left to do is to say so, and to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def held_back() -> Iterator[None]:
    """Answer a Ctrl-C that comes in the block behind it, for the few steps that belong together.

    An error in the block goes before. Beside the main thread, to which Ctrl-C comes, it does nothing.
    """
    answer = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(answer):
        yield
        return
    came: list[tuple[Any, Any]] = []
    signal.signal(signal.SIGINT, lambda *signalled: came.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, answer)
    if came:
        answer(*came[0])


def _end(*_: object) -> None:
    ignore()
    try:
        os.write(2, f"{LINE}\n".encode())
    finally:
        os._exit(130)


def _unraisable(found: "sys.UnraisableHookArgs") -> None:
    # In a destructor or a callback, Python would print a traceback and go on as if nothing had been asked for.
    if found.exc_type is KeyboardInterrupt:
        _end()
    sys.__unraisablehook__(found)
