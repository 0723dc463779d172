"""The app runs Python 3.10, newer than which the patched files must not ask for."""

import ast
from collections.abc import Iterator
from pathlib import Path

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
    indices = [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    if any(isinstance(part, ast.Starred) for index in indices for part in getattr(index, "elts", ())):
        return True
    if any(isinstance(node.annotation, ast.Starred) for node in ast.walk(tree) if isinstance(node, ast.arg)):
        return True
    minimum = vermin.detect(source)[1]
    return minimum is None or minimum > (3, 10)


def test_python_3_10_can_run_every_vendored_file(trees: Trees) -> None:
    paths = [file.path for file in load(ROOT).files if file.path not in trees.missing]
    assert paths
    assert [path for path in paths if needs_newer((trees.patched / path).read_text(encoding="utf-8"))] == []
    assert [name for name, source in NEWER.items() if not needs_newer(source)] == []


def ours(path: Path) -> Iterator[Path]:
    """The modules of this project that the one at `path` imports, while it is imported itself or later."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        places = [ROOT.joinpath(*name.split(".")) for name in names if name.split(".")[0] in ("tests", "tools")]
        yield from (
            file for place in places for file in (place / "__init__.py", place.with_suffix(".py")) if file.exists()
        )


def test_python_3_10_can_run_the_tests_of_these_files() -> None:
    """As `make test-torch PYTHON=python3.10` does, with all that they import."""
    found: set[Path] = set()
    new = {*(ROOT / "tests" / "models").glob("*.py"), ROOT / "tests" / "conftest.py"}
    while new:
        found |= new
        new = {path for known in new for path in ours(known)} - found
    assert ROOT / "tools" / "lock.py" in found
    # Python 3.10 is given `tomli` under that name by tests/conftest.py.
    newer = {path for path in found if needs_newer(path.read_text(encoding="utf-8").replace("import tomllib", ""))}
    assert {path.relative_to(ROOT).as_posix() for path in newer} == set()
