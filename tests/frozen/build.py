"""Freezes program.py with cx_Freeze: `python build.py TREE TARGET`, where TREE is a vendored tree.

TARGET has no source files: cx_Freeze compiles modules, and the sources that its hook for torch adds are removed. With
them, an application needs no `without_torch_sources`.
"""

import sys
from importlib.resources import files
from pathlib import Path

from cx_Freeze import Executable, Freezer

# torch and librosa import these only for parts that no model uses.
EXCLUDED = ["narwhals", "pytest", "setuptools", "sklearn", "sqlite3", "tkinter"]


def stubs(package: str) -> list[tuple[Path, str]]:
    """The `.pyi` files of an installed package, with their places in the build."""
    root = Path(str(files(package)))
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
