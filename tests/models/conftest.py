"""The trees that the model tests compare: upstream's untouched files, the same with our patches, and with the extras.

All are made by the product itself from whatever sources this machine reaches. Where a pinned file is missing, all tests
are skipped; REQUIRE_UPSTREAM=1 makes that a failure.
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

from tests.conftest import ROOT
from tools.apply import read_patches, results
from tools.errors import NoSource
from tools.lock import load
from tools.sources import Project, pinned
from tools.store import Store

ATTEND = "models/bs_roformer/attend.py"
SAGE = "models/bs_roformer/attend_sage.py"


@contextmanager
def imports_from(tree: Path) -> Iterator[None]:
    """While the block runs, `models` is imported from `tree`; after it, none of it is left in `sys.modules`.

    The packages run no `__init__.py`, which imports every model.
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
    """Folders laid out as upstream: untouched, patched, and patched with every extra."""

    upstream: Path
    patched: Path
    extras: Path

    def load(self, tree: str, path: str) -> Any:
        """A fresh import of pinned file `path` from the tree of that name; it does not stay in `sys.modules`."""
        with imports_from(getattr(self, tree)):
            return importlib.import_module(path.removesuffix(".py").replace("/", "."))


def make_trees(top: Path) -> Trees:
    """All trees below `top`. Raises NoSource."""
    lock = load(ROOT)
    upstream = pinned(Project(ROOT, Store(), ROOT / "vendor"), lock, lock.files).files
    patches, trees = read_patches(ROOT, lock.files), {"upstream": upstream}
    for name, extras in (("patched", ()), ("extras", tuple(lock.decisions.extras))):
        trees[name] = results(lock.files, upstream, patches, extras)
    for name, files in trees.items():
        for path, data in files.items():
            target = top / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return Trees(*(top / name for name in trees))


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    try:
        return make_trees(tmp_path_factory.mktemp("trees"))
    except NoSource as error:
        if os.environ.get("REQUIRE_UPSTREAM") == "1":
            raise
        pytest.skip(f"no source has the pinned files: {error}")


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
