"""Tests our files in the DSU app's newest commit: its worker gives the same stems, and `clean` restores the app."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from tests.conftest import ROOT, ran, run_tools
from tests.frozen import program
from tests.tools.conftest import git
from tools.lock import load

pytestmark = pytest.mark.app

RATE, STEMS = 44100, ["a.wav", "b.wav"]
# By the names that the worker has for them.
MODELS = dict(zip(("bs_roformer", "mel_band_roformer", "scnet"), program.MODELS.values(), strict=True))
# The length of a chunk: two cover the second of noise, and MelBandRoformer returns whole hops.
CHUNK = 44 * 512
# Both compute in float32, whose precision is 1e-7, perhaps with different kernels of torch: the difference may be a
# hundred times that at the stem's loudest sample. With the same kernel there is none.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Moved:
    """The worker's lines on the app's `own` and on `our` files, and git's view of the app `moved` and `back` again."""

    top: Path
    loaded: subprocess.CompletedProcess[str]
    own: list[str]
    our: list[str]
    moved: list[str]
    back: list[str]


def work(app: Path, jobs: Iterable[dict[str, str]], errors: Path) -> list[str]:
    """The lines on standard output of the app's worker, which gets each job once it has answered the one before.

    A standard input at its end keeps the worker's watching thread busy, and makes it many times slower.
    """
    command = [sys.executable, "workers/bsroformer_worker.py", "--worker", "--device", "cpu"]
    # The worker imports `utils` before it puts the app's folder on the path itself.
    env = {**os.environ, "PYTHONPATH": str(app), "PYTHONDONTWRITEBYTECODE": ""}
    lines: list[str] = []
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors.open("w"), "text": True}
    with pipes["stderr"], subprocess.Popen(command, cwd=app, env=env, **pipes) as worker:
        for job in jobs:
            with suppress(BrokenPipeError):
                print(json.dumps(job), file=worker.stdin, flush=True)
            for line in worker.stdout:
                lines.append(line)
                if answer(line).get("status") in ("done", "error", "exiting"):
                    break
        lines += worker.stdout
    assert worker.returncode == 0, errors.read_text()
    return lines


def answer(line: str) -> dict[str, Any]:
    """What a line says, nothing where it is no JSON object."""
    with suppress(ValueError, TypeError):
        return dict(json.loads(line))
    return {}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Moved:
    top = tmp_path_factory.mktemp("app")
    app, decisions = top / "app", load(ROOT).decisions
    url = decisions.baseline.url
    ran("git", "clone", "--quiet", "--depth=1", "--config=core.autocrlf=false", url, app, check=True)
    noise = np.random.default_rng(0).standard_normal((RATE, 2)).astype(np.float32) / 10
    soundfile.write(top / "noise.wav", noise, RATE, subtype="FLOAT")
    for name, arguments in MODELS.items():
        config = {"model": arguments, "audio": {"sample_rate": RATE, "chunk_size": CHUNK}}
        config |= {"training": {"instruments": ["a", "b"]}, "inference": {"batch_size": 1}}
        (top / f"{name}.yaml").write_text(yaml.dump(config), encoding="utf-8")

    def jobs(outputs: str) -> Iterable[dict[str, str]]:
        for name in MODELS:
            paths = {"model_path": f"{top / name}.ckpt", "config_path": f"{top / name}.yaml"}
            paths |= {"input": f"{top / 'noise.wav'}", "output_dir": f"{top / outputs / name}"}
            yield {"cmd": "separate", "model_type": name, **paths}
        yield {"cmd": "exit"}

    def weights(verb: str) -> subprocess.CompletedProcess[str]:
        script = Path(__file__).with_name("weights.py")
        return ran(sys.executable, script, verb, top, cwd=app, check=verb == "save")

    def tools(verb: str, *options: str) -> list[str]:
        done = run_tools("--store", top / "store", verb, "--dest", app, *options)
        assert done.returncode == 0, done.stderr
        return git("status", "--porcelain", "--ignored", cwd=app).splitlines()

    weights("save")
    own = work(app, jobs("own"), top / "own.txt")
    tools("vendor", "--force", *(f"--extras={name}" for name in decisions.extras))
    loaded, our = weights("load"), work(app, jobs("our"), top / "our.txt")
    return Moved(top, loaded, own, our, moved=tools("verify"), back=tools("clean"))


@pytest.mark.parametrize("model", MODELS)
def test_the_apps_worker_gives_the_same_stems_with_our_files(moved: Moved, model: str) -> None:
    folders = [moved.top / files / model / "noise" for files in ("own", "our")]
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [STEMS, STEMS]
    for stem in STEMS:
        own, our = (soundfile.read(folder / stem, dtype="float32")[0] for folder in folders)
        loudest = np.abs(own).max()
        assert loudest > 0.01
        np.testing.assert_allclose(our, own, rtol=0, atol=ROUNDING * loudest)


def test_weights_of_the_apps_classes_load_strictly_into_ours(moved: Moved) -> None:
    assert moved.loaded.returncode == 0, moved.loaded.stderr


def test_the_workers_standard_output_is_json_and_unchanged(moved: Moved) -> None:
    said = [json.loads(line)["status"] for line in moved.our]
    assert said == ["loading", "ready", *["loading_model", "separating", "done"] * len(MODELS), "exiting"]
    assert said == [answer(line)["status"] for line in moved.own if answer(line)]


def test_git_sees_only_our_files_and_manifests_and_nothing_after_clean(moved: Moved) -> None:
    folders = tuple(load(ROOT).decisions.components.values())
    records = {f"?? {folder}/PROVENANCE.json" for folder in folders}
    changed = {line for line in moved.moved if not line.startswith("!!")} - records
    assert records <= {*moved.moved}
    assert {line.rpartition("/")[0] for line in changed} == {f" M {folder}" for folder in folders}
    # Python compiled what the worker imported.
    assert moved.back == [line for line in moved.back if line.startswith("!!") and line.endswith("/__pycache__/")]
