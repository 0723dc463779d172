"""The two trees that the model tests compare: upstream's untouched files, and the same with our patches.

Both are made by the product itself from whatever sources this machine reaches. A pinned file that none of them has is
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
from tools.sources import pinned
from tools.store import Store

ATTEND = "models/bs_roformer/attend.py"
SAGE = "models/bs_roformer/attend_sage.py"


@contextmanager
def imports_from(tree: Path) -> Iterator[None]:
    """Inside, `models` and what is below it come from `tree`; outside, nothing of them is left in `sys.modules`.

    The packages are bare: their `__init__.py` imports every model, which a machine with some of the files cannot do.
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
    """`upstream` and `patched`, two folders laid out as upstream; `missing` pinned files, and what each source said."""

    upstream: Path
    patched: Path
    missing: frozenset[str]
    said: tuple[str, ...]

    def need(self, *paths: str) -> None:
        """Skip, or fail under REQUIRE_UPSTREAM=1, unless all pinned `paths` could be had."""
        for path in paths:
            if path in self.missing:
                text = f"{path} could not be had from any source; the end of this run says why"
                if os.environ.get("REQUIRE_UPSTREAM") == "1":
                    pytest.fail(text)
                pytest.skip(text)

    def load(self, tree: str, path: str) -> Any:
        """A fresh import of pinned file `path` from tree "upstream" or "patched"; it does not stay in `sys.modules`."""
        self.need(path)
        with imports_from(getattr(self, tree)):
            return importlib.import_module(path.removesuffix(".py").replace("/", "."))


def make_trees(top: Path) -> Trees:
    """Both trees below `top`, with as many files as this machine's sources give."""
    lock, store, said = load(ROOT), Store(), ()
    try:
        pinned(lock, ROOT, lock.files, store)
    except NoSource as error:
        said = tuple(error.findings)
    # What could be had is in the store now.
    found = {file.path: data for file in lock.files if (data := store.get(file.upstream)) is not None}
    there = [file for file in lock.files if file.path in found]
    patched = results(there, found, read_patches(ROOT, there))
    for name, files in (("upstream", found), ("patched", patched)):
        for path, data in files.items():
            target = top / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    missing = frozenset(file.path for file in lock.files if file not in there)
    return Trees(top / "upstream", top / "patched", missing, said)


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
    """Models this small only wait for each other on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def untouched(trees: Trees) -> Any:
    """Upstream's attend.py."""
    return trees.load("upstream", ATTEND)
