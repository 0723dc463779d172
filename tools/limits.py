"""How much of anything is taken, at most: files may come from somebody else, and git and pip talk to anybody."""

import sys
from contextlib import suppress
from pathlib import Path

# Of a lock and of a patch file; ours have some ten kilobytes.
LARGEST_LOCK = 256 * 1024
LARGEST_PATCH = 1024 * 1024
# Of a pinned file, wherever it comes from.
LARGEST_FILE = 4 * 1024 * 1024
# Of a wheel, which is held whole; the ones that have pinned files have some hundred kilobytes.
LARGEST_WHEEL = 64 * 1024 * 1024
# Of what git or pip may have in memory, each process for itself; for our fetches 32 MiB and 48 MiB are enough.
LARGEST_CHILD = 1024 * 1024 * 1024


class Unreadable(OSError):
    """Something other than a regular file, or one that is far too large."""


def read_small(path: Path, most: int) -> bytes:
    """The bytes of the file `path`. Raises OSError: Unreadable when it is no regular file or has more than `most`."""
    if not path.is_file() and path.exists():
        raise Unreadable(f"{path} is no regular file")
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise Unreadable(f"{path} has more than {most} bytes")
    return data


def bound_memory(process: int) -> None:
    """Let the process of that id, and those that it starts from now on, have LARGEST_CHILD of memory each.

    On Linux; other systems have no such limit on another process. A lower limit of the user's stays.
    """
    if sys.platform == "linux":
        import resource

        # What may be written to: the address space would count what a runtime only reserves, and files that are mapped.
        kind = resource.RLIMIT_DATA
        # It may have ended already.
        with suppress(OSError):
            soft, hard = resource.prlimit(process, kind)
            most = min(limit for limit in (soft, hard, LARGEST_CHILD) if limit != resource.RLIM_INFINITY)
            resource.prlimit(process, kind, (most, hard))
