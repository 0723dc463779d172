"""The extra mel_band beside the same files without it: bit for bit on the CPU, and on devices that lack something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch.torch_version import TorchVersion

from tests.conftest import ROOT
from tests.models.conftest import Trees
from tests.models.standins import Fft
from tests.models.test_scnet import RAISED
from tests.models.test_whole_models import MODELS, audio, build, classes, error, make, plain_environment
from tools.lock import PinnedFile, load

__all__ = ["plain_environment"]  # a fixture for every test here, too
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]

MEL = ["MelBandRoformer", "MelBandConformer"]
# Where upstream's stops on a device that refuses complex numbers in two functions.
STOPS = {**dict.fromkeys(MEL, "scatter_add_"), "BSConformer": "index_fill"}
SIZES: dict[str, dict[str, Any]] = {
    "stereo": {},
    "one stem": {"num_stems": 1},
    "mono": {"stereo": False},
    "one stem in mono": {"stereo": False, "num_stems": 1},
    "DC stays": {"zero_dc": False},
    "checkpointed": {"use_torch_checkpoint": True},
}
TRIED = ["cuda on 2.0.1", "xpu on 2.0.1", "mps on 2.3.0", "mps on 2.10.0", "mps on 2.15.0a0+git1234567"]
NOT_TRIED = ["mps on 2.0.1", "mps on 2.2.2", "privateuseone on 2.13.0", "hpu on 2.13.0"]
FAILURES = [
    None,
    RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
    TypeError("MPS complex types are only supported on MacOS 14.0 or newer."),
    None,
]
# What `run` calls: result, result again, and for the loss two resolutions, each of result and target.
CALLS = [["stft"], ["istft"]] * 2 + [["stft"] * 2] * 2
# The largest error over the largest value, of results from masks in half precision: 0.0014 and 0.0002 measured.
MASK_TOLERANCE = {torch.bfloat16: 5e-3, torch.float16: 6e-4}
NUMBERS = torch.view_as_complex(torch.linspace(-3, 3, 2000).view(1000, 2))
HALVES_EXACTLY = torch.equal(NUMBERS / torch.tensor([2.0]), NUMBERS * 0.5)
halves = pytest.mark.parametrize("dtype", MASK_TOLERANCE, ids=str)


def run(model: Any, x: Tensor, put: Callable[[Tensor], Tensor] = lambda x: x) -> list[Tensor]:
    """The result, the loss and its parts, and the gradients of input and parameters. put: moves audio to a device."""
    stems = len(model.mask_estimators)
    target = audio(len(x), *([stems] if stems > 1 else []), model.audio_channels, x.shape[-1], seed=2)
    x = x.clone().requires_grad_()
    model.train().zero_grad()
    result = model(put(x))
    loss, parts = model(put(x), target=put(target), return_loss_breakdown=True)
    loss.backward()
    gradients = [x.grad, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]
    return [tensor.detach().as_subclass(Tensor) for tensor in (result, loss, *parts, *gradients)]


def on_device(model: Any, x: Tensor, fft: Fft) -> list[Tensor]:
    """What `run` gives with audio and buffers on the device that `fft` plays."""
    for name, buffer in list(model.named_buffers(recurse=False)):
        setattr(model, name, fft.put(buffer))
    with fft:
        return run(model, x, fft.put)


def outcome(model: Any, x: Tensor) -> Any:
    """What `run` gives, or the text of what it raises."""
    try:
        return run(model, x)
    except RuntimeError as e:
        return str(e)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two texts, or lists of tensors, are equal: to the bit where this torch halves complex numbers exactly.

    Upstream averages masks so. torch up to 2.5 rounds there, and what follows differs by some 1e-7.
    """
    if isinstance(theirs, str):
        return bool(ours == theirs)
    if HALVES_EXACTLY or len(ours) != len(theirs):
        return len(ours) == len(theirs) > 10 and all(map(torch.equal, ours, theirs))
    # Result, loss and its two parts each, gradients together: some of them are nothing but rounding.
    parts = [[list(map(torch.flatten, it)) for it in (them[:1], them[1:4], them[4:])] for them in (ours, theirs)]
    return all(error(torch.cat(one), torch.cat(other)) < 3e-6 for one, other in zip(*parts, strict=True))


def both(trees: Trees, name: str, **changes: Any) -> list[Any]:
    """The model `name` without the extra and with it."""
    return [build(trees, tree, MODELS[name], **changes) for tree in ("patched", "extras")]


def test_the_default_tree_is_without_it(trees: Trees) -> None:
    def read(tree: Path, file: PinnedFile) -> bytes:
        return (tree / file.path).read_bytes()

    extra = [file for file in load(ROOT).files if file.name in {f"{MODELS[name].file}.py" for name in STOPS}]
    assert len(extra) == len(STOPS)
    for file in load(ROOT).files:
        assert (read(trees.extras, file) == read(trees.patched, file)) == (file not in extra)
        assert file not in extra or read(trees.patched, file) == read(trees.upstream, file)


@pytest.mark.parametrize(("batch", "length"), [(1, 1280), (3, 1111)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STOPS)
def test_results_losses_and_gradients_are_the_same_to_the_bit(
    trees: Trees, name: str, size: str, batch: int, length: int
) -> None:
    theirs, ours = both(trees, name, **SIZES[size])
    x = audio(batch, ours.audio_channels, length)
    assert same(run(ours, x), run(theirs, x))


@pytest.mark.parametrize("name", STOPS)
def test_checkpoints_load_strictly_both_ways(trees: Trees, name: str) -> None:
    theirs, ours = both(trees, name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for source, target in ((theirs, ours), (ours, theirs)):
        target.load_state_dict(source.state_dict(), strict=True)


@halves
@pytest.mark.parametrize("name", MEL)
def test_audio_in_half_precision_gives_what_it_gives_without_the_extra(
    trees: Trees, name: str, dtype: torch.dtype
) -> None:
    theirs, ours = (outcome(model, audio(2, 2, 1280).to(dtype)) for model in both(trees, name))
    assert same(ours, theirs)


@halves
@pytest.mark.parametrize("name", MEL)
def test_masks_in_half_precision(trees: Trees, name: str, dtype: torch.dtype) -> None:
    """As CUDA's autocast gives them; upstream's takes no bfloat16 there."""
    model, x = build(trees, "extras", MODELS[name]), audio(2, 2, 1280)
    expected = model(x)
    for estimator in model.mask_estimators:
        estimator.register_forward_hook(lambda *args: args[2].to(dtype))
    assert 0 < error(model(x), expected) <= MASK_TOLERANCE[dtype]


@pytest.mark.parametrize("name", MEL)
def test_it_compiles_as_one_graph_where_upstreams_does(trees: Trees, name: str) -> None:
    x, target = audio(1, 2, 1280), audio(1, 2, 2, 1280, seed=2)
    for tree in ("patched", "extras"):
        torch._dynamo.reset()
        with classes(trees, tree, MODELS[name]) as cls:  # a compiler finds modules by their names
            model = make(cls, MODELS[name])
            try:
                loss = torch.compile(model, backend="eager", fullgraph=True)(x, target=target)
            except Exception as e:
                if tree == "patched":
                    pytest.skip(f"this torch does not take upstream's: {type(e).__name__}")
                raise
            assert torch.equal(loss, model(x, target=target))


@pytest.mark.parametrize("name", STOPS)
def test_a_device_without_complex_scatter_add_and_index_fill(trees: Trees, name: str) -> None:
    """An Apple GPU on torch 2.10: upstream's stops, and ours computes there what it does on the CPU."""
    (theirs, ours), x = both(trees, name), audio(2, 2, 1280)
    with pytest.raises(RuntimeError, match=f"^{STOPS[name]}\\(\\): Yet not supported for complex"):
        on_device(theirs, x, Fft("mps", Fft.COMPLEX))
    expected = run(ours, x)
    assert same(on_device(ours, x, Fft("mps", Fft.COMPLEX)), expected)


@pytest.mark.parametrize("size", ["stereo", "one stem in mono"])
@pytest.mark.parametrize("where", [*TRIED, *NOT_TRIED])
@pytest.mark.parametrize("name", MEL)
def test_the_device_type_alone_decides_where_an_fft_is_tried(
    trees: Trees, monkeypatch: pytest.MonkeyPatch, name: str, where: str, size: str
) -> None:
    """Whatever failed before: what fails is done on the CPU, and the next call is tried on the device again."""
    device, version = where.split(" on ")
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    model = build(trees, "extras", MODELS[name], **SIZES[size])
    expected = run(model, x := audio(2, model.audio_channels, 1280))
    for failure in FAILURES:
        fft = Fft(device, [*Fft.COMPLEX, *(Fft.NAMES if failure else [])], failure)
        assert same(on_device(model, x, fft), expected)
        if where in NOT_TRIED:
            assert fft.calls == [(called, "cpu") for names in CALLS for called in names]
            assert not any(dtype.is_complex for dtype in fft.dtypes)
        else:
            tried = [[(called, device) for called in names] for names in CALLS]
            again = [[(names[0], device), *((called, "cpu") for called in names)] for names in CALLS]
            assert fft.calls == [call for calls in (again if failure else tried) for call in calls]


@pytest.mark.parametrize("called", ["stft", "istft"])
@pytest.mark.parametrize(("device", "failure"), RAISED, ids=["any on the CPU", "by text", "by both", "by type"])
@pytest.mark.parametrize("name", MEL)
def test_out_of_memory_and_any_error_on_the_cpu_are_raised_untouched(
    trees: Trees, name: str, device: str, failure: Exception, called: str
) -> None:
    fft = Fft(device, [called], failure)
    with pytest.raises(RuntimeError) as caught:
        on_device(build(trees, "extras", MODELS[name]), audio(1, 2, 1280), fft)
    assert caught.value is failure
    assert fft.calls.count((called, device)) == 1
