"""Tests the models in a program frozen by cx_Freeze: without source files, it computes the same."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest

from tests.conftest import ran
from tests.frozen.program import MODELS
from tests.models.conftest import Trees, trees

assert trees  # a fixture
pytestmark = pytest.mark.frozen

HERE = Path(__file__).parent
# Stands in for a SageAttention that, as Triton does, reads the source of its own functions when it is imported.
SAGE = (
    "import inspect\n\n\ndef sageattn(*_, **__):\n    raise AssertionError('called')\n\n\ninspect.getsource(sageattn)\n"
)


class Frozen(NamedTuple):
    """The program's folder, which is not where it was built, what runs it, and what script and program printed."""

    folder: Path
    command: list[str]
    plain: Mapping[str, Any]
    report: Mapping[str, Any]

    def agrees(self, name: str, report: Mapping[str, Any]) -> bool:
        """Whether a program computed what the script did."""
        result, expected = report[name], dict(self.plain[name])
        for key in ("norm", "samples"):
            expected[key] = pytest.approx(expected[key], rel=1e-6, abs=1e-7)
        return result["norm"] > 1 and result == expected


def run(command: Sequence[str], cwd: Path, **env: str) -> tuple[Any, str]:
    """What `command` prints, one line, parsed, and its standard error, in an environment with nothing but `env`."""
    env |= {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    done = ran(*command, env=env, cwd=cwd)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout.count("\n") == 1, done.stdout[:1000]
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def frozen(trees: Trees, tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    """Built from the patched tree, with the stand-in for SageAttention."""
    place = tmp_path_factory.mktemp("frozen")
    (place / "extra/sageattention").mkdir(parents=True)
    (place / "extra/sageattention/__init__.py").write_text(SAGE, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(place / "extra")}
    built = ran(sys.executable, HERE / "build.py", trees.patched, place / "build", env=env)
    assert built.returncode == 0, built.stderr
    (place / "build").rename(place / "elsewhere")
    env["PYTHONPATH"] = str(trees.patched)
    plain, _ = run([sys.executable, str(HERE / "program.py"), *MODELS], place, **env)
    program = shutil.which("program", path=place / "elsewhere")
    assert program
    command = [program, *MODELS]
    return Frozen(place / "elsewhere", command, plain, run(command, place)[0])


@pytest.mark.parametrize("name", MODELS)
def test_the_frozen_program_computes_what_the_script_computes(frozen: Frozen, name: str) -> None:
    assert frozen.report["torch"] == frozen.plain["torch"]
    assert frozen.agrees(name, frozen.report)


def test_the_frozen_program_has_and_finds_no_source(frozen: Frozen) -> None:
    files = [path.relative_to(frozen.folder).as_posix() for path in frozen.folder.rglob("*")]
    assert any(name.startswith("lib/models/") and name.endswith("/scnet.pyc") for name in files)
    assert [name for name in files if name.endswith(".py")] == []
    for path in frozen.folder.rglob("*.zip"):
        ours = [name for name in ZipFile(path).namelist() if name.startswith(("torch/", "models/"))]
        assert [name for name in ours if name.endswith(".py")] == []
    assert frozen.report["with_source"] == []
    # So that the line above could fail.
    assert {"torch.nn.functional", "models.scnet.scnet"} <= {*frozen.plain["with_source"]}


def test_sageattention_that_needs_its_source_or_is_not_there_is_passed_over(frozen: Frozen) -> None:
    package, aside = frozen.folder / "lib/sageattention", frozen.folder / "sageattention.aside"
    assert package.is_dir()
    for reason in ("OSError", "ModuleNotFoundError"):
        report, said = run(frozen.command, frozen.folder.parent, DSU_ATTENTION_DEBUG="1")
        assert f"SageAttention: {reason}: " in said
        assert frozen.agrees("BSRoformer", report)
        assert report["BSRoformer"]["backends"] == ["pytorch_sdpa"]
        if package.exists():
            package.rename(aside)
    aside.rename(package)
