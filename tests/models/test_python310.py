"""The app runs Python 3.10, newer than which the patched files must not ask for."""

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
}


def needs_newer(source: str) -> bool:
    """Whether `source` has syntax, or names of the standard library, that Python 3.10 has not."""
    try:
        ast.parse(source, feature_version=(3, 10))
    except SyntaxError:
        return True
    minimum = vermin.detect(source)[1]
    return minimum is None or minimum > (3, 10)


def test_python_3_10_can_run_every_vendored_file(trees: Trees) -> None:
    paths = [file.path for file in load(ROOT).files if file.path not in trees.missing]
    assert paths
    assert [path for path in paths if needs_newer((trees.patched / path).read_text(encoding="utf-8"))] == []
    assert [name for name, source in NEWER.items() if not needs_newer(source)] == []
