"""Freeze program.py: `python build.py TREE TARGET`, with a vendored TREE and what it imports on the path.

No source file is left in TARGET: cx_Freeze compiles modules, and the few that its hook for torch ships are removed. An
application that keeps them needs no `without_torch_sources`.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from cx_Freeze import Executable, Freezer

# What torch and librosa import only for parts that no model uses.
EXCLUDED = ["narwhals", "pytest", "setuptools", "sklearn", "sqlite3", "tkinter"]


def stubs(package: str) -> list[tuple[Path, str]]:
    """The `.pyi` files of an installed package, with their places in the build."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    return [(path, f"lib/{package}/{path.relative_to(root).as_posix()}") for path in root.rglob("*.pyi")]


def build(tree: Path, target: Path) -> None:
    tree = tree.resolve()
    # cx_Freeze follows imports by recursion.
    sys.setrecursionlimit(10_000)
    freezer = Freezer(
        [Executable(Path(__file__).with_name("program.py"))],
        excludes=EXCLUDED,
        path=[str(tree), *sys.path[1:]],
        # Compiled code names the file it came from, and where that is still there it would be read.
        replace_paths=[("*", ""), (f"{tree}/", "")],
        include_files=stubs("librosa"),
        target_dir=target,
        silent=2,
    )
    freezer.freeze()
    for path in target.rglob("*.py"):
        path.unlink()


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
