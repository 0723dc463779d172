"""A change to patches and lock as a whole: tried out beside the project, and completed by the documents that follow.

`refresh` and `rebase` end here; `transaction.py` then writes what comes out.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.apply import build, read_patches
from tools.docs import stale
from tools.errors import Drift
from tools.lock import LOCK_NAME, PATCH_DIR, Lock, load
from tools.progress import Progress
from tools.store import Store
from tools.temporary import TemporaryFolder
from tools.vendor import Place, vendor
from tools.verify import check


@contextmanager
def staged(root: Path, changes: Mapping[str, bytes | None]) -> Iterator[Path]:
    """A folder with the lock and the patches of the project at `root` as `changes` (None: deleted) make them."""
    with TemporaryFolder() as name:
        folder = Path(name)
        (folder / PATCH_DIR).mkdir()
        for source in (root / LOCK_NAME, *(root / PATCH_DIR).glob("*.patch")):
            shutil.copyfile(source, folder / source.relative_to(root))
        for path, data in changes.items():
            if data is None:
                (folder / path).unlink()
            else:
                (folder / path).write_bytes(data)
        yield folder


def completed(
    root: Path,
    changes: Mapping[str, bytes | None],
    pinned: Mapping[str, bytes],
    verbs: Sequence[tuple[str, str]],
    *,
    draft: bool = False,
) -> tuple[Lock, dict[Path, bytes | None]]:
    """The lock that `changes` (paths below `root`) lead to, and every file to write for them: documents as well.

    pinned: bytes by path of whole components, which are built as proof. draft: Descriptions may still be to write.
    Raises what `load` and `build` raise, and UsageError for a document that cannot be computed.
    """
    with staged(root, changes) as folder:
        lock = load(folder)
        patches = read_patches(folder, lock, draft=draft)
        whole = [part for part in lock.components if all(file.path in pinned for file in part.files)]
        build(folder, lock, whole, pinned, draft=draft)
    documents = stale(root, lock, patches, verbs)
    return lock, {
        **{root / path: data for path, data in changes.items()},
        **{root / name: text.encode() for name, text in documents.items()},
    }


def prove(root: Path, changes: Mapping[str, bytes | None], pinned: Mapping[str, bytes]) -> None:
    """Vendor into a folder of its own from `changes` and `pinned`, as a user will, and verify it.

    Raises what `vendor` raises, and Drift when the tree is not what the new lock says.
    """
    with staged(root, changes) as folder:
        lock = load(folder)
        store = Store(folder / "store", lambda _: None)
        for data in pinned.values():
            store.put(data, "rebase")
        tree = folder / "tree"
        vendor(folder, lock, lock.components, Place(tree), [], store, Progress(quiet=True), offline=True)
        if found := check(tree, lock, lock.components, named=True):
            raise Drift("the tree built as proof is not what the new lock says", map(str, found))
