"""Tests that the vendored files run on Python 3.10, which the app uses."""

import ast

import vermin

from tests.conftest import ROOT
from tests.models.conftest import Trees
from tools.lock import load

NEWER = {
    "except*": "try:\n    pass\nexcept* ValueError:\n    pass\n",
    "datetime.UTC": "from datetime import UTC\n",
    "typing.Self": "from typing import Self\n",
    "tomllib": "import tomllib\n",
    "a star in brackets": "pair: tuple[int, *tuple[str]]\n",
    "a star in an annotation": "def all_of(*words: *tuple[str]): pass\n",
}


def needs_newer(source: str) -> bool:
    """Whether `source` has syntax, or names of the standard library, that Python 3.10 has not."""
    try:
        tree = ast.parse(source, feature_version=(3, 10))
    except SyntaxError:
        return True
    # What neither of the two knows.
    parts = [getattr(node, name, None) for node in ast.walk(tree) for name in ("slice", "annotation")]
    if any(isinstance(it, ast.Starred) for part in parts for it in [part, *getattr(part, "elts", ())]):
        return True
    minimum = vermin.detect(source)[1]
    return minimum is None or minimum > (3, 10)


def test_python_3_10_can_run_every_vendored_file(trees: Trees) -> None:
    paths = [file.path for file in load(ROOT).files]
    assert paths
    files = [tree / path for tree in (trees.patched, trees.extras) for path in paths]
    assert [file for file in files if needs_newer(file.read_text(encoding="utf-8"))] == []
    assert [name for name, source in NEWER.items() if not needs_newer(source)] == []
