"""Start the command line: `python -m tools VERB`."""

import os
import sys

if __name__ == "__main__":
    try:
        from tools.cli import main

        code = main()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to finish", file=sys.stderr)
        code = 130
    except ModuleNotFoundError as missing:
        print(f"error: Python package {missing.name!r} is not installed here", file=sys.stderr)
        print("next: make vendor, or pip install -r requirements/tools.txt", file=sys.stderr)
        code = 2
    # A normal exit would flush to a closed pipe, and another Ctrl-C could interrupt it.
    os._exit(code)
