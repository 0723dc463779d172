"""Live progress on standard error: a bar on a terminal, plain lines anywhere else. Standard output is never touched."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tools.errors import visible


class Progress:
    """Says what is going on; `quiet` says nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        # Started with standard error closed, there is nobody to tell, and print() would take standard output instead.
        self._heard = sys.stderr is not None
        self._quiet = quiet or not self._heard
        self._live: Callable[[str], None] | None = None

    def line(self, text: str) -> None:
        """One line, now."""
        if self._quiet:
            return
        text = visible(text)
        if self._live:
            self._live(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """One line that is never left out."""
        text = visible(text)
        if self._live:
            self._live(f"warning: {text}")
        elif self._heard:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar of `total` steps around a block; calling what it yields is one step done."""
        if self._quiet or not total or not sys.stderr.isatty():
            yield lambda: None
            return
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=total)
            self._live = lambda text: bar.console.print(
                text, markup=False, emoji=False, highlight=False, soft_wrap=True
            )
            try:
                yield lambda: bar.advance(task)
            finally:
                self._live = None
