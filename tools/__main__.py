"""Starts the command line: `python -m tools VERB`. Each `make` target is one call of it."""

import os
import sys

if __name__ == "__main__":
    try:
        from tools.cli import main

        code = main()
    except KeyboardInterrupt:
        print("interrupted; nothing is left half-done that the next run does not put right", file=sys.stderr)
        code = 130
    except ModuleNotFoundError as missing:
        print(f"error: Python package {missing.name!r} is not installed here", file=sys.stderr)
        print("next: make vendor, which sets up its own", file=sys.stderr)
        code = 2
    # Python's own way out would write once more to a reader that is gone, and can be interrupted.
    os._exit(code)
