"""Times several ways of doing one thing against each other, on a machine whose speed may change meanwhile.

Each round runs every way once, in random order. The report has medians and quartiles of the ratios within a round.
"""

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds of one way, and its ratios to other ways within a round: first quartile, median, third quartile."""

    way: str
    seconds: tuple[float, float, float]
    ratios: dict[str, tuple[float, float, float]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compare(
    ways: Mapping[str, Callable[[], object]], *, against: Sequence[str], rounds: int, inner: int = 1
) -> list[Timing]:
    """Time `ways`: `rounds` rounds after one that does not count, each way `inner` times in a round.

    against: the ways to compute ratios to, as far as they are among `ways`.
    """
    shuffle = random.Random(0)
    names = list(ways)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        order = names[:]
        shuffle.shuffle(order)
        for name in order:
            way = ways[name]
            start = time.perf_counter()
            for _ in range(inner):
                way()
            if number:
                samples[name].append((time.perf_counter() - start) / inner)
    return [
        Timing(
            name,
            quartiles(samples[name]),
            {
                base: quartiles([one / other for one, other in zip(samples[name], samples[base], strict=True)])
                for base in against
                if base in samples
            },
        )
        for name in names
    ]


def peak_memory(code: str, *arguments: str) -> int:
    """Peak memory in bytes of `run()`, which `code` defines, in a new Python process."""
    script = f"{code}\nfrom bench.measure import grown\nprint(grown(run))"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def grown(run: Callable[[], object]) -> int:
    """Bytes by which `run` raises the peak memory of this process over its present memory. Linux only."""
    # Resets the peak to the present memory.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024
