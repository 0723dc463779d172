"""Tests that upstream's defects in MODEL_CHANGES.md still exist, and that the workarounds work."""

from typing import Any

import pytest
import torch
import torch._dynamo

from tests.models.conftest import Trees
from tests.models.standins import compiles
from tests.models.test_whole_models import (
    EXPERIMENTAL,
    MEL_BANDS,
    MIX,
    MODELS,
    WITH_SAGE,
    build,
    classes,
    error,
    make,
    output,
    plain_environment,
    train,
)

__all__ = ["plain_environment"]  # a fixture for every test here, too
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]
MASKED = "models/scnet/scnet_masked.py"
SCNET = {"sources": ["a", "b"], "dims": [4, 8, 8, 8], "nfft": 256, "hop_size": 64, "win_size": 256}


@pytest.mark.parametrize("tree", ["upstream", "patched"])
def test_bs_roformer_fails_with_sage_attention(trees: Trees, tree: str) -> None:
    with pytest.raises(NameError, match="AttendSage"):
        build(trees, tree, MODELS["BSRoformer"], sage_attention=True)


@pytest.mark.parametrize("name", WITH_SAGE)
def test_the_other_models_print_a_line_with_sage_attention(
    trees: Trees, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing else; without the argument nothing at all, see test_whole_models.py."""
    model = build(trees, "patched", MODELS[name], linear=1, sage_attention=True)
    output(model)
    train(model)
    assert capfd.readouterr().out == "Use Sage Attention\n"


@pytest.mark.parametrize("name", EXPERIMENTAL)
def test_an_experimental_model_is_another_one_from_the_second_block_on(trees: Trees, name: str) -> None:
    """And has no linear attention."""
    changes: dict[str, Any] = {"zero_dc": False} if name == "MelBandRoformer" else {}
    for depth, same in ((1, True), (2, False)):
        ordinary = build(trees, "patched", MODELS[name], depth=depth, **changes)
        experimental = build(trees, "patched", EXPERIMENTAL[name], depth=depth)
        experimental.load_state_dict(ordinary.state_dict(), strict=True)
        assert (error(output(experimental), output(ordinary)) < 1e-5) == same
    with pytest.raises(TypeError, match="value_residual"):
        output(build(trees, "patched", EXPERIMENTAL[name], linear=1))


@pytest.mark.parametrize("models", [MODELS, EXPERIMENTAL], ids=["ordinary", "experimental"])
@pytest.mark.parametrize("sizes", [{"stft_win_length": 128}, {"stft_n_fft": 8192, "stft_win_length": 8192}])
def test_mel_bands_limit_the_stft(trees: Trees, models: dict[str, Any], sizes: dict[str, int]) -> None:
    with pytest.raises(RuntimeError):
        build(trees, "patched", models["MelBandRoformer"], **sizes)
    build(trees, "patched", models["MelBandRoformer"], stft_n_fft=8190, stft_win_length=8190, num_bands=20)


@pytest.mark.parametrize("name", ["MelBandRoformer", "MelBandConformer"])
def test_mel_band_results_are_cut_to_whole_hops(trees: Trees, name: str) -> None:
    mix = MIX[..., :1000]
    with torch.no_grad():
        assert build(trees, "patched", MODELS[name])(mix).shape[-1] == 1000 // MEL_BANDS["stft_hop_length"] * 64
        assert build(trees, "patched", MODELS[name], match_input_audio_length=True)(mix).shape[-1] == 1000


def test_bs_roformer_checks_for_nan_and_so_is_no_single_graph(trees: Trees) -> None:
    # Compiling imports what the model's globals came from.
    with classes(trees, "patched", MODELS["BSRoformer"]) as cls:
        model = make(cls, MODELS["BSRoformer"])
        with pytest.raises(RuntimeError, match="NaN"):
            model(MIX * float("nan"))
        if not compiles():
            pytest.skip("this torch has no torch.compile for this Python")
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported):
            torch.compile(model, fullgraph=True, backend="eager")(MIX)
        torch._dynamo.reset()
        assert error(torch.compile(model, backend="eager")(MIX), model(MIX)) < 1e-5


@pytest.mark.parametrize(
    ("changes", "expected"), [({"win_size": 128}, RuntimeError), ({"dims": [8, 8, 8, 8]}, AssertionError)], ids=str
)
def test_the_masked_scnet_needs_certain_sizes(trees: Trees, changes: dict[str, Any], expected: type[Exception]) -> None:
    cls = trees.load("patched", MASKED).SCNet
    with pytest.raises(expected):
        cls(**{**SCNET, **changes})(MIX)
    assert cls(**SCNET)(MIX).shape == (2, 2, 2, 1280)
