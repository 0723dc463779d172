"""SCNet, patched beside untouched: bit for bit on the CPU, in mixed precision, and on devices that have no FFT."""

import copy
import importlib
import inspect
import io
import os
import pickle
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.conftest import ATTEND, Trees, imports_from
from tests.models.standins import Fft, OnCuda, OnMps, on

SCNET = "models/scnet/scnet.py"
SEPARATION = "models/scnet/separation.py"
MASKED = "models/scnet/scnet_masked.py"
TRAN = "models/scnet/scnet_tran.py"

SMALL = {"sources": ["a", "b"], "dims": [4, 8, 16], "nfft": 64, "hop_size": 16, "win_size": 64, "num_dplayer": 2}
MONO = {"audio_channels": 1, "dims": [2, 8, 16]}
VARIANTS = {
    "stereo": {},
    "mono": MONO,
    "window below nfft": {"win_size": 48},
    "odd window": {"win_size": 33},
    "not normalized": {"normalized": False},
    "no overlap": {"hop_size": 64},
    "mono, large hop": {**MONO, "hop_size": 48, "normalized": False},
    "four layers": {"num_dplayer": 4, "sources": ["a"]},
}
# The smallest that the compilers are asked to take.
TINY = {**SMALL, "sources": ["a"], "dims": [4, 8], "conv_depths": [1, 1, 1]}

# All errors are the largest error over the largest expected value. Under autocast the layers round: 0.0062 and 0.0008
# measured against float32, 0.0013 where the LSTM is in float16 too; its gradients: 0.056 and 0.0081.
AUTOCAST_TOLERANCE = {torch.bfloat16: 2.5e-2, torch.float16: 4e-3}
AUTOCAST_GRADIENT_TOLERANCE = {torch.bfloat16: 0.2, torch.float16: 3e-2}
# Half-precision input to float32 weights: the input and the result round, 0.0042 and 0.0005 measured.
INPUT_TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 1e-3}
# Compiled, and its gradients: 2e-7 measured under aot_eager, 0 under eager.
COMPILE_TOLERANCE = 2e-6
HALF = [torch.float16, torch.bfloat16]

# Upstream's, on each call, and the compilers' own; what the patched file says is tested in a process of its own.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def upstream(trees: Trees) -> Any:
    trees.need(SEPARATION)
    return trees.load("upstream", SCNET)


@pytest.fixture
def patched(trees: Trees) -> Any:
    trees.need(SEPARATION)
    return trees.load("patched", SCNET)


@contextmanager
def imported(trees: Trees, tree: str) -> Iterator[Any]:
    """The module of `tree`, found by its name while inside, as pickles and compilers look for it."""
    trees.need(SCNET, SEPARATION)
    with imports_from(getattr(trees, tree)):
        yield importlib.import_module("models.scnet.scnet")


def build(module: Any, base: dict[str, Any] = SMALL, **changes: Any) -> Any:
    """`module`'s SCNet with seeded weights, in evaluation mode."""
    torch.manual_seed(0)
    return module.SCNet(**{**base, **changes}).eval()


def audio(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(result: Tensor, expected: Tensor) -> float:
    """The largest error over the largest expected value."""
    result, expected = result.detach().double(), expected.detach().double()
    return float((result - expected).abs().max() / expected.abs().max())


def gradients(model: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """Those of the input and of all parameters, for a loss that is no plain sum."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    (run or model)(x).float().pow(2).sum().backward()
    return [x.grad, *(parameter.grad for parameter in model.parameters())]


def outcome(call: Callable[[], Any]) -> Any:
    """What `call` gives, or the type of what it raises."""
    try:
        return call()
    except Exception as e:
        return type(e)


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# The CPU in float32


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("length", [1, 48, 655, 656, 1000])
@pytest.mark.parametrize("variant", VARIANTS)
def test_results_are_upstreams_to_the_bit(upstream: Any, patched: Any, variant: str, length: int, train: bool) -> None:
    theirs, ours = (build(module, **VARIANTS[variant]).train(train) for module in (upstream, patched))
    x = audio(2, ours.audio_channels, length)
    expected = outcome(lambda: theirs(x))
    if not isinstance(expected, Tensor):
        assert outcome(lambda: ours(x)) is expected  # too short for the padding
        return
    assert expected.shape == (2, len(ours.sources), ours.audio_channels, length)
    assert torch.equal(ours(x), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_upstreams_to_the_bit(upstream: Any, patched: Any, variant: str) -> None:
    theirs, ours = (build(module, **VARIANTS[variant]).train() for module in (upstream, patched))
    x = audio(1, ours.audio_channels, 700)
    assert same(gradients(ours, x), gradients(theirs, x))


def test_strided_input_is_taken_and_left_as_it_is(upstream: Any, patched: Any) -> None:
    x = audio(2, 900, 2).transpose(1, 2)
    before = x.clone()
    assert torch.equal(build(patched)(x), build(upstream)(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize("length", [0, 5])
def test_input_too_short_for_the_padding_fails_as_upstream_does(upstream: Any, patched: Any, length: int) -> None:
    x = audio(1, 2, length)
    with pytest.raises(RuntimeError) as theirs:
        build(upstream)(x)
    with pytest.raises(RuntimeError) as ours:
        build(patched)(x)
    assert str(ours.value) == str(theirs.value)


def test_a_model_at_its_default_size_is_upstreams(upstream: Any, patched: Any) -> None:
    x = audio(1, 2, 4096)
    with torch.no_grad():
        assert torch.equal(build(patched, {})(x), build(upstream, {})(x))


def test_a_window_of_none_means_nfft_as_upstream(upstream: Any, patched: Any) -> None:
    x = audio(1, 2, 1000)
    expected = build(upstream, win_size=None)(x)
    assert torch.equal(build(patched, win_size=None)(x), expected)


def test_constructing_takes_the_same_random_numbers(upstream: Any, patched: Any) -> None:
    build(upstream)
    expected = torch.rand(3)
    build(patched)
    assert torch.equal(torch.rand(3), expected)


def in_process(tree: Path, code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a new process that finds `models` in `tree`."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(tree)},
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_no_window_warning_where_upstream_has_two(trees: Trees) -> None:
    trees.need(SCNET, SEPARATION)
    code = f"""
        import warnings
        import torch
        from models.scnet.scnet import SCNet
        torch.set_num_threads(1)
        warnings.simplefilter("always")
        model = SCNet(**{SMALL})
        for train in (True, False):
            model.train(train)(torch.randn(1, 2, 500, requires_grad=True)).sum().backward()
    """
    ours = in_process(trees.patched, code)
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, "", "")
    theirs = in_process(trees.upstream, code)
    assert theirs.returncode == 0
    warning = "A window was not provided"
    plain = "import torch; torch.stft(torch.zeros(64), 16, return_complex=True)"
    if warning not in theirs.stderr and warning not in in_process(trees.upstream, plain).stderr:
        pytest.skip("this torch does not warn of a missing window")
    assert theirs.stderr.count(warning) >= 2


# Checkpoints


def test_state_dict_has_upstreams_keys_in_their_order(upstream: Any, patched: Any) -> None:
    theirs, ours = build(upstream).state_dict(), build(patched).state_dict()
    assert list(ours) == list(theirs)
    assert same(list(ours.values()), list(theirs.values()))


@pytest.mark.parametrize(("source", "target"), [("upstream", "patched"), ("patched", "upstream")])
def test_a_saved_state_dict_loads_strictly_into_the_other(
    request: pytest.FixtureRequest, source: str, target: str
) -> None:
    saved = io.BytesIO()
    model = build(request.getfixturevalue(source))
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    torch.manual_seed(99)
    other = request.getfixturevalue(target).SCNet(**SMALL).eval()
    result = other.load_state_dict(torch.load(saved, weights_only=True), strict=True)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    x = audio(1, 2, 800)
    assert torch.equal(other(x), model(x))


def test_a_patched_model_saved_whole_loads_into_upstreams(trees: Trees) -> None:
    """As `torch.save(model)` does, which names the classes and never calls their constructors again."""
    saved = io.BytesIO()
    x = audio(1, 2, 800)
    with imported(trees, "patched") as module:
        model = build(module)
        torch.save(model, saved)
        expected = model(x)
    saved.seek(0)
    with imported(trees, "upstream") as module:
        loaded = torch.load(saved, weights_only=False)
        assert type(loaded) is module.SCNet
        assert torch.equal(loaded(x), expected)


def test_a_deep_copy_and_a_pickle_compute_the_same(trees: Trees) -> None:
    x = audio(1, 2, 800)
    with imported(trees, "patched") as module:
        model = build(module)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), model(x))
            assert same(gradients(other, x), gradients(model, x))


# Mixed precision


def need_autocast(dtype: torch.dtype) -> None:
    """Skip where `torch.autocast` for the CPU refuses `dtype`; where it only ignores it, results are float32's."""
    try:
        with torch.autocast("cpu", dtype=dtype):
            nn.functional.linear(torch.ones(1, 2), torch.ones(1, 2))
    except RuntimeError:
        pytest.skip(f"this torch has no autocast to {dtype} on the CPU")


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_autocast_runs_and_returns_the_inputs_dtype(patched: Any, dtype: torch.dtype, train: bool) -> None:
    need_autocast(dtype)
    model, x = build(patched).train(train), audio(2, 2, 1000)
    expected = model(x)
    with torch.autocast("cpu", dtype=dtype):
        result, halved = model(x), model(x.to(dtype))
    assert (result.dtype, halved.dtype) == (torch.float32, dtype)
    assert result.isfinite().all()
    assert relative(result, expected) <= AUTOCAST_TOLERANCE[dtype]
    assert relative(halved, expected) <= AUTOCAST_TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_autocast_gradients_are_finite_and_reach_every_parameter(patched: Any, dtype: torch.dtype) -> None:
    need_autocast(dtype)
    model, x = build(patched).train(), audio(1, 2, 700)
    expected = gradients(model, x)

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            return model(x)

    for ours, theirs in zip(gradients(model, x, run), expected, strict=True):
        assert ours.isfinite().all()
        assert relative(ours, theirs) <= AUTOCAST_GRADIENT_TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_input_to_float32_weights(patched: Any, dtype: torch.dtype, variant: str) -> None:
    model = build(patched, **VARIANTS[variant])
    x = audio(2, model.audio_channels, 1000)
    result = model(x.to(dtype))
    assert result.dtype == dtype
    assert result.isfinite().all()
    assert relative(result, model(x)) <= INPUT_TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_out_of_the_decoder_reaches_istft_as_float32(patched: Any, dtype: torch.dtype) -> None:
    """What CUDA's autocast gives there, since it takes transposed convolutions to half precision."""
    model, x = build(patched), audio(1, 2, 700)
    expected = model(x)
    model.decoder[-1][1].register_forward_hook(lambda *args: args[2].to(dtype))
    result = model(x)
    assert result.dtype == torch.float32
    assert relative(result, expected) <= INPUT_TOLERANCE[dtype]


def test_double_precision_stops_in_separation_as_upstream_does(upstream: Any, patched: Any) -> None:
    for module in (upstream, patched):
        with pytest.raises(RuntimeError) as caught:
            build(module).double()(audio(1, 2, 700).double())
        names = [Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert [name for name in names if name in ("scnet.py", "separation.py")][-1] == "separation.py"


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("tree", ["upstream", "patched"])
def test_a_model_converted_whole_to_half_precision_stops(
    request: pytest.FixtureRequest, tree: str, dtype: torch.dtype
) -> None:
    with pytest.raises(RuntimeError):
        build(request.getfixturevalue(tree)).to(dtype)(audio(1, 2, 700).to(dtype))


def test_a_model_converted_and_converted_back_is_upstreams(upstream: Any, patched: Any) -> None:
    x = audio(1, 2, 700)
    for dtype in (*HALF, torch.float64):
        theirs, ours = (build(module).to(dtype).float() for module in (upstream, patched))
        assert torch.equal(ours(x), theirs(x))


# Devices without FFT

DEVICE_FFTS = [("stft", "device"), ("rfft", "device"), ("irfft", "device"), ("istft", "device")]
CPU_FFTS = [(name, "cpu") for name, _ in DEVICE_FFTS]


class OnXpu(Tensor):
    """A CPU tensor that says it is on an Intel GPU."""

    device = property(lambda _: torch.device("xpu", 0))


@pytest.fixture
def new_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose MPS may or may not have an FFT, whatever runs the test."""
    monkeypatch.setattr(torch, "__version__", "2.13.0")


@contextmanager
def device(kind: type[Tensor] = OnMps, **kwargs: Any) -> Iterator[Fft]:
    with Fft(kind, **kwargs) as mode:
        yield mode


@pytest.mark.usefixtures("new_torch")
def test_upstream_fails_where_the_device_has_no_fft(upstream: Any) -> None:
    with device() as fft, pytest.raises(RuntimeError, match="no FFT"):
        build(upstream)(*on(OnMps, audio(1, 2, 700)))
    assert fft.calls == [("stft", "device")]


@pytest.mark.usefixtures("new_torch")
@pytest.mark.parametrize("variant", VARIANTS)
def test_without_fft_on_the_device_the_cpu_does_it_and_the_result_comes_back(patched: Any, variant: str) -> None:
    model = build(patched, **VARIANTS[variant])
    x = audio(1, model.audio_channels, 700)
    expected = model(x)
    with device() as fft:
        result = model(*on(OnMps, x))
        assert type(result) is OnMps
        assert torch.equal(result.cpu(), expected)
    assert fft.calls[:3] == [("stft", "device"), ("stft", "cpu"), ("rfft", "cpu")]


@pytest.mark.usefixtures("new_torch")
def test_the_device_is_asked_once_and_never_again(patched: Any) -> None:
    x = audio(1, 2, 700)
    with device() as fft:
        build(patched)(*on(OnMps, x))
        assert fft.calls == [("stft", "device"), *CPU_FFTS]
        fft.calls.clear()
        build(patched)(*on(OnMps, x))  # another model of the same process
        assert fft.calls == CPU_FFTS


@pytest.mark.usefixtures("new_torch")
def test_gradients_flow_back_through_the_cpu_and_are_the_plain_ones(patched: Any) -> None:
    model, x = build(patched).train(), audio(1, 2, 700)
    expected = gradients(model, x)
    with device() as fft:
        ours = gradients(model, x, lambda x: model(x.as_subclass(OnMps)).cpu())
    assert ("stft", "cpu") in fft.calls
    assert same(ours, expected)


@pytest.mark.parametrize("version", ["2.0.1", "2.1.2+cpu", "2.2.2"])
def test_an_old_torch_never_asks_mps(trees: Trees, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    patched = trees.load("patched", SCNET)
    model, x = build(patched), audio(1, 2, 700)
    expected = model(x)
    with device() as fft:
        for _ in range(2):
            assert torch.equal(model(*on(OnMps, x)).cpu(), expected)
    assert fft.calls == CPU_FFTS * 2


@pytest.mark.parametrize("version", ["2.3.0", "2.10.0", "2.15.0a0+git1234567"])
def test_a_device_with_fft_keeps_all_of_the_work(trees: Trees, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    patched = trees.load("patched", SCNET)
    model, x = build(patched, win_size=48), audio(1, 2, 700)
    expected = model(x)
    with device(refuses=()) as fft:
        assert torch.equal(model(*on(OnMps, x)).cpu(), expected)
    assert fft.calls == DEVICE_FFTS


@pytest.mark.usefixtures("new_torch")
@pytest.mark.parametrize("name", Fft.NAMES)
def test_a_device_that_lacks_one_function_only_gives_the_same_result(patched: Any, name: str) -> None:
    model, x = build(patched), audio(1, 2, 700)
    expected = model(x)
    with device(refuses=(name,)) as fft:
        assert torch.equal(model(*on(OnMps, x)).cpu(), expected)
    assert fft.calls.count((name, "device")) == 1


@pytest.mark.usefixtures("new_torch")
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("FFT operations are only supported on MacOS 14+"),
        NotImplementedError("The operator 'aten::_fft_r2c' is not currently implemented for the MPS device."),
        # What PyTorch raises wherever it maps a complex dtype for a macOS before 14.
        TypeError("MPS complex types are only supported on MacOS 14.0 or newer."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_each_way_of_having_no_fft_leads_to_the_cpu(patched: Any, error: Exception) -> None:
    model, x = build(patched), audio(1, 2, 700)
    expected = model(x)
    with device(error=error) as fft:
        assert torch.equal(model(*on(OnMps, x)).cpu(), expected)
    assert fft.calls == [("stft", "device"), *CPU_FFTS]


@pytest.mark.usefixtures("new_torch")
@pytest.mark.parametrize("name", Fft.NAMES)
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB)."),
        torch.cuda.OutOfMemoryError("XPU out of memory. Tried to allocate 2.00 GiB."),
        torch.cuda.OutOfMemoryError("Allocation on device failed"),
    ],
    ids=["text", "type and text", "type"],
)
def test_out_of_memory_is_raised_untouched(patched: Any, error: Exception, name: str) -> None:
    model, (x,) = build(patched), on(OnMps, audio(1, 2, 700))
    with device(refuses=(name,), error=error) as fft, pytest.raises(RuntimeError) as caught:
        model(x)
    assert caught.value is error
    assert (name, "cpu") not in fft.calls
    with device(refuses=()) as fft:
        model(x)
    assert fft.calls == DEVICE_FFTS


@pytest.mark.parametrize("name", Fft.NAMES)
@pytest.mark.parametrize("kind", [Tensor, OnCuda], ids=["cpu", "cuda"])
def test_an_error_on_cpu_or_cuda_is_raised_untouched(patched: Any, kind: type[Tensor], name: str) -> None:
    model, (x,) = build(patched), on(kind, audio(1, 2, 700))
    error = RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR")
    for _ in range(2):
        with device(kind, refuses=(name,), error=error) as fft, pytest.raises(RuntimeError) as caught:
            model(x)
        assert caught.value is error
        assert fft.calls[-1] == (name, "device")
        assert fft.calls.count((name, "device")) == 1


@pytest.mark.usefixtures("new_torch")
def test_a_fault_of_the_input_is_raised_and_does_not_count_against_the_device(patched: Any) -> None:
    model = build(patched)
    with device(refuses=()) as fft:
        with pytest.raises(RuntimeError, match="Padding size"):
            model(*on(OnMps, audio(1, 2, 5)))
        fft.calls.clear()
        model(*on(OnMps, audio(1, 2, 700)))
    assert fft.calls == DEVICE_FFTS


@pytest.mark.usefixtures("new_torch")
def test_one_device_without_fft_says_nothing_about_another(patched: Any) -> None:
    model, x = build(patched), audio(1, 2, 700)
    with device():
        model(*on(OnMps, x))
    with device(OnXpu, refuses=()) as fft:
        model(*on(OnXpu, x))
    assert fft.calls == DEVICE_FFTS


@pytest.mark.usefixtures("new_torch")
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_input_on_a_device_without_fft(patched: Any, dtype: torch.dtype) -> None:
    model, x = build(patched), audio(1, 2, 700)
    expected = model(x.to(dtype))
    with device():
        result = model(*on(OnMps, x.to(dtype)))
        assert (type(result), result.dtype) == (OnMps, dtype)
        assert torch.equal(result.cpu(), expected)


@pytest.mark.usefixtures("new_torch")
def test_no_complex_number_is_left_on_a_device_without_fft(patched: Any) -> None:
    """Before macOS 14 no tensor of them can stand there."""
    model = build(patched)
    seen: list[torch.dtype] = []

    class Watched(Fft):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = super().__torch_function__(func, types, args, kwargs)
            if isinstance(result, OnMps):
                with torch._C.DisableTorchFunctionSubclass():
                    seen.append(result.dtype)
            return result

    with device():
        model(*on(OnMps, audio(1, 2, 700)))  # now the device is known to have none
    with Watched(OnMps):
        model(*on(OnMps, audio(1, 2, 700)))
    assert set(seen) == {torch.float32}


# Compilers, moves, and the process's defaults


def test_a_compiled_model_computes_and_trains_the_same(trees: Trees) -> None:
    """In a process of its own, since compilers remember modules by name, and here two have the same."""
    trees.need(SCNET, SEPARATION)
    code = f"""
        import torch
        from models.scnet.scnet import SCNet
        torch.manual_seed(0)
        model = SCNet(**{TINY})
        x = torch.randn(1, 2, 300, requires_grad=True)
        def error(ours, theirs):
            return ((ours - theirs).abs().max() / theirs.abs().max()).item()
        def result(call):
            y = call(x)
            return [y, *torch.autograd.grad(y.pow(2).sum(), [x, *model.parameters()])]
        expected = result(model)
        with torch.no_grad():
            print(error(torch.compile(model, backend="aot_eager")(x), expected[0]))
        torch._dynamo.reset()
        for ours, theirs in zip(result(torch.compile(model, backend="eager")), expected):
            print(error(ours, theirs))
    """
    ran = in_process(trees.patched, code)
    if ran.returncode and in_process(trees.upstream, code).returncode:
        pytest.skip("this torch does not compile upstream's either")
    assert ran.returncode == 0, ran.stderr
    errors = [float(line) for line in ran.stdout.split()]
    assert len(errors) > 10
    assert max(errors) <= COMPILE_TOLERANCE


def test_export_succeeds_wherever_upstreams_does(trees: Trees) -> None:
    trees.need(SCNET, SEPARATION)
    code = f"""
        import torch
        from models.scnet.scnet import SCNet
        torch.manual_seed(0)
        model = SCNet(**{TINY}).eval()
        x = torch.randn(1, 2, 300)
        for strict in (False, True):
            try:
                print(torch.equal(torch.export.export(model, (x,), strict=strict).module()(x), model(x)))
            except Exception as e:
                print(type(e).__name__)
    """
    with ThreadPoolExecutor() as pool:
        theirs, ours = pool.map(in_process, (trees.upstream, trees.patched), (code, code))
    assert (theirs.returncode, ours.returncode) == (0, 0), ours.stderr
    assert "False" not in ours.stdout
    for their, our in zip(theirs.stdout.split(), ours.stdout.split(), strict=True):
        assert our == "True" or their != "True"
    if "True" not in theirs.stdout:
        pytest.skip(f"this torch does not export upstream's: {theirs.stdout.split()[0]}")


def test_every_parameter_and_buffer_follows_a_move(patched: Any) -> None:
    model = build(patched).to("meta")
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"meta"}
    model = build(patched).to(torch.bfloat16)
    assert {t.dtype for t in (*model.parameters(), *model.buffers())} == {torch.bfloat16}


def test_a_forward_on_meta_ends_as_upstreams_does(upstream: Any, patched: Any) -> None:
    x = audio(1, 2, 700).to("meta")
    theirs, ours = (outcome(lambda module=module: build(module).to("meta")(x)) for module in (upstream, patched))
    assert ours.shape == theirs.shape if isinstance(theirs, Tensor) else ours is theirs


@pytest.mark.parametrize("how", ["assign", "to_empty"])
def test_a_model_made_without_memory_and_then_loaded_is_upstreams(upstream: Any, patched: Any, how: str) -> None:
    """Large checkpoints are loaded so: nothing but the checkpoint may hold what the model computes with."""
    if how == "assign" and how not in inspect.signature(nn.Module.load_state_dict).parameters:
        pytest.skip("this torch has no load_state_dict(assign=)")
    x = audio(1, 2, 700)
    weights = build(upstream).state_dict()
    expected = build(upstream)(x)
    for module in (upstream, patched):
        with torch.device("meta"):
            model = build(module)
        if how == "assign":
            model.load_state_dict(weights, assign=True)
        else:
            model.to_empty(device="cpu")
            for tensor in (*model.parameters(), *model.buffers()):
                nn.init.constant_(tensor, 7.0)  # what memory held before
            model.load_state_dict(weights)
        assert torch.equal(model(x), expected)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_default_dtype_set_after_construction_changes_nothing(patched: Any, dtype: torch.dtype) -> None:
    model, x = build(patched), audio(1, 2, 700)
    expected = model(x)
    with default_dtype(dtype):
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("back", [False, True], ids=["as made", "converted to float32"])
def test_a_default_dtype_set_before_construction_is_taken_as_upstream_takes_it(
    upstream: Any, patched: Any, back: bool
) -> None:
    x = audio(1, 2, 700)
    results = []
    for module in (upstream, patched):
        with default_dtype(torch.float64):
            model = build(module)
        results.append(outcome(lambda model=model: (model.float() if back else model)(x)))
    theirs, ours = results
    assert torch.equal(ours, theirs) if isinstance(theirs, Tensor) else ours is theirs
    assert isinstance(theirs, Tensor) == back


def test_a_default_device_set_after_construction_changes_nothing(patched: Any) -> None:
    model, x = build(patched), audio(1, 2, 700)
    expected = model(x)
    with torch.device("meta"):
        assert torch.equal(model(x), expected)


def test_a_process_that_changed_its_defaults_before_the_import(trees: Trees) -> None:
    trees.need(SCNET, SEPARATION)
    code = f"""
        import torch
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        from models.scnet.scnet import SCNet
        with torch.device("cpu"):
            torch.manual_seed(0)
            model = SCNet(**{SMALL}).float()
        x = torch.linspace(-1, 1, 1400, dtype=torch.float32, device="cpu").reshape(1, 2, 700)
        y = model(x)
        print(y.dtype, y.device, y.tolist())
    """
    theirs, ours = (in_process(tree, code) for tree in (trees.upstream, trees.patched))
    assert (theirs.returncode, ours.returncode) == (0, 0), ours.stderr
    assert ours.stdout == theirs.stdout


# The two files beside it, which no patch touches


def test_scnet_masked_is_as_upstream(trees: Trees) -> None:
    trees.need(MASKED, SEPARATION)
    x = audio(1, 2, 700)
    theirs, ours = (build(trees.load(tree, MASKED)) for tree in ("upstream", "patched"))
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("flash", [False, True], ids=["einsum", "flash"])
def test_scnet_tran_is_as_upstream_over_the_patched_attention(trees: Trees, flash: bool) -> None:
    trees.need(TRAN, ATTEND)
    x = audio(1, 2, 700)
    results = []
    for tree in ("upstream", "patched"):
        torch.manual_seed(0)
        sizes = {**SMALL, "tran_rotary_embedding_dim": 8, "tran_heads": 2, "tran_dim_head": 8}
        model = trees.load(tree, TRAN).SCNet_Tran(**sizes, tran_flash_attn=flash).eval()
        results.append(model(x))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
