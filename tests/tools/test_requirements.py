"""Tests requirements/: packages are pinned, with hashes where possible, and none is unused."""

import ast
import re
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

FOLDER = ROOT / "requirements"


def lines(file: str) -> list[str]:
    """The requirements in a file and in the files that it includes, with hashes."""
    text = (FOLDER / file).read_text(encoding="utf-8").replace("\\\n", "")
    found = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [line for it in found for line in (lines(it[3:]) if it.startswith("-r ") else [it])]


def listed(file: str) -> set[tuple[str, str]]:
    """The names in a file, with their version specifiers."""
    found = [Requirement(line.partition(" --hash")[0]) for line in lines(file)]
    return {(canonicalize_name(it.name), str(it.specifier)) for it in found}


@pytest.mark.parametrize("name", ["check", "suite", "tools"])
def test_every_package_is_pinned_with_hashes_and_the_tools_ones_are_the_same(name: str) -> None:
    pinned = listed(f"{name}.txt")
    assert dict(listed(f"{name}.in")).keys() <= dict(pinned).keys()
    for line in lines(f"{name}.txt"):
        assert re.search(r"^[\w.-]+==.*--hash=sha256:[0-9a-f]{64}\b", line), line
    tools = listed("tools.txt")
    assert {pin for pin in pinned if pin[0] in dict(tools)} <= tools


def test_the_constraints_agree_with_what_is_pinned_by_hand() -> None:
    constraints = dict(listed("constraints.txt"))
    more = re.findall(r"(?m)^more-.*", (ROOT / "Makefile").read_text(encoding="utf-8"))
    by_hand = {(canonicalize_name(name), it) for name, it in re.findall(r"([\w-]+)(==[\w.]+)", " ".join(more))}
    assert by_hand
    # torch and its CUDA packages differ between machines.
    assert {pin for pin in listed("models.txt") | by_hand if pin[0] not in ("torch", "triton")} <= constraints.items()
    assert not [name for name in constraints if name in ("torch", "triton") or name.startswith(("nvidia", "cuda"))]
    for path in [*FOLDER.glob("*.in"), *FOLDER.glob("*.txt")]:
        assert not re.search(r"://|--(extra-)?index|--find-links|--trusted", path.read_text(encoding="utf-8")), path


def test_tools_in_names_exactly_what_the_tools_import() -> None:
    imported: set[str] = set()
    for path in (ROOT / "tools").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    known = packages_distributions()
    others = imported - set(sys.stdlib_module_names) - {"tools", "__future__"}
    assert {canonicalize_name(known[name][0]) for name in others} == dict(listed("tools.in")).keys()
