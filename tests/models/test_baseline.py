"""Tests what MODEL_CHANGES.md says of the baseline's own changes, on the real repositories."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import EinopsError
from torch import Tensor

from tests.conftest import ROOT
from tests.models.conftest import Trees, imports_from
from tests.models.standins import Fft
from tests.models.test_scnet import SMALL
from tests.models.test_whole_models import EXPERIMENTAL, MODELS, STEMS, Model, audio, make, train
from tools.git import commit
from tools.lock import load

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]

# The models whose files the baseline had changed.
CHANGED = {model.file: model for model in [*MODELS.values(), EXPERIMENTAL["BSRoformer"]]}
BANDS = {"bs_roformer", "bs_conformer", "bs_roformer_experimental"}
# Which of them stop on a device that has complex numbers, but no complex scatter_add_ and index_fill: with FFT, without
# FFT, and in training without FFT.
STOPS = {
    "patched": (CHANGED.keys() - {"bs_roformer", "bs_roformer_experimental"},) * 2 + (set(CHANGED),),
    "baseline": (set(), {"bs_roformer", "bs_conformer"}, set(CHANGED)),
    "extras": (set(), set(), BANDS),
}


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the baseline's files, which only its repository has."""
    return files_of(tmp_path_factory.mktemp("baseline"), load(ROOT).baseline.commit)


def files_of(where: Path, name: str) -> Path:
    """The folder `where` with the pinned components' files at the app's commit `name`."""
    pin, folders = load(ROOT).baseline, load(ROOT).decisions.components.values()
    for path, data in commit(pin.url, name, pin.branch, folders, offline=False).files.items():
        (where / path).parent.mkdir(parents=True, exist_ok=True)
        (where / path).write_bytes(data)
    return where


def results(model: Any) -> list[Any]:
    with torch.no_grad():
        return [model(audio(2, 2, 1280)), list(model.state_dict())]


@pytest.mark.parametrize("model", CHANGED.values(), ids=CHANGED)
def test_on_a_cpu_it_computes_what_upstream_does_to_the_bit(trees: Trees, baseline: Path, model: Model) -> None:
    found = []
    for tree in (trees.upstream, baseline):
        with imports_from(tree):
            made = make(getattr(importlib.import_module(f"models.bs_roformer.{model.file}"), model.name), model)
        found.append([*results(made), *train(made)])
    assert all(
        torch.equal(*pair) if isinstance(pair[0], Tensor) else pair[0] == pair[1] for pair in zip(*found, strict=True)
    )


def test_and_so_does_its_scnet(trees: Trees, baseline: Path) -> None:
    found = []
    for tree in (trees.upstream, baseline):
        with imports_from(tree):
            torch.manual_seed(0)
            found.append(results(importlib.import_module("models.scnet.scnet").SCNet(**SMALL))[0])
    assert torch.equal(*found)


def runs(tree: Path, model: Model, refuses: tuple[str, ...], **target: Tensor) -> bool:
    """Whether `model` from `tree` computes on such an Apple GPU what it does on the CPU, and does not stop."""
    fft, mix = Fft("mps", refuses), audio(2, 2, 1280)
    with imports_from(tree):
        made = make(getattr(importlib.import_module(f"models.bs_roformer.{model.file}"), model.name), model)
    expected = made(mix, **target)
    for name, buffer in list(made.named_buffers(recurse=False)):
        setattr(made, name, fft.put(buffer))
    try:
        with fft:
            result = made(fft.put(mix), **{name: fft.put(value) for name, value in target.items()}).cpu()
    except (RuntimeError, EinopsError):
        return False
    assert torch.equal(result, expected)
    return True


@pytest.mark.parametrize("tree", STOPS)
def test_what_stops_on_a_stand_in_for_an_apple_gpu(trees: Trees, baseline: Path, tree: str) -> None:
    place = baseline if tree == "baseline" else getattr(trees, tree)
    without_fft = (*Fft.COMPLEX, *Fft.NAMES)
    cases = ({"refuses": Fft.COMPLEX}, {"refuses": without_fft}, {"refuses": without_fft, "target": STEMS})
    stopped = tuple({name for name in CHANGED if not runs(place, CHANGED[name], **case)} for case in cases)
    assert stopped == STOPS[tree]


# The commits that brought the app's notes, and its newest attend.py.
NOTES, NEWEST = "72b9116", "a686f8a"


@pytest.mark.parametrize("name", [NOTES, NEWEST])
def test_the_apps_attention_scales_twice_or_raises_where_sdpa_has_no_kernel(
    name: str, trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_kernel(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No available kernel. Aborting execution.")

    modules = []
    for tree in (files_of(tmp_path, name), trees.patched):
        with imports_from(tree):
            modules.append(importlib.import_module("models.bs_roformer.attend"))
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 16, 32) for _ in range(3))
    app, ours = (module.Attend(flash=True, scale=8) for module in modules)
    due = torch.einsum("...ij,...jd->...id", (8 * q @ k.mT).softmax(-1), v)
    assert torch.allclose(ours(q, k, v), due, atol=1e-4)
    if name == NOTES:
        assert 0.1 < (app(q, k, v) - due).norm() / due.norm() < 0.2
    else:
        assert torch.allclose(app(q, k, v), due, atol=1e-4)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", no_kernel)
    assert torch.allclose(ours(q, k, v), due, atol=1e-4)
    if name == NEWEST:
        with pytest.raises(RuntimeError, match="No available kernel"):
            app(q, k, v)
