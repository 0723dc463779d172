"""`make stress`: hundreds of runs cut off at random moments, and many at once; the figures go to docs/figures."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.figures import record
from tests.tools.faults import Case, Tally, at_once, many, measured

_COMMAND = "make stress"


def main() -> int:
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="SIGKILLs that meet a run at work")
    parser.add_argument("--interrupts", type=int, default=60, help="SIGINTs, likewise")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of eight runs at once, of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = measured(folder, runs=3)
        kills = many(cases, folder, options.kills, signal.SIGKILL, options.seed, say=_say)
        interrupts = many(cases, folder, options.interrupts, signal.SIGINT, options.seed + 1, say=_say)
        together = at_once(folder / "together", options.rounds, say=_say)
    failures = [*kills.failures, *interrupts.failures, *together.failures]
    for failure in failures:
        print(f"failure: {failure}", file=sys.stderr)
    record(
        "kills",
        command=_COMMAND,
        about="SIGKILL to the process group of a verb, at moments spread evenly over its length, on small projects; "
        'then what is there is compared by its bytes, and the verb is run again. "Left old" and "new" are what '
        "stood right behind the signal: all of it as before the run, or all of it as a run left alone makes it.",
        rows=[
            ("seed", str(options.seed)),
            ("kills sent", kills.counts["sent"]),
            ("of them, met a run at work", kills.counts["in time"]),
            *_by_verb(cases, kills),
            ("journals found, and finished by the next verb", kills.counts["journals"]),
            ("failures: neither old nor new, a next run that needs help, files left behind", len(kills.failures)),
        ],
    )
    record(
        "faults",
        command=_COMMAND,
        about="SIGINT to the process group of a verb, at moments spread evenly over its length; and eight runs at once "
        'on one tree or one store. "Before our first line" is while Python itself still starts, and answers in its '
        "own way; nothing is begun then.",
        rows=[
            ("seed", str(options.seed + 1)),
            ("interrupts sent", interrupts.counts["sent"]),
            ("of them, met a run at work", interrupts.counts["in time"]),
            ("answered with exit code 130 and one line", interrupts.counts["answered"]),
            ("met Python before our first line", interrupts.counts["early"]),
            ("the latest of these, in ms after the start", round(interrupts.latest_start * 1000)),
            *_by_verb(cases, interrupts),
            ("journals found after an interrupt, and finished by the next verb", interrupts.counts["journals"]),
            ("failures of interrupts", len(interrupts.failures)),
            *((f"eight at once, {what}", number) for what, number in sorted(together.counts.items())),
            ("failures of eight at once", len(together.failures)),
        ],
    )
    return 1 if failures else 0


def _by_verb(cases: list[Case], tally: Tally) -> list[tuple[str, int | str]]:
    """A row a verb: how many met it, and what was there right behind, or with a journal, once that was finished."""
    return [
        (
            f"{case.name}, {case.seconds:.1f} s long",
            f"{tally.counts[case.name, 'hit']}: {tally.counts[case.name, 'old']} left old, "
            f"{tally.counts[case.name, 'new']} new",
        )
        for case in cases
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
