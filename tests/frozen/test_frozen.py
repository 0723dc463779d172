"""The models in a program made by cx_Freeze: no source, no environment, one line of output, the same numbers."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.conftest import ROOT
from tests.models.conftest import Trees, trees
from tools.lock import load

assert trees  # a fixture
pytestmark = pytest.mark.frozen

HERE = Path(__file__).parent
MODELS = {"BSRoformer": "bs_roformer", "MelBandRoformer": "bs_roformer", "SCNet": "scnet"}
# Stands in for a SageAttention that, as Triton does, reads the source of its own functions when it is imported.
SAGE = (
    "import inspect\n\n\ndef sageattn(*_, **__):\n    raise AssertionError('called')\n\n\ninspect.getsource(sageattn)\n"
)


@dataclass(frozen=True)
class Frozen:
    """The program's folder, which is not where it was built, and the models in it.

    What the script printed is `plain`, and what the program did `report`, both parsed.
    """

    folder: Path
    names: tuple[str, ...]
    plain: Mapping[str, Any]
    report: Mapping[str, Any]


def run(folder: Path, names: Sequence[str], **env: str) -> tuple[Any, str]:
    """What the program prints, parsed, and its standard error, in another folder and an empty environment."""
    program = shutil.which("program", path=folder)
    assert program
    if os.name == "nt":
        env["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    return one_line([program, *names], env, folder.parent)


def agree(result: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert result["norm"] > 1
    for key in expected:
        close = key in ("norm", "samples")
        assert result[key] == (pytest.approx(expected[key], rel=1e-6, abs=1e-7) if close else expected[key])


def one_line(command: list[str], env: Mapping[str, str], cwd: Path) -> tuple[Any, str]:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("\n") == 1, done.stdout[:1000]
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def frozen(trees: Trees, tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    """Built from the patched tree, with the stand-in for SageAttention."""
    whole = {part.name for part in load(ROOT).components if not any(file.path in trees.missing for file in part.files)}
    names = tuple(name for name, component in MODELS.items() if component in whole)
    if not names:
        pytest.skip("no component could be had whole; the end of this run says why")
    place = tmp_path_factory.mktemp("frozen")
    (place / "extra/sageattention").mkdir(parents=True)
    (place / "extra/sageattention/__init__.py").write_text(SAGE, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(place / "extra")}
    built = subprocess.run(
        [sys.executable, HERE / "build.py", trees.patched, place / "build"],
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (place / "build").rename(place / "elsewhere")
    env["PYTHONPATH"] = str(trees.patched)
    plain, _ = one_line([sys.executable, str(HERE / "program.py"), *names], env, place)
    report, _ = run(place / "elsewhere", names)
    return Frozen(place / "elsewhere", names, plain, report)


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_the_script_computes(frozen: Frozen, trees: Trees, name: str) -> None:
    trees.need(*(file.path for part in load(ROOT).components if part.name == MODELS[name] for file in part.files))
    assert frozen.report["torch"] == frozen.plain["torch"]
    agree(frozen.report[name], frozen.plain[name])


def test_no_source_is_in_it_and_none_is_found(frozen: Frozen) -> None:
    files = [path.relative_to(frozen.folder).as_posix() for path in frozen.folder.rglob("*")]
    assert any(name.startswith("lib/models/") and name.endswith("/scnet.pyc") for name in files)
    assert [name for name in files if name.endswith(".py")] == []
    for path in frozen.folder.rglob("*.zip"):
        ours = [name for name in ZipFile(path).namelist() if name.startswith(("torch/", "models/"))]
        assert [name for name in ours if name.endswith(".py")] == []
    assert frozen.report["with_source"] == []
    # So that the line above could fail.
    assert {"torch.nn.functional", "models.scnet.scnet"} <= {*frozen.plain["with_source"]}


def test_nothing_but_the_system_is_loaded_from_outside(frozen: Frozen) -> None:
    def outside(report: Mapping[str, Any]) -> list[str]:
        system = ("/lib", "/usr/lib", os.environ.get("SYSTEMROOT", "/lib"))
        files = [name for name in report["loaded"] if Path(name).is_absolute()]
        return [name for name in files if not name.startswith(system) or "python" in name.lower()]

    inside = f"{frozen.folder}{os.sep}"
    assert len(frozen.report["loaded"]) > 100
    assert [name for name in outside(frozen.report) if not name.startswith(inside)] == []
    assert len(outside(frozen.plain)) > 100


def test_sageattention_that_needs_its_source_or_is_not_there_is_passed_over(frozen: Frozen) -> None:
    if "BSRoformer" not in frozen.names:
        pytest.skip("models/bs_roformer could not be had whole; the end of this run says why")
    package, aside = frozen.folder / "lib/sageattention", frozen.folder / "sageattention.aside"
    assert package.is_dir()
    for reason in ("OSError", "ModuleNotFoundError"):
        report, said = run(frozen.folder, frozen.names, DSU_ATTENTION_DEBUG="1")
        assert f"SageAttention: {reason}: " in said
        agree(report["BSRoformer"], frozen.plain["BSRoformer"])
        assert report["BSRoformer"]["backends"] == ["pytorch_sdpa"]
        if package.exists():
            package.rename(aside)
    aside.rename(package)
