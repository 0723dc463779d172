"""Tests whole models with the patched attention against the same models with upstream's."""

import importlib
import io
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.models.conftest import Trees, imports_from

# The largest error over the largest value: of outputs 3e-7 measured, where linear attention hands its scale to the
# kernel instead of multiplying by it; of all gradients together 9e-7; of either against float64 4e-7.
TOLERANCE = 2e-6
GRADIENT_TOLERANCE = 5e-6
FLOAT64_TOLERANCE = 1e-5
SMALL = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "mask_estimator_depth": 1, "mlp_expansion_factor": 1}
LOSS = {"multi_stft_resolutions_window_sizes": (64, 32), "multi_stft_hop_size": 16}
COMMON = {**SMALL, **LOSS, "stereo": True, "num_stems": 2, "attn_dropout": 0.0, "ff_dropout": 0.0}
BANDS = {"freqs_per_bands": (8, 8, 17), "stft_n_fft": 64, "stft_hop_length": 16, "stft_win_length": 64}
MEL_BANDS = {"num_bands": 6, "stft_n_fft": 256, "stft_hop_length": 64, "stft_win_length": 256}
ROFORMER = {"time_transformer_depth": 1, "freq_transformer_depth": 1}
CONFORMER = {"time_conformer_depth": 1, "freq_conformer_depth": 1, "conv_kernel_size": 3, "ff_mult": 1}


class Model(NamedTuple):
    """A class in a pinned file of models/bs_roformer, and its sizes."""

    file: str
    name: str
    sizes: dict[str, Any]


MODELS = {
    "BSRoformer": Model("bs_roformer", "BSRoformer", {**BANDS, **ROFORMER}),
    "MelBandRoformer": Model("mel_band_roformer", "MelBandRoformer", {**MEL_BANDS, **ROFORMER}),
    "BSConformer": Model("bs_conformer", "BSConformer", {**BANDS, **CONFORMER}),
    "MelBandConformer": Model("mel_band_conformer", "MelBandConformer", {**MEL_BANDS, **CONFORMER}),
}
EXPERIMENTAL = {n: MODELS[n]._replace(file=MODELS[n].file + "_experimental") for n in ("BSRoformer", "MelBandRoformer")}
WITH_SAGE = ["MelBandRoformer", "BSConformer", "MelBandConformer"]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"linear": 1},
    {"linear": 1, "attn_dropout": 0.2, "ff_dropout": 0.1},
    {"linear": 1, "depth": 2, "use_torch_checkpoint": True, "skip_connection": True, "attn_dropout": 0.1},
    {"linear": 1, "stereo": False, "num_stems": 1},
]

# Upstream's sdp_kernel and compiled-in notes; what the patched attention warns of is tested beside it.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
flash = pytest.mark.parametrize("flash", [False, True], ids=["einsum", "flash"])
# told: by sage_attention=True, which BSRoformer cannot be
told = pytest.mark.parametrize(("name", "told"), [*((n, False) for n in MODELS), *((n, True) for n in WITH_SAGE)])


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SageAttention, whatever is installed, and none of our variables."""
    monkeypatch.setitem(sys.modules, "sageattention", None)
    for name in ("DSU_DISABLE_SAGEATTN", "DSU_ATTENTION_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def classes(trees: Trees, tree: str, model: Model) -> Iterator[Any]:
    """The class of `model` in `tree`; while inside, it can be found by its name."""
    with imports_from(getattr(trees, tree)):
        yield getattr(importlib.import_module(f"models.bs_roformer.{model.file}"), model.name)


def build(trees: Trees, tree: str, model: Model, *, linear: int = 0, **changes: Any) -> Any:
    """The class of `model` in `tree` with seeded weights, in evaluation mode."""
    with classes(trees, tree, model) as cls:
        return make(cls, model, linear=linear, **changes)


def make(cls: Any, model: Model, *, linear: int = 0, **changes: Any) -> Any:
    torch.manual_seed(0)
    random.seed(0)  # residual streams draw from it
    depth = "linear_conformer_depth" if "Conformer" in model.name else "linear_transformer_depth"
    return cls(**{**COMMON, **model.sizes, depth: linear, **changes}).eval()


def audio(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


MIX = audio(2, 2, 1280)
STEMS = audio(2, 2, 2, 1280, seed=2)


def error(result: Tensor, expected: Tensor) -> float:
    """The largest error over the largest expected value."""
    result, expected = result.detach().double(), expected.detach().double()
    assert result.shape == expected.shape
    assert result.isfinite().all()
    return float((result - expected).abs().max() / expected.abs().max())


def output(model: Any) -> Tensor:
    with torch.no_grad():
        return model(MIX[:, : model.audio_channels])


def train(model: Any) -> tuple[Tensor, Tensor]:
    """The loss of one training step and all gradients in one row; the dropout is seeded."""
    model.train()
    torch.manual_seed(3)
    target = STEMS[:, :, : model.audio_channels] if model.num_stems > 1 else STEMS[:, 0, : model.audio_channels]
    loss = model(MIX[:, : model.audio_channels], target=target)
    loss.backward()
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def check_against_upstream(trees: Trees, model: Model, **changes: Any) -> None:
    theirs, ours = (build(trees, tree, model, **changes) for tree in ("upstream", "patched"))
    assert error(output(ours), output(theirs)) <= TOLERANCE
    (their_loss, their_gradients), (our_loss, our_gradients) = train(theirs), train(ours)
    assert error(our_loss, their_loss) <= TOLERANCE
    assert error(our_gradients, their_gradients) <= GRADIENT_TOLERANCE
    assert [p.grad is None for p in ours.parameters()] == [p.grad is None for p in theirs.parameters()]


CASES = [(MODELS[name], changes) for name in MODELS for changes in VARIANTS]
CASES += [(MODELS["BSRoformer"], {"use_shared_bias": True})]
CASES += [(MODELS[name], {"sage_attention": True, "attn_dropout": 0.1}) for name in WITH_SAGE]
RESIDUALS = {"depth": 2, "use_value_residual_learning": True, "num_residual_streams": 2}
CASES += [(model, changes) for model in EXPERIMENTAL.values() for changes in ({}, RESIDUALS)]


@flash
@pytest.mark.parametrize(("model", "changes"), CASES, ids=[f"{model.file}, {'-'.join(it)}" for model, it in CASES])
def test_outputs_loss_and_gradients_equal_upstreams(trees: Trees, model: Model, changes: Any, flash: bool) -> None:
    check_against_upstream(trees, model, flash_attn=flash, **changes)


@pytest.mark.parametrize("name", MODELS)
def test_patched_models_use_the_patched_attention_and_agree_with_einsum(trees: Trees, name: str) -> None:
    """So that no other test here compares upstream with itself."""
    model, einsum = (build(trees, "patched", MODELS[name], linear=1, flash_attn=flash) for flash in (True, False))
    assert error(output(model), output(einsum)) <= FLOAT64_TOLERANCE
    assert {m.last_backend for m in model.modules() if type(m).__name__ == "Attend"} == {"pytorch_sdpa"}
    assert not any(hasattr(m, "last_backend") for m in build(trees, "upstream", MODELS[name], linear=1).modules())


@pytest.mark.parametrize("name", MODELS)
def test_checkpoints_load_strictly_both_ways(trees: Trees, name: str) -> None:
    theirs, ours = (build(trees, tree, MODELS[name], linear=1) for tree in ("upstream", "patched"))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for source, target in ((theirs, ours), (ours, theirs)):
        target.load_state_dict(source.state_dict(), strict=True)


@flash
@told
def test_a_whole_model_saved_by_upstream_runs_here(trees: Trees, name: str, told: bool, flash: bool) -> None:
    saved = io.BytesIO()
    with classes(trees, "upstream", MODELS[name]) as cls:
        # When told, upstream's linear attention is another one, see below.
        model = make(cls, MODELS[name], linear=0 if told else 1, sage_attention=told, flash_attn=flash)
        torch.save(model, saved)
        expected = output(model)
    with classes(trees, "patched", MODELS[name]):
        loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=False)
        assert error(output(loaded), expected) <= TOLERANCE
        train(loaded)


@flash
@pytest.mark.parametrize("name", WITH_SAGE)
def test_linear_attention_with_sage_attention_has_its_scale(trees: Trees, name: str, flash: bool) -> None:
    model, changes = MODELS[name], {"linear": 1, "flash_attn": flash}
    expected = build(trees, "upstream", model, linear=1).double()(MIX.double())
    theirs, ours = (build(trees, tree, model, sage_attention=True, **changes) for tree in ("upstream", "patched"))
    assert error(output(ours), expected) <= FLOAT64_TOLERANCE
    assert (error(output(theirs), expected) > 10 * FLOAT64_TOLERANCE) == flash  # upstream's SDPA leaves it out
    plain = build(trees, "patched", model, **changes)
    assert error(output(ours), output(plain)) <= TOLERANCE
    assert error(train(ours)[1], train(plain)[1]) <= GRADIENT_TOLERANCE


@flash
@pytest.mark.parametrize("name", MODELS)
def test_models_print_nothing(trees: Trees, capfd: pytest.CaptureFixture[str], name: str, flash: bool) -> None:
    """When it is imported, made, called and trained."""
    model = build(trees, "patched", MODELS[name], linear=1, flash_attn=flash)
    output(model)
    train(model)
    assert capfd.readouterr().out == ""
