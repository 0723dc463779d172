"""Tests the patched SCNet against upstream's: on the CPU, in mixed precision, and on devices without FFT."""

import importlib
import inspect
import io
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.conftest import Trees, imports_from
from tests.models.standins import Fft

SCNET = "models/scnet/scnet.py"
SEPARATION = "models/scnet/separation.py"

SMALL = {"sources": ["a", "b"], "dims": [4, 8, 16], "nfft": 64, "hop_size": 16, "win_size": 64, "num_dplayer": 2}
VARIANTS = {
    "stereo": {},
    "window below nfft": {"win_size": 48},
    "odd window": {"win_size": 33},
    "no window size": {"win_size": None},
    "not normalized": {"normalized": False},
    "no overlap": {"hop_size": 64},
    "mono, large hop": {"audio_channels": 1, "dims": [2, 8, 16], "hop_size": 48},
    "four layers": {"num_dplayer": 4, "sources": ["a"]},
}

# All errors are the largest error over the largest expected value. Under autocast the layers round: 0.0075 and 0.0008
# measured against float32; its gradients: 0.088 and 0.014.
AUTOCAST_TOLERANCE = {torch.bfloat16: 2.5e-2, torch.float16: 4e-3}
AUTOCAST_GRADIENT_TOLERANCE = {torch.bfloat16: 0.2, torch.float16: 3e-2}
# Half-precision input to float32 weights: the input and the result round, 0.0034 and 0.0006 measured.
INPUT_TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 1e-3}
# Compiled or exported, and the gradient: 0 measured, on torch 2.0 to 2.13.
COMPILE_TOLERANCE = 2e-6
HALF = [torch.float16, torch.bfloat16]
X = torch.randn(1, 2, 700, generator=torch.Generator().manual_seed(0))
halves = pytest.mark.parametrize("dtype", HALF, ids=str)

# Upstream's, on each call, and the compilers' own; what the patched file says is tested in a process of its own.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def upstream(trees: Trees) -> Any:
    return trees.load("upstream", SCNET)


@pytest.fixture
def patched(trees: Trees) -> Any:
    return trees.load("patched", SCNET)


def build(module: Any, base: dict[str, Any] = SMALL, **changes: Any) -> Any:
    """`module`'s SCNet with seeded weights, in evaluation mode."""
    torch.manual_seed(0)
    return module.SCNet(**{**base, **changes}).eval()


def relative(result: Tensor, expected: Tensor) -> float:
    """The largest error over the largest expected value."""
    return float((result.double() - expected.double()).abs().max() / expected.abs().max())


def run(model: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """The result, and the gradients of the input and of all parameters, for a loss that is no plain sum."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    result = (call or model)(x)
    result.float().pow(2).sum().backward()
    return [result.detach(), x.grad, *(parameter.grad for parameter in model.parameters())]


def outcome(model: nn.Module, x: Tensor) -> Any:
    """What `run` gives, or the type and text of what it raises."""
    try:
        return run(model, x)
    except Exception as e:
        return type(e), str(e)


def same(ours: Any, theirs: Any) -> bool:
    """Whether tensors, lists of them or outcomes are equal to the bit."""
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return torch.equal(ours, theirs) if isinstance(theirs, Tensor) else bool(ours == theirs)


# The CPU in float32


@pytest.mark.parametrize("length", [0, 1, 5, 48, 655, 656, 1000])
@pytest.mark.parametrize("variant", VARIANTS)
def test_results_and_gradients_equal_upstreams_bit_for_bit(
    upstream: Any, patched: Any, variant: str, length: int
) -> None:
    """And so are errors, where the input is too short for the padding."""
    theirs, ours = (build(module, **VARIANTS[variant]).train() for module in (upstream, patched))
    x = torch.randn(2, ours.audio_channels, length)
    assert same(outcome(ours, x), outcome(theirs, x))


def test_the_default_size_takes_strided_input_and_the_same_random_numbers(upstream: Any, patched: Any) -> None:
    x = torch.arange(8192.0).sin().reshape(1, 4096, 2).transpose(1, 2)
    before = x.clone()
    with torch.no_grad():
        theirs, ours = ([build(module, {})(x), torch.rand(3)] for module in (upstream, patched))
    assert same([*ours, x], [*theirs, before])


def in_both(trees: Trees, code: str) -> list[subprocess.CompletedProcess[str]]:
    """`code` in two new processes, which find `models` in upstream's tree and in the patched one."""
    command = [sys.executable, "-c", "import torch\ntorch.set_num_threads(1)\n" + textwrap.dedent(code)]
    environments = [{**os.environ, "PYTHONPATH": str(tree)} for tree in (trees.upstream, trees.patched)]
    return [subprocess.run(command, capture_output=True, text=True, check=True, env=env) for env in environments]


def test_no_window_warning_where_upstream_has_two(trees: Trees) -> None:
    code = f"""
        import warnings
        from models.scnet.scnet import SCNet
        warnings.simplefilter("always")
        SCNet(**{SMALL})(torch.randn(1, 2, 500)).sum().backward()
    """
    theirs, ours = in_both(trees, code)
    assert (ours.stdout, ours.stderr) == ("", "")
    if not (count := theirs.stderr.count("A window was not provided")):
        pytest.skip("this torch does not warn of a missing window")
    assert count >= 2


# The window, and checkpoints


@pytest.mark.parametrize("device", ["cpu", "cuda", "privateuseone"])
def test_the_buffer_is_the_window_of_stft_and_istft(upstream: Any, patched: Any, device: str) -> None:
    theirs, ours, fft = build(upstream), build(patched), Fft(device)
    theirs.stft_config["window"] = 0.1 + torch.hann_window(64)
    expected = theirs(X)
    assert not torch.equal(ours(X), expected)
    ours.stft_window = fft.put(theirs.stft_config["window"])
    assert same(on_device(ours, X, fft), expected)


def test_checkpoints_equal_upstreams_and_load_strictly_both_ways(upstream: Any, patched: Any) -> None:
    theirs, ours = build(upstream), build(patched)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for model, module in ((ours, upstream), (theirs, patched)):
        other = module.SCNet(**SMALL).eval()
        assert not torch.equal(other(X), model(X))
        other.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(other(X), model(X))


TRIPS = ["upstream to patched", "patched to upstream", "patched to patched", "patched to patched, without the buffer"]


@pytest.mark.parametrize("trip", TRIPS)
def test_a_model_saved_whole_runs_in_either_tree(trees: Trees, trip: str) -> None:
    """As `torch.save(model)` does, which names the classes and never calls their constructors again."""
    saved = io.BytesIO()
    source, target = (getattr(trees, tree) for tree in trip.split(",")[0].split(" to "))
    with imports_from(source):
        model = build(importlib.import_module("models.scnet.scnet"))
        expected = model(X)
        if "without" in trip:
            del model.stft_window
        torch.save(model, saved)
    saved.seek(0)
    with imports_from(target):
        assert torch.equal(torch.load(saved, weights_only=False)(X), expected)


def test_a_model_made_without_memory_takes_a_checkpoint_as_it_is(upstream: Any, patched: Any) -> None:
    """Large checkpoints are loaded so: nothing but the checkpoint may hold what the model computes with."""
    if "assign" not in inspect.signature(nn.Module.load_state_dict).parameters:
        pytest.skip("this torch has no load_state_dict(assign=)")
    with torch.device("meta"):
        model = build(patched)
    model.load_state_dict(build(upstream).state_dict(), assign=True)
    assert torch.equal(model(X), build(upstream)(X))


# Mixed precision


def autocast(dtype: torch.dtype) -> torch.autocast:
    """On the CPU. Where torch only ignores `dtype`, results are float32's."""
    try:
        with torch.autocast("cpu", dtype=dtype):
            return torch.autocast("cpu", dtype=dtype)
    except RuntimeError:
        pytest.skip(f"this torch has no autocast to {dtype} on the CPU")


@pytest.fixture(params=[False, True], ids=["this CPU", "a CPU without such an LSTM"])
def cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This CPU, then one whose LSTM takes float32 alone, as oneDNN's does without AVX-512."""
    lstm, one = nn.LSTM.forward, torch.ones(1, 1)

    def refuse(self: nn.LSTM, x: Tensor, *args: Any) -> Any:
        if x.dtype in HALF or (one @ one).dtype in HALF:  # autocast rounds both
            raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive")
        return lstm(self, x, *args)

    if request.param:
        monkeypatch.setattr(nn.LSTM, "forward", refuse)


@halves
@pytest.mark.usefixtures("cpu")
def test_autocast_keeps_the_inputs_dtype_and_reaches_every_parameter(patched: Any, dtype: torch.dtype) -> None:
    model = build(patched).train()
    expected, *expected_gradients = run(model, X)
    for given in (dtype, torch.float32):
        result, *gradients = run(model, X.to(given), autocast(dtype)(model.forward))
        assert result.dtype == given
        assert relative(result, expected) <= AUTOCAST_TOLERANCE[dtype]
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert relative(ours, theirs) <= AUTOCAST_GRADIENT_TOLERANCE[dtype]


@halves
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("device", ["cpu", "privateuseone"])
def test_half_precision_input_works_with_float32_weights(
    patched: Any, dtype: torch.dtype, variant: str, device: str
) -> None:
    model = build(patched, **VARIANTS[variant])
    x = torch.randn(2, model.audio_channels, 1000)
    expected, result = model(x), on_device(model, x.to(dtype), Fft(device))
    assert (result.dtype, relative(result, expected) <= INPUT_TOLERANCE[dtype]) == (dtype, True)
    # Out of the decoder, as CUDA's autocast gives it, which takes transposed convolutions to half precision.
    model.decoder[-1][1].register_forward_hook(lambda *args: args[2].to(dtype))
    result = on_device(model, x, Fft(device))
    assert (result.dtype, relative(result, expected) <= INPUT_TOLERANCE[dtype]) == (torch.float32, True)


@pytest.mark.parametrize("dtype", [torch.float64, *HALF], ids=str)
def test_a_model_converted_whole_stops_as_upstreams_does(upstream: Any, patched: Any, dtype: torch.dtype) -> None:
    """Double precision in separation.py. Converted back, it computes what upstream's does."""
    theirs, ours = (build(module).to(dtype) for module in (upstream, patched))
    for model in (theirs, ours):
        with pytest.raises(RuntimeError) as caught:
            model(X.to(dtype))
        assert dtype in HALF or "separation.py" in [entry.path.name for entry in caught.traceback]
    assert ours.stft_window.dtype == dtype
    assert torch.equal(ours.float()(X), theirs.float()(X))


# Devices and their FFT


def on_device(model: nn.Module, x: Tensor, fft: Fft) -> Tensor:
    """`model(x)` on the device that `fft` plays, brought back."""
    with fft:
        result = model(fft.put(x))
        assert type(result) is fft.kind
        return result.cpu()


TRIED = ["cuda on 2.0.1", "xpu on 2.0.1", "mps on 2.3.0", "mps on 2.10.0", "mps on 2.15.0a0+git1234567"]
NOT_TRIED = ["mps on 2.0.1", "mps on 2.1.2+cpu", "mps on 2.2.2", "privateuseone on 2.13.0", "hpu on 2.13.0"]
FAILURES = [
    ([], None),
    (Fft.NAMES, RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR")),
    (["rfft"], NotImplementedError("The operator 'aten::_fft_r2c' is not currently implemented for the XPU device.")),
    # What PyTorch raises wherever it maps a complex dtype for a macOS before 14.
    (["stft", "istft"], TypeError("MPS complex types are only supported on MacOS 14.0 or newer.")),
    ([], None),
]


@pytest.mark.parametrize("variant", ["stereo", "window below nfft", "four layers"])
@pytest.mark.parametrize("where", [*TRIED, *NOT_TRIED])
def test_only_the_device_type_decides_where_an_fft_is_tried(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, variant: str, where: str
) -> None:
    """Whatever failed before: a call that fails is done on the CPU, the next one is tried on the device again."""
    device, version = where.split(" on ")
    monkeypatch.setattr(torch, "__version__", version)
    model = build(request.getfixturevalue("patched"), **VARIANTS[variant])
    expected = run(model, X)
    names = ["stft", *["rfft", "irfft"] * (len(model.separation_net.dp_modules) // 2), "istft"]
    for refuses, error in FAILURES:
        fft = Fft(device, refuses, error)
        assert same(run(model, X, lambda x, fft=fft: on_device(model, x, fft)), expected)
        if where in NOT_TRIED:
            assert fft.calls == [(name, "cpu") for name in names]
            assert fft.dtypes == {torch.float32}  # before macOS 14 an MPS tensor cannot be complex
        else:
            tries = {name: [device, "cpu"] if name in refuses else [device] for name in names}
            assert fft.calls == [(name, place) for name in names for place in tries[name]]
    with pytest.raises(RuntimeError, match="Padding size"):  # what the input is at fault for, the CPU says as well
        on_device(model, X[..., :5], Fft(device))


RAISED = [
    ("cpu", RuntimeError("MKL FFT error: Intel oneMKL DFTI ERROR")),
    ("cuda", RuntimeError("CUDA error: out of memory")),
    ("cuda", torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    ("cuda", torch.cuda.OutOfMemoryError("Allocation on device failed")),
]


@pytest.mark.parametrize("name", Fft.NAMES)
@pytest.mark.parametrize(("device", "error"), RAISED, ids=["any on the CPU", "by text", "by both", "by type"])
def test_out_of_memory_and_errors_on_the_cpu_are_raised_unchanged(
    patched: Any, device: str, error: Exception, name: str
) -> None:
    fft = Fft(device, [name], error)
    with pytest.raises(RuntimeError) as caught:
        on_device(build(patched), X, fft)
    assert caught.value is error
    assert fft.calls == [(called, device) for called in Fft.NAMES[: Fft.NAMES.index(name) + 1]]


@pytest.mark.parametrize("device", ["cpu", "cuda", "privateuseone"])
def test_the_separation_network_is_called_as_a_module(patched: Any, device: str) -> None:
    model, seen = build(patched), []
    model.separation_net.register_forward_hook(lambda *args: seen.append(args[2].shape))
    expected = on_device(model, X, Fft(device))
    assert len(seen) == 1
    model.separation_net = nn.Identity()
    assert not torch.equal(on_device(model, X, Fft(device)), expected)


# Compilers, and the process's defaults

COMPILERS = {
    "compile": 'torch.compile(model, backend="eager")',
    "compile in one graph": 'torch.compile(model, backend="eager", fullgraph=True)',
    "export": "torch.export.export(model, (x,), strict=True).module()",
    "export without tracing Python in": "torch.export.export(model, (x,), strict=False).module()",
}


@pytest.fixture(scope="module")
def compiled(trees: Trees) -> list[dict[str, str]]:
    """For both trees and each of COMPILERS: the largest error of result and gradient, or the name of an exception.

    In processes of their own, since compilers remember modules by name, and here two have the same.
    """
    code = f"""
        import torch._dynamo
        from models.scnet.scnet import SCNet
        torch._dynamo.config.allow_rnn = True
        model = SCNet(**{ {**SMALL, "dims": [4, 8], "conv_depths": [1, 1, 1]} }).eval()
        x = torch.randn(1, 2, 300)
        def result(call):
            x.requires_grad_().grad = None
            y = call(x)
            y.pow(2).sum().backward()
            return torch.cat([y.flatten() / y.abs().max(), x.grad.flatten() / x.grad.abs().max()]).detach()
        expected = result(model)
        for name, how in {COMPILERS}.items():
            torch._dynamo.reset()
            try:
                model.requires_grad_("export" not in how)
                found = float((result(eval(how)) - expected).abs().max())
            except Exception as e:
                found = type(e).__name__
            print(name, found, sep=":")
    """
    return [dict(line.split(":") for line in process.stdout.splitlines()) for process in in_both(trees, code)]


@pytest.mark.parametrize("name", COMPILERS)
def test_compilers_take_it_as_they_take_upstreams(compiled: list[dict[str, str]], name: str) -> None:
    theirs, ours = (errors[name] for errors in compiled)
    if theirs.isidentifier():
        pytest.skip(f"this torch does not take upstream's: {name}: {theirs}")
    assert float(ours) <= COMPILE_TOLERANCE


def test_torch_defaults_changed_before_the_import_act_as_upstream(trees: Trees) -> None:
    code = f"""
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        from models.scnet.scnet import SCNet
        with torch.device("cpu"):
            torch.manual_seed(0)
            y = SCNet(**{SMALL}).float()(torch.linspace(-1, 1, 1400, dtype=torch.float32).reshape(1, 2, 700))
        print(y.dtype, y.device, y.tolist())
    """
    theirs, ours = in_both(trees, code)
    assert ours.stdout == theirs.stdout


TRANSFORMER = {"tran_rotary_embedding_dim": 8, "tran_heads": 2, "tran_dim_head": 8}
BESIDE = [("scnet_masked", "SCNet", {})]
BESIDE += [("scnet_tran", "SCNet_Tran", {**TRANSFORMER, "tran_flash_attn": flash}) for flash in (False, True)]


@pytest.mark.parametrize(("file", "name", "sizes"), BESIDE, ids=["masked", "tran, einsum", "tran, flash"])
def test_the_other_scnets_equal_upstreams(trees: Trees, file: str, name: str, sizes: dict[str, Any]) -> None:
    """No patch touches them; one of them uses the patched attention."""
    results = []
    for tree in ("upstream", "patched"):
        torch.manual_seed(0)
        results.append(getattr(trees.load(tree, f"models/scnet/{file}.py"), name)(**SMALL, **sizes).eval()(X))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
