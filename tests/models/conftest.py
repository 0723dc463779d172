"""The trees that the model tests compare: upstream's untouched files, the same with our patches, and with the extras.

All are made by the product itself from whatever sources this machine reaches. A pinned file that none of them has is
named in the skip of every test that needs it; REQUIRE_UPSTREAM=1 makes that a failure.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.conftest import CLOSING_LINES, ROOT
from tools.apply import read_patches, results
from tools.errors import NoSource
from tools.lock import load
from tools.project import Project
from tools.sources import pinned
from tools.store import Store

ATTEND = "models/bs_roformer/attend.py"
SAGE = "models/bs_roformer/attend_sage.py"


@contextmanager
def imports_from(tree: Path) -> Iterator[None]:
    """While the block runs, `models` is imported from `tree`; after it, none of it is left in `sys.modules`.

    The packages run no `__init__.py`, which imports every model, since some files may be missing.
    """
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "models"}
    for name in ("models", "models.bs_roformer", "models.scnet"):
        package = ModuleType(name)
        package.__path__ = [str(tree / name.replace(".", "/"))]
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
            del sys.modules[name]
        sys.modules.update(kept)


@dataclass
class Trees:
    """Folders laid out as upstream: untouched, patched, and patched with every extra; `missing` pinned files, and what
    each source said."""

    upstream: Path
    patched: Path
    extras: Path
    missing: frozenset[str]
    said: tuple[str, ...]

    def need(self, *paths: str) -> None:
        """Skip the test, or fail with REQUIRE_UPSTREAM=1, where one of the pinned `paths` is missing."""
        for path in paths:
            if path in self.missing:
                text = f"{path} could not be had from any source; the end of this run says why"
                if os.environ.get("REQUIRE_UPSTREAM") == "1":
                    pytest.fail(text)
                pytest.skip(text)

    def load(self, tree: str, path: str) -> Any:
        """A fresh import of pinned file `path` from the tree of that name; it does not stay in `sys.modules`."""
        self.need(path)
        with imports_from(getattr(self, tree)):
            return importlib.import_module(path.removesuffix(".py").replace("/", "."))


def make_trees(top: Path) -> Trees:
    """All trees below `top`, with as many files as this machine's sources give."""
    lock, store, said = load(ROOT), Store(), ()
    try:
        pinned(Project(ROOT, store, ROOT / "vendor"), lock, lock.files)
    except NoSource as error:
        said = tuple(error.findings)
    # All files that were found are in the store now.
    found = {file.path: data for file in lock.files if (data := store.get(file.upstream)) is not None}
    there = [file for file in lock.files if file.path in found]
    patches, trees = read_patches(ROOT, there), {"upstream": found}
    for name, extras in (("patched", ()), ("extras", tuple(lock.decisions.extras))):
        trees[name] = results(there, found, patches, extras)
    for name, files in trees.items():
        for path, data in files.items():
            target = top / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    missing = frozenset(file.path for file in lock.files if file not in there)
    return Trees(*(top / name for name in trees), missing, said)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Trees:
    trees = make_trees(tmp_path_factory.mktemp("trees"))
    if trees.missing:
        lines = request.config.stash.setdefault(CLOSING_LINES, [])
        lines += [f"could not be had: {path}" for path in sorted(trees.missing)]
        lines += [f"because {text}" for text in trees.said]
    return trees


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def untouched(trees: Trees) -> Any:
    """Upstream's attend.py."""
    return trees.load("upstream", ATTEND)
