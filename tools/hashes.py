"""The two names that bytes have here: SHA-256, which admits them, and git's blob id, which places them."""

import hashlib


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    """The id git gives a blob with these bytes, 40 lower-case hex digits (a SHA-1 repository)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
