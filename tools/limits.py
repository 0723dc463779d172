"""Reading the project's own small files, and never more than they can be: they may come from somebody else."""

from pathlib import Path

# Of a lock and of a patch file; ours have some ten kilobytes.
LARGEST_LOCK = 256 * 1024
LARGEST_PATCH = 1024 * 1024
# Of a pinned file, wherever it comes from.
LARGEST_FILE = 4 * 1024 * 1024


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
