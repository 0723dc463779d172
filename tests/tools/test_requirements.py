"""What the environments are made of: pinned, hashed where hashes serve all machines, and no more than is imported."""

import ast
import json
import re
import runpy
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "requirements"
HASHED = {path.stem for path in FOLDER.glob("*.in")}
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: *; *(.+?))?(?: \\)?$")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(name: str) -> list[str]:
    """The requirements in a file, each with its hashes, without remarks."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", "")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins(name: str) -> set[tuple[str, str]]:
    found = [PINNED.match(entry.partition(" --hash")[0].strip()) for entry in entries(name) if entry[:2] != "-r"]
    assert all(found), name
    return {(plain(match[1]), match[2]) for match in found if match}


def wanted(name: str) -> set[str]:
    """What an .in file names, those it includes as well."""
    names: set[str] = set()
    for line in (FOLDER / f"{name}.in").read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            names |= wanted(line[3:].removesuffix(".in"))
        elif line and not line.startswith("#"):
            names.add(plain(re.split(r"[;=<> ]", line)[0]))
    return names


@pytest.mark.parametrize("name", sorted(HASHED))
def test_what_an_in_file_names_is_pinned_with_hashes(name: str) -> None:
    assert wanted(name) <= {package for package, _ in pins(name)}
    for entry in entries(name):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


@pytest.mark.parametrize("name", ["suite", "check"])
def test_the_tools_are_the_same_everywhere(name: str) -> None:
    of_tools = {package: {pin for pin in pins("tools") if pin[0] == package} for package, _ in pins("tools")}
    for package, version in pins(name):
        assert package not in of_tools or (package, version) in of_tools[package]


def test_what_is_pinned_by_hand_is_pinned_alike_for_what_it_brings() -> None:
    constraints = dict(pins("constraints"))
    assert len(list(FOLDER.glob("*.in"))) + 1 <= 4
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = " ".join(re.findall(r"^more-.*", makefile, re.MULTILINE))
    more = {(plain(name), version) for name, version in re.findall(r"([\w-]+)==([\w.]+)", lines)}
    assert len(more) == 4
    # A machine chooses its build of torch, and that its CUDA.
    assert {pin for pin in pins("models") | more if pin[0] not in ("torch", "triton")} <= constraints.items()
    assert not [name for name in constraints if name in ("torch", "triton") or name.startswith(("nvidia", "cuda"))]


def test_no_file_names_a_place_to_download_from() -> None:
    for path in FOLDER.iterdir():
        if path.suffix in (".in", ".txt"):
            assert not re.search(r"://|--(extra-)?index|--find-links|--trusted", path.read_text(encoding="utf-8")), path


def test_the_tools_need_what_they_import_and_nothing_else() -> None:
    imported: set[str] = set()
    for path in (ROOT / "tools").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    known = packages_distributions()
    others = imported - set(sys.stdlib_module_names) - {"tools", "__future__"}
    assert {plain(known[name][0]) for name in others} == wanted("tools")


ADVISORIES = runpy.run_path(str(FOLDER / "advisories.py"))
GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"], "aliases": []}]}
MISSING = {"name": "missing", "skip_reason": "Dependency not found on PyPI and could not be audited: missing (1)"}


@pytest.mark.parametrize(
    ("answers", "code", "line"),
    [
        ([json.dumps({"dependencies": [GOOD]})], 0, "1 packages asked for, 0 vulnerabilities known"),
        ([json.dumps({"dependencies": [GOOD, BAD]})], 1, "known: bad 1: PYSEC-1, mended in 2"),
        ([json.dumps({"dependencies": [GOOD, MISSING]})], 5, "not answered: missing"),
        ([json.dumps({"dependencies": [MISSING, BAD]})], 1, "not answered: missing"),
        ([json.dumps({"dependencies": [GOOD]}), ""], 5, "  such as second.txt: ConnectionError: no route"),
        ([json.dumps([])], 5, "not answered: first.txt"),
    ],
    ids=["good", "known", "unknown to the service", "both", "no network", "another form"],
)
def test_only_a_full_answer_without_findings_is_good(answers: list[str], code: int, line: str) -> None:
    answer = ADVISORIES["Answer"]()
    for name, output in zip(["first.txt", "second.txt"], answers, strict=False):
        answer.take(name, output, "Traceback\nConnectionError: no route\n")
    assert answer.exit_code == code
    assert line in answer.lines()


def test_a_run_without_an_answer_is_exit_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pip_audit.py").write_text("raise SystemExit('no network')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ADVISORIES["main"](["requirements/tools.txt"]) == 5
    assert "such as requirements/tools.txt: no network" in capsys.readouterr().err
    assert ADVISORIES["main"]([]) == 2
