"""Timing two or more ways of one thing against each other, so that a machine whose speed drifts cannot decide it.

Every round runs each way once, in an order that changes from round to round; what is compared is the ratio within a
round, whose median and quartiles are reported.
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
    """Seconds of one way over all rounds, and its ratios to other ways, round by round: quartile, median, quartile."""

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
    """Time `ways` interleaved: `rounds` rounds, each way `inner` times a round, after one uncounted round.

    against: the ways that the others' ratios are to; one that is not among `ways` is passed over.
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
    """Bytes that `run()`, which `code` defines, takes at its peak in a fresh Python over what was resident before."""
    script = f"{code}\nfrom bench.measure import grown\nprint(grown(run))"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def grown(run: Callable[[], object]) -> int:
    """By how many bytes the largest resident set of this process grows over the present one while `run` runs. Linux."""
    # Starts the system's high-water mark afresh at what is resident now.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024
