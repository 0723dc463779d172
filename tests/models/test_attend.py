"""Tests the patched attend.py with SDPA and einsum against upstream's and a float64 reference."""

import copy
import importlib
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.conftest import ROOT
from tests.models.conftest import ATTEND, Trees, imports_from
from tests.models.standins import OnCuda, OnMps, compiles, on, qkv, raises, reference

# Against float64, normal input, head size 64: a handful of units in the last place of each dtype.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
FAILURE = "No available kernel. Aborting execution."
# What SDPA says of kernels that it passes over.
NOISE = (
    "Torch was not compiled with flash attention. (Triggered internally at C:\\somewhere\\sdp_utils.cpp:263.)",
    "1Torch was not compiled with flash attention.",
    "Flash attention kernel not used because: (Triggered internally at sdp_utils.cpp:555.)",
    "Flash attention has been runtime disabled.",
    "Both fused kernels do not support non-zero dropout. (Triggered internally at /pytorch/sdp_utils_cpp.h:241.)",
)
FLAGS = ("flash", "mem_efficient", "math")
MonkeyPatch, Captured = pytest.MonkeyPatch, pytest.CaptureFixture[str]
each_flash = pytest.mark.parametrize("flash", [True, False])


@pytest.fixture
def module(trees: Trees, monkeypatch: MonkeyPatch) -> Any:
    """The patched attend.py, imported for this test alone, without SageAttention where that is installed."""
    monkeypatch.setenv("DSU_DISABLE_SAGEATTN", "1")
    return trees.load("patched", ATTEND)


def close(out: Tensor, expected: Tensor, tolerance: float = 5e-6) -> None:
    torch.testing.assert_close(out.detach().double(), expected.detach().double(), atol=tolerance, rtol=tolerance)


def flags() -> list[bool]:
    return [getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in FLAGS]


@contextmanager
def only(*enabled: str) -> Iterator[None]:
    """The process with no SDPA kernels but `enabled`."""
    before = flags()
    for name in FLAGS:
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(name in enabled)
    try:
        yield
    finally:
        for name, value in zip(FLAGS, before, strict=True):
            getattr(torch.backends.cuda, f"enable_{name}_sdp")(value)


class Sdpa:
    """SDPA with `first` run ahead of it; `calls` holds the flags that each call found."""

    def __init__(self) -> None:
        self.real, self.first, self.calls = F.scaled_dot_product_attention, lambda: None, []

    def __call__(self, *tensors: Tensor, **named: Any) -> Tensor:
        self.calls.append(flags())
        self.first()
        return self.real(*tensors, **named)


@pytest.fixture
def sdpa(monkeypatch: MonkeyPatch) -> Any:
    monkeypatch.setattr(F, "scaled_dot_product_attention", Sdpa())
    return F.scaled_dot_product_attention


@pytest.mark.parametrize("scale", [None, 8.0, 0.05])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_flash_attention_is_right_and_leaves_its_input(module: Any, dtype: torch.dtype, scale: float | None) -> None:
    q, k, v = qkv(3, 4, 70, 64)
    if scale == 8.0:
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)  # as LinearAttention does, whose scale it is
    tensors = [tensor.to(dtype) for tensor in (q, k, v)]
    try:
        F.scaled_dot_product_attention(*tensors)
    except RuntimeError:
        pytest.skip("this torch has no SDPA for this dtype on the CPU")
    before = [tensor.clone() for tensor in tensors]
    attend = module.Attend(flash=True, scale=scale).eval()
    out = attend(*tensors)
    assert (out.dtype, attend.last_backend) == (dtype, "pytorch_sdpa")
    close(out, reference(*before, scale), TOLERANCE[dtype])
    assert all(map(torch.equal, tensors, before))


@pytest.mark.parametrize("scale", [None, 0.3])
def test_flash_attention_and_its_gradients_equal_upstreams(module: Any, untouched: Any, scale: float | None) -> None:
    results = []
    for source in (untouched, module):
        tensors = [tensor.requires_grad_() for tensor in qkv(2, 3, 33, 32)]
        out = source.Attend(flash=True, scale=scale)(*tensors)
        out.square().sum().backward()
        results.append([out, *(tensor.grad for tensor in tensors)])
    for expected, actual in zip(*results, strict=True):
        close(actual, expected, 2e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scale", [None, 8])
def test_einsum_attention_equals_upstreams_bit_for_bit_and_calls_no_sdpa(
    module: Any, untouched: Any, sdpa: Any, scale: float | None, training: bool
) -> None:
    outs = []
    for source in (untouched, module):
        torch.manual_seed(3)
        attend = source.Attend(flash=False, dropout=0.3, scale=scale).train(training)
        outs.append(attend(*qkv(2, 3, 17, 24)))
    assert torch.equal(*outs)
    assert (attend.last_backend, sdpa.calls) == ("einsum", [])


def test_dropout_happens_only_in_training(module: Any) -> None:
    q, k, v = qkv(2, 2, 40, 16)
    attend = module.Attend(flash=True, dropout=0.5)
    assert torch.equal(attend.eval()(q, k, v), module.Attend(flash=True)(q, k, v))
    attend.train()
    torch.manual_seed(0)
    assert not torch.allclose(attend(q, k, v), attend(q, k, v))
    ones = torch.ones_like(v)  # rows of the attention matrix, which dropout rescales to a mean of one
    assert abs(torch.stack([attend(q, k, ones).mean() for _ in range(50)]).mean().item() - 1) < 0.1


def test_a_probe_never_raises(module: Any) -> None:
    raising = raises(RuntimeError())
    probes = {True: [True, lambda: True], False: [None, False, lambda: False, lambda needed: needed, raising]}
    for found, values in probes.items():
        for value in values:
            assert module._sdpa_is_available_probe(SimpleNamespace(probe=value), "probe") is found
    for backend in (None, SimpleNamespace(), type("Backend", (), {"probe": property(raising)})()):
        assert module._sdpa_is_available_probe(backend, "probe") is False


@pytest.mark.parametrize("enabled", [FLAGS, ("flash",), ("mem_efficient",), ()], ids=str)
def test_flags_that_leave_no_kernel_are_lifted_only_for_the_call(module: Any, sdpa: Any, enabled: Any) -> None:
    q, k, v = qkv(2, 2, 30, 16)
    attend = module.Attend(flash=True, scale=0.7)
    with only(*enabled):
        before = flags()
        try:
            sdpa.real(q, k, v)
            expected = [before]
        except RuntimeError:
            expected = [before, [True, True, True]]
        close(attend(q, k, v), reference(q, k, v, 0.7))
        assert (sdpa.calls, flags()) == (expected, before)
    assert attend.last_backend == "pytorch_sdpa"


def test_dropout_that_the_only_enabled_kernel_refuses_runs_silently(module: Any) -> None:
    attend = module.Attend(flash=True, dropout=0.2)
    with only("flash"), warnings.catch_warnings(record=True) as seen:
        assert attend(*qkv(1, 2, 30, 16)).isfinite().all()
    assert attend.last_backend == "pytorch_sdpa"
    assert [str(warning.message) for warning in seen if "sdp_kernel" not in str(warning.message)] == []


def test_torch_before_2_3_gets_the_old_context_manager(trees: Trees, sdpa: Any, monkeypatch: MonkeyPatch) -> None:
    sdpa.first = lambda: any(flags()) or raises(RuntimeError(FAILURE))()
    real, entered = torch.backends.cuda.sdp_kernel, []
    monkeypatch.setattr(torch.backends.cuda, "sdp_kernel", lambda **named: entered.append(named) or real(**named))
    with monkeypatch.context() as torch_2_2:
        torch_2_2.setitem(sys.modules, "torch.nn.attention", None)
        module = trees.load("patched", ATTEND)
    with only():
        close(module.Attend(flash=True)(*qkv(1, 2, 9, 16)), reference(*qkv(1, 2, 9, 16)))
    assert entered == [{"enable_flash": True, "enable_math": True, "enable_mem_efficient": True}]


def test_threads_that_lift_flags_at_once_do_not_interfere(module: Any, sdpa: Any) -> None:
    q, together, failed = qkv(2, 2, 16, 8), threading.Barrier(8, timeout=60), []

    def first() -> None:
        if threading.get_ident() not in failed:
            failed.append(threading.get_ident())
            together.wait()
            raise RuntimeError(FAILURE)
        time.sleep(0.004 * len(sdpa.calls))  # who enters later leaves later, and would leave the flags of the others

    def call(_: int) -> str:
        attend = module.Attend(flash=True)
        close(attend(*q), expected)
        return attend.last_backend

    expected = reference(*q)
    with only(), ThreadPoolExecutor(8) as pool:
        call(0)  # what is imported on first use adds to the filters
        before, filters, sdpa.first = flags(), list(warnings.filters), first
        assert list(pool.map(call, range(8))) == ["pytorch_sdpa"] * 8
        assert (flags(), warnings.filters) == (before, filters)


@pytest.mark.parametrize("text", [FAILURE, "unheard of"])
def test_einsum_computes_whatever_sdpa_raises(module: Any, sdpa: Any, capfd: Captured, text: str) -> None:
    sdpa.first = raises(RuntimeError(text))
    q, k, v = qkv(2, 2, 11, 8)
    for _ in range(2):
        attend = module.Attend(flash=True, scale=0.7)
        close(attend(q, k, v), reference(q, k, v, 0.7))
        assert attend.last_backend == "einsum"
    assert len(sdpa.calls) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), err.count(text)) == ("", 1, 1)


@pytest.mark.parametrize(("size", "dtype"), [(9, torch.float32), (8, torch.float64)])
def test_wrong_input_gets_einsums_error(module: Any, size: int, dtype: torch.dtype) -> None:
    q, k = torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, size, dtype=dtype)
    texts = []
    for flash in (False, True):
        with pytest.raises(RuntimeError) as caught:
            module.Attend(flash=flash)(q, k, k)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("enabled", [FLAGS, ()], ids=str)
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
        MemoryError(),
        TypeError("unexpected"),
    ],
    ids=repr,
)
def test_out_of_memory_is_raised_unchanged(module: Any, sdpa: Any, error: Exception, enabled: tuple[str, ...]) -> None:
    sdpa.first = raises(error)
    with only(*enabled), pytest.raises(type(error)) as caught:
        module.Attend(flash=True)(*qkv(1, 1, 4, 8))
    assert (caught.value, len(sdpa.calls)) == (error, 1)


@each_flash
@pytest.mark.parametrize(
    ("kind", "shape", "batches"),
    [
        (OnCuda, (65535, 1, 1, 1), [65535]),
        (OnCuda, (131072, 1, 1, 1), [65535, 65535, 2]),
        (OnMps, (419, 8, 801, 801), [209, 209, 1]),  # 210 * 8 * 801 * 801 is more than 2**30
        (OnMps, (420, 8, 1602, 400), [209, 209, 2]),
        (OnMps, (3, 1, 40000, 40000), [1, 1, 1]),
        (Tensor, (131072, 1, 1, 1), [131072]),
    ],
)
def test_a_batch_that_a_device_cannot_take_at_once_is_sliced(
    module: Any, monkeypatch: MonkeyPatch, flash: bool, kind: Any, shape: tuple[int, ...], batches: list[int]
) -> None:
    seen: list[int] = []

    def attention(q: Tensor, *_: Any, **__: Any) -> Tensor:
        seen.append(q.shape[0])
        return q.clone()

    place, name = (F, "scaled_dot_product_attention") if flash else (module, "_einsum_attn")
    monkeypatch.setattr(place, name, attention)
    batch, heads, queries, keys = shape
    q = torch.arange(batch).view(batch, 1, 1, 1).float().expand(batch, heads, queries, 1)
    k = torch.zeros(1, 1, 1, 1).expand(batch, heads, keys, 1)
    out = module.Attend(flash=flash).eval()(*on(kind, q, k, k))
    assert (seen, torch.equal(out.as_subclass(Tensor), q)) == (batches, True)


@each_flash
def test_slices_keep_results_and_gradients(module: Any, flash: bool) -> None:
    attend = module.Attend(flash=flash)
    plain, sliced = ([tensor.requires_grad_() for tensor in qkv(65537, 1, 2, 2)] for _ in range(2))
    outs = attend(*plain), attend(*on(OnCuda, *sliced)).as_subclass(Tensor)
    for out in outs:
        out.square().sum().backward()
    for one, other in zip([outs[0], *(t.grad for t in plain)], [outs[1], *(t.grad for t in sliced)], strict=True):
        close(other.as_subclass(Tensor), one, 1e-5)
    q, k, v = on(OnCuda, *qkv(65537, 1, 2, 2))
    with pytest.raises(ValueError, match="shorter"):
        attend(q, k[:1], v[:1])
    assert attend(q[:0], k[:0], v[:0]).shape == (0, 1, 2, 2)


@pytest.mark.parametrize(("debug", "silent"), [("", 1), ("0", 1), ("off", 1), ("1", 0), ("YES", 0)])
@pytest.mark.parametrize("text", NOISE)
def test_warnings_of_our_own_calls_are_silent_unless_debugging(
    trees: Trees, sdpa: Any, monkeypatch: MonkeyPatch, text: str, debug: str, silent: int
) -> None:
    raised = [(text, UserWarning), (text, RuntimeWarning), ("the flash in the pan", UserWarning)]

    def noise() -> None:
        for warning in raised:
            warnings.warn(*warning, stacklevel=3)  # as from torch, in the frame that called SDPA

    sdpa.first = noise
    monkeypatch.setenv("DSU_ATTENTION_DEBUG", debug)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        attend = trees.load("patched", ATTEND).Attend(flash=True)
        filters = list(warnings.filters)
        attend(*qkv(1, 1, 4, 8))
        assert warnings.filters == filters
        F.scaled_dot_product_attention(*qkv(1, 1, 4, 8))  # by another module
    assert [(str(warning.message), warning.category) for warning in seen] == [*raised[silent:], *raised]


def test_debugging_names_each_backend_once(trees: Trees, monkeypatch: MonkeyPatch, capfd: Captured) -> None:
    monkeypatch.setenv("DSU_ATTENTION_DEBUG", "1")
    module = trees.load("patched", ATTEND)
    for flash in (True, False):
        for dtype in (torch.bfloat16, torch.float32, torch.bfloat16):
            module.Attend(flash=flash)(*qkv(1, 1, 4, 24, dtype=dtype))
    out, err = capfd.readouterr()
    assert out == ""
    for line, backend in zip(err.splitlines(), ("pytorch_sdpa", "einsum"), strict=True):
        assert all(word in line for word in (backend, "cpu", "bfloat16", "24", "SageAttention"))


@pytest.mark.parametrize("debug", ["", "1"])
def test_standard_output_stays_empty_and_standard_error_may_be_missing(trees: Trees, debug: str) -> None:
    script = """if True:
        import io, sys, torch
        from pathlib import Path
        from tests.models.conftest import imports_from
        closed = io.StringIO()
        closed.close()
        with imports_from(Path(sys.argv[1])):
            import models.bs_roformer.attend as attend, models.bs_roformer.attend_sage
        def fail(*a, **k): raise RuntimeError("No available kernel. Aborting execution.")
        q = torch.randn(2, 2, 8, 64)
        for call in (torch.nn.functional.scaled_dot_product_attention, fail):
            torch.nn.functional.scaled_dot_product_attention = call
            for sys.stderr in (None, closed, sys.__stderr__):
                attend.Attend(flash=True)(q, q, q), attend.Attend(flash=False)(q, q, q)
    """
    command = [sys.executable, "-c", script, str(trees.patched)]
    env = {**os.environ, "DSU_ATTENTION_DEBUG": debug, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout == ""


def test_names_parameters_and_repr_equal_upstreams(module: Any, untouched: Any) -> None:
    ours, theirs = module.Attend(flash=True), untouched.Attend(flash=True)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == []
    assert repr(ours) == repr(theirs)
    assert {"FlashAttentionConfig", "exists", "default", "once", "print_once"} <= vars(module).keys()


@pytest.mark.parametrize("source", ["upstream", "patched"])
@pytest.mark.parametrize("name", ["attend", "attend_sage"])
def test_a_module_pickled_in_either_tree_runs_and_so_do_copies(trees: Trees, name: str, source: str) -> None:
    q, k, v = qkv(1, 2, 6, 8)
    with imports_from(getattr(trees, source)):
        data = pickle.dumps(importlib.import_module(f"models.bs_roformer.{name}").Attend(flash=True, scale=3))
    with imports_from(trees.patched):
        attend = pickle.loads(data)
        for made in (attend, copy.deepcopy(attend)):
            close(made(q, k, v), reference(q, k, v, 3))


@each_flash
@pytest.mark.parametrize(("device", "batches"), [("cpu", (2, 3, 4)), ("meta", (5, 6)), ("meta", (65537, 65538))])
def test_compiles_as_one_graph(module: Any, untouched: Any, flash: bool, device: str, batches: tuple[int, ...]) -> None:
    if not compiles():
        pytest.skip("this torch has no torch.compile for this Python")
    torch._dynamo.reset()
    one_graph = compiles(lambda x: x if x.is_cpu else -x)
    compiled = torch.compile(module.Attend(flash=flash, scale=0.5), fullgraph=one_graph, backend="eager")
    for batch in batches:
        for tokens in (12, 17):
            q, k, v = (tensor.to(device) for tensor in qkv(batch, 1, tokens, 4))
            out = compiled(q, k, v)
            assert out.shape == q.shape
            if device == "cpu":
                close(out, reference(q, k, v, 0.5))
    if not one_graph:
        pytest.skip("right, but in several graphs: this torch cannot trace Tensor.is_cpu")
    if flash:
        with pytest.raises(torch._dynamo.exc.Unsupported):
            torch.compile(untouched.Attend(flash=True), fullgraph=True, backend="eager")(*qkv(1, 1, 4, 8))


@pytest.mark.parametrize("dynamic", [False, True])
@each_flash
def test_exports(module: Any, flash: bool, dynamic: bool) -> None:
    if not hasattr(torch, "export") or (dynamic and not hasattr(torch.export, "Dim")):
        pytest.skip("this torch has no torch.export, or no torch.export.Dim")
    named = {"dynamic_shapes": [{0: torch.export.Dim("batch", min=2, max=64)}] * 3} if dynamic else {}
    attend = module.Attend(flash=flash, scale=0.4).eval()
    if not hasattr(torch.compiler, "is_compiling"):  # then `last_backend` has to be what it will be
        attend(*qkv(4, 2, 12, 16))
    program = torch.export.export(attend, qkv(4, 2, 12, 16), **named)
    run = program.module() if hasattr(program, "module") else program
    more = qkv(9 if dynamic else 4, 2, 12, 16, seed=1)
    close(run(*more), reference(*more, 0.4))
