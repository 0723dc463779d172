"""The attention of both patched modules, beside the untouched one and a float64 einsum."""

import builtins
import copy
import io
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.models.conftest import ATTEND, SAGE, Trees, imports_from
from tests.models.standins import OnCuda, OnMps, compiles, on, qkv, reference

# Against float64, normal input, head size 64: a handful of units in the last place of each dtype.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
NO_KERNEL = (
    "No available kernel. Aborting execution.",
    "No available kernel.  Aborting execution.",
    "No viable backend for scaled_dot_product_attention was found. This is likely due to turning off both.",
)
NOISE = (
    "Torch was not compiled with flash attention. (Triggered internally at C:\\somewhere\\sdp_utils.cpp:263.)",
    "1Torch was not compiled with flash attention.",
    "Flash attention kernel not used because:",
    "Memory efficient kernel not used because:",
    "CuDNN attention kernel not used because:",
    "Both fused kernels do not support non-zero dropout. (Triggered internally at /pytorch/sdp_utils_cpp.h:241.)",
)
HELPERS = ("_sdpa_is_available_probe", "_sdpa_call", "_einsum_attn", "_sage_attn", "_sage_can_take", "Attend")
FLAGS = ("flash", "mem_efficient", "math")


@pytest.fixture(params=[ATTEND, SAGE], ids=["attend", "attend_sage"])
def module(request: pytest.FixtureRequest, trees: Trees) -> Any:
    """Each of the two patched modules, imported for this test alone."""
    return trees.load("patched", request.param)


@pytest.fixture
def code(module: Any) -> dict[str, Any]:
    """The globals that the attention code of `module` runs on, wherever it stands."""
    return module.Attend.forward.__globals__


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


def failing_sdpa(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Make SDPA raise `error`; the list grows by one with each try."""
    tries: list[int] = []

    def fail(*_: Any, **__: Any) -> Tensor:
        tries.append(1)
        raise error

    monkeypatch.setattr(F, "scaled_dot_product_attention", fail)
    return tries


def half_sdpa_works() -> bool:
    try:
        F.scaled_dot_product_attention(*qkv(1, 1, 2, 8, dtype=torch.float16))
    except RuntimeError:  # torch 2.0 has no half-precision matrix product on the CPU
        return False
    return True


# results


@pytest.mark.parametrize("scale", [None, 8.0, 0.05])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_flash_attention_is_right(module: Any, dtype: torch.dtype, scale: float | None) -> None:
    if dtype is torch.float16 and not half_sdpa_works():
        pytest.skip("this torch has no float16 SDPA on the CPU")
    q, k, v = qkv(3, 4, 70, 64)
    if scale == 8.0:
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)  # as LinearAttention does, whose scale it is
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    attend = module.Attend(flash=True, scale=scale).eval()
    out = attend(q, k, v)
    assert out.dtype == dtype
    assert attend.last_backend == "pytorch_sdpa"
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out.double(), reference(q, k, v, scale), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("scale", [None, 8])
def test_flash_attention_and_its_gradients_are_upstreams(module: Any, untouched: Any, scale: float | None) -> None:
    results = []
    for source in (untouched, module):
        q, k, v = qkv(2, 3, 33, 32)
        if scale:
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        tensors = [tensor.requires_grad_() for tensor in (q, k, v)]
        out = source.Attend(flash=True, scale=scale)(*tensors)
        out.square().sum().backward()
        results.append([out.detach(), *(tensor.grad for tensor in tensors)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scale", [None, 8])
def test_einsum_attention_is_upstreams_to_the_bit(
    module: Any, untouched: Any, scale: float | None, training: bool
) -> None:
    outs = []
    for source in (untouched, module):
        torch.manual_seed(3)
        outs.append(source.Attend(flash=False, dropout=0.3, scale=scale).train(training)(*qkv(2, 3, 17, 24)))
    assert torch.equal(*outs)


def test_flash_false_never_asks_sdpa(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = failing_sdpa(monkeypatch, RuntimeError("asked"))
    attend = module.Attend(flash=False).eval()
    attend(*qkv(1, 2, 5, 8))
    assert not tries
    assert attend.last_backend == "einsum"


def test_dropout_happens_only_in_training(module: Any) -> None:
    q, k, v = qkv(2, 2, 40, 16)
    attend = module.Attend(flash=True, dropout=0.5)
    torch.testing.assert_close(attend.eval()(q, k, v), module.Attend(flash=True).eval()(q, k, v), atol=0, rtol=0)
    attend.train()
    torch.manual_seed(0)
    first, second = attend(q, k, v), attend(q, k, v)
    assert not torch.allclose(first, second)
    ones = torch.ones_like(v)  # rows of the attention matrix, which dropout rescales to a mean of one
    mean = torch.stack([attend(q, k, ones).mean() for _ in range(50)]).mean()
    assert abs(mean.item() - 1) < 0.1


def test_input_is_left_as_it_was(module: Any) -> None:
    tensors = qkv(1, 2, 9, 16)
    before = [tensor.clone() for tensor in tensors]
    module.Attend(flash=True, scale=8).eval()(*tensors)
    assert all(torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True))


def test_both_modules_offer_all_helpers_and_the_code_stands_once(trees: Trees) -> None:
    trees.need(ATTEND, SAGE)
    with imports_from(trees.patched):
        from models.bs_roformer import attend, attend_sage

        for name in HELPERS:
            assert getattr(attend_sage, name) is getattr(attend, name)


# scale


@pytest.mark.parametrize("scale", [None, 8, 0.3])
def test_scale_is_the_same_on_every_path(module: Any, monkeypatch: pytest.MonkeyPatch, scale: float | None) -> None:
    q, k, v = qkv(2, 2, 21, 16)
    expected = reference(q, k, v, scale).float()
    close = {"atol": 5e-6, "rtol": 5e-6}
    attend = module.Attend(flash=True, scale=scale).eval()
    torch.testing.assert_close(attend(q, k, v), expected, **close)
    with only():
        torch.testing.assert_close(attend(q, k, v), expected, **close)
    failing_sdpa(monkeypatch, RuntimeError(NO_KERNEL[0]))
    torch.testing.assert_close(attend(q, k, v), expected, **close)
    assert attend.last_backend == "einsum"


@pytest.mark.parametrize("scale", [None, 8])
def test_scale_without_sdpas_own_parameter(
    module: Any, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch, scale: float | None
) -> None:
    real = F.scaled_dot_product_attention

    def of_torch_2_0(
        q: Tensor, k: Tensor, v: Tensor, attn_mask: None = None, dropout_p: float = 0.0, is_causal: bool = False
    ) -> Tensor:
        return real(q, k, v, attn_mask, dropout_p, is_causal)

    monkeypatch.setattr(F, "scaled_dot_product_attention", of_torch_2_0)
    monkeypatch.setitem(code, "SDPA_TAKES_SCALE", False)
    q, k, v = qkv(2, 2, 21, 16)
    out = module.Attend(flash=True, scale=scale).eval()(q, k, v)
    torch.testing.assert_close(out, reference(q, k, v, scale).float(), atol=5e-6, rtol=5e-6)


def test_whether_sdpa_takes_a_scale_is_known(code: dict[str, Any]) -> None:
    try:
        F.scaled_dot_product_attention(*qkv(1, 1, 2, 8), scale=1.0)
        takes = True
    except TypeError:
        takes = False
    assert code["SDPA_TAKES_SCALE"] is takes


# probes and kernels


def raising() -> bool:
    raise RuntimeError("no such thing")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, False),
        ({"probe": None}, False),
        ({"probe": "text"}, True),
        ({"probe": True}, True),
        ({"probe": False}, False),
        ({"probe": lambda: True}, True),
        ({"probe": lambda: False}, False),
        ({"probe": lambda: None}, False),
        ({"probe": raising}, False),
        ({"probe": lambda needed: needed}, False),
        ({"probe": property(lambda _: raising())}, False),
    ],
)
def test_a_probe_never_raises(module: Any, attributes: dict[str, Any], expected: bool) -> None:
    backend = type("Backend", (), {name: staticmethod(v) if callable(v) else v for name, v in attributes.items()})()
    assert module._sdpa_is_available_probe(backend, "probe") is expected


def test_a_probe_of_no_backend_at_all_is_false(module: Any) -> None:
    assert module._sdpa_is_available_probe(None, "math_sdp_enabled") is False


def test_the_probe_that_is_used_is_true_on_a_stock_build(module: Any) -> None:
    assert module._sdpa_is_available_probe(torch.backends.cuda, "math_sdp_enabled") is True


def test_a_stock_build_gets_a_plain_call(module: Any, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(code, "sdpa_context", lambda: pytest.fail("a context was entered"))
    before = flags()
    module.Attend(flash=True).eval()(*qkv(1, 2, 9, 16))
    assert flags() == before


@pytest.mark.parametrize("enabled", [(), ("mem_efficient",)], ids=["none", "one that the CPU lacks"])
def test_flags_that_leave_no_kernel_are_lifted_for_the_call_alone(module: Any, enabled: tuple[str, ...]) -> None:
    q, k, v = qkv(2, 2, 30, 16)
    attend = module.Attend(flash=True).eval()
    with only(*enabled):
        before = flags()
        out = attend(q, k, v)
        assert flags() == before
    assert attend.last_backend == "pytorch_sdpa"
    torch.testing.assert_close(out.double(), reference(q, k, v), atol=2e-6, rtol=2e-6)


def test_the_one_enabled_kernel_is_used_where_it_can_be(
    module: Any, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(code, "sdpa_context", lambda: pytest.fail("a context was entered"))
    q, k, v = qkv(2, 2, 30, 16)
    with only("flash"):
        try:
            F.scaled_dot_product_attention(q, k, v)
        except RuntimeError:
            pytest.skip("this torch has no fused attention on the CPU")
        module.Attend(flash=True).eval()(q, k, v)


def test_dropout_that_the_one_enabled_kernel_refuses_still_runs(module: Any) -> None:
    with only("flash"):
        out = module.Attend(flash=True, dropout=0.2).train()(*qkv(1, 2, 30, 16))
    assert out.isfinite().all()


def test_no_kernel_with_every_flag_up_enters_no_context(
    module: Any, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(code, "sdpa_context", lambda: pytest.fail("a context was entered"))
    tries = failing_sdpa(monkeypatch, RuntimeError(NO_KERNEL[0]))
    attend = module.Attend(flash=True).eval()
    attend(*qkv(1, 1, 4, 8))
    assert (attend.last_backend, len(tries)) == ("einsum", 1)


def test_one_thread_at_a_time_is_in_the_context_and_none_is_led_to_einsum(
    module: Any, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with only():
        try:
            F.scaled_dot_product_attention(*qkv(1, 1, 4, 8))
        except RuntimeError:
            pass
        else:
            pytest.skip("this torch has an attention on the CPU that no flag disables")
    real, inside, most, backends = code["sdpa_context"], [0], [0], set()

    @contextmanager
    def slow() -> Iterator[None]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        with real():
            time.sleep(0.01)
            yield
        inside[0] -= 1

    monkeypatch.setitem(code, "sdpa_context", slow)

    def call() -> None:
        attend = module.Attend(flash=True).eval()
        for _ in range(4):
            attend(*qkv(1, 1, 4, 8))
            backends.add(attend.last_backend)

    with only():
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (most[0], backends) == (1, {"pytorch_sdpa"})


def test_the_context_names_real_members_and_math(code: dict[str, Any]) -> None:
    context = code["sdpa_context"]
    try:
        from torch.nn.attention import SDPBackend
    except ImportError:
        assert context.keywords == {"enable_flash": True, "enable_math": True, "enable_mem_efficient": True}
    else:
        [members] = context.args
        assert isinstance(members, list)
        assert SDPBackend.MATH in members
        assert all(isinstance(member, SDPBackend) for member in members)


def test_torch_before_2_3_gets_the_old_context(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as torch_2_2:
        torch_2_2.setitem(sys.modules, "torch.nn.attention", None)
        module = trees.load("patched", ATTEND)
    assert module.sdpa_context.func is torch.backends.cuda.sdp_kernel
    q, k, v = qkv(1, 2, 9, 16)
    with only(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is deprecated in the torch that runs this
        out = module.Attend(flash=True).eval()(q, k, v)
    torch.testing.assert_close(out.double(), reference(q, k, v), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("text", NO_KERNEL)
def test_no_kernel_leads_to_einsum(module: Any, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    failing_sdpa(monkeypatch, RuntimeError(text))
    q, k, v = qkv(2, 2, 11, 8)
    attend = module.Attend(flash=True).eval()
    torch.testing.assert_close(attend(q, k, v).double(), reference(q, k, v), atol=2e-6, rtol=2e-6)
    assert attend.last_backend == "einsum"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
        MemoryError(),
        TypeError("unexpected"),
    ],
    ids=repr,
)
def test_any_other_error_is_raised_as_it_is(module: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    tries = failing_sdpa(monkeypatch, error)
    with pytest.raises(type(error)) as caught:
        module.Attend(flash=True).eval()(*qkv(1, 1, 4, 8))
    assert caught.value is error
    assert len(tries) == 1


# limits


def spy_on_sdpa(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch of each SDPA call."""
    real = F.scaled_dot_product_attention
    batches: list[int] = []

    def spy(q: Tensor, *rest: Any, **named: Any) -> Tensor:
        batches.append(q.shape[0])
        return real(q, *rest, **named)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return batches


def test_the_limits_are_those_of_the_devices(code: dict[str, Any]) -> None:
    assert code["MAX_BATCH"] == {"cuda": 65535}
    assert code["MAX_SCORES"] == {"mps": 2**30}


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize(
    ("kind", "limits", "batches"),
    [
        (OnCuda, {"MAX_BATCH": {"cuda": 3}}, [3, 3, 1]),
        (OnCuda, {"MAX_BATCH": {"cuda": 7}}, [7]),
        (OnMps, {"MAX_SCORES": {"mps": 2 * 5 * 5 * 4}}, [4, 3]),
        (OnMps, {"MAX_SCORES": {"mps": 1}}, [1] * 7),
        (OnMps, {"MAX_BATCH": {"cuda": 3}}, [7]),
    ],
)
def test_what_a_device_cannot_take_at_once_is_sliced(
    module: Any,
    code: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    flash: bool,
    kind: type[Tensor],
    limits: dict[str, Any],
    batches: list[int],
) -> None:
    q, k, v = qkv(7, 2, 5, 8)
    whole = module.Attend(flash=flash, scale=0.7).eval()(q, k, v)
    for name, value in limits.items():
        monkeypatch.setitem(code, name, value)
    seen = spy_on_sdpa(monkeypatch)
    out = module.Attend(flash=flash, scale=0.7).eval()(*on(kind, q, k, v))
    torch.testing.assert_close(out.as_subclass(Tensor), whole, atol=1e-6, rtol=1e-6)
    if flash:
        assert seen == batches


def test_gradients_flow_through_slices(module: Any, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [tensor.requires_grad_() for tensor in qkv(5, 2, 6, 8)]
    module.Attend(flash=True)(*plain).square().sum().backward()
    monkeypatch.setitem(code, "MAX_BATCH", {"cuda": 2})
    sliced = [tensor.requires_grad_() for tensor in qkv(5, 2, 6, 8)]
    module.Attend(flash=True)(*on(OnCuda, *sliced)).square().sum().backward()
    for one, other in zip(plain, sliced, strict=True):
        torch.testing.assert_close(one.grad, other.grad.as_subclass(Tensor), atol=1e-5, rtol=1e-5)


def test_unequal_batches_are_never_cut_to_the_shortest(
    module: Any, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(code, "MAX_BATCH", {"cuda": 3})
    q, k, v = qkv(7, 2, 5, 8)
    with pytest.raises(ValueError, match="shorter"):
        module.Attend(flash=True).eval()(*on(OnCuda, q, k[:1], v[:1]))


@pytest.mark.parametrize("flash", [True, False])
def test_an_empty_batch_gives_an_empty_result(module: Any, flash: bool) -> None:
    q, k, v = qkv(0, 2, 6, 8)
    assert module.Attend(flash=flash).eval()(q, k, v).shape == (0, 2, 6, 8)
    assert module.Attend(flash=flash).eval()(*on(OnCuda, q, k, v)).shape == (0, 2, 6, 8)


# warnings


def noisy_sdpa(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Make SDPA warn as it does in the wild, from the frame that called it."""
    real = F.scaled_dot_product_attention

    def warn(*arguments: Any, **named: Any) -> Tensor:
        for text in texts:
            warnings.warn(text, UserWarning, stacklevel=2)
        return real(*arguments, **named)

    monkeypatch.setattr(F, "scaled_dot_product_attention", warn)


@pytest.mark.parametrize("text", NOISE)
def test_known_noise_is_silent_even_after_simplefilter_always(
    module: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    noisy_sdpa(monkeypatch, text)
    attend = module.Attend(flash=True).eval()
    with warnings.catch_warnings(record=True) as seen:
        for _ in range(2):
            warnings.simplefilter("always")
            attend(*qkv(1, 1, 4, 8))
    assert not seen


def test_real_noise_is_silent(module: Any) -> None:
    with only("flash"), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        module.Attend(flash=True, dropout=0.5).train()(*qkv(1, 2, 8, 8))
    assert [str(warning.message) for warning in seen if "sdp_kernel" not in str(warning.message)] == []


@pytest.mark.parametrize("category", [UserWarning, RuntimeWarning, FutureWarning])
def test_every_other_warning_passes(module: Any, monkeypatch: pytest.MonkeyPatch, category: type[Warning]) -> None:
    real = F.scaled_dot_product_attention

    def warn(*arguments: Any, **named: Any) -> Tensor:
        warnings.warn("the flash in the pan", category, stacklevel=2)
        return real(*arguments, **named)

    monkeypatch.setattr(F, "scaled_dot_product_attention", warn)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        module.Attend(flash=True).eval()(*qkv(1, 1, 4, 8))
    assert [warning.category for warning in seen] == [category]


@pytest.mark.parametrize("action", ["default", "once", "module"])
def test_once_only_warnings_stay_once_only(module: Any, action: Any) -> None:
    attend = module.Attend(flash=True).eval()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter(action)
        for _ in range(3):
            warnings.warn("said once", UserWarning, stacklevel=1)
            attend(*qkv(1, 1, 4, 8))
    assert len(seen) == 1


def test_a_process_gains_one_filter_however_many_threads_call(module: Any) -> None:
    tensors = qkv(1, 1, 4, 8)
    with warnings.catch_warnings():
        before = len(warnings.filters)

        def call() -> None:
            for number in range(50):
                if number % 10 == 0:
                    warnings.filterwarnings("ignore", message="something of the application's")
                module.Attend(flash=True).eval()(*tensors)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        application = [entry for entry in warnings.filters if entry[1] and "application" in entry[1].pattern]
        assert len(warnings.filters) - before - len(application) <= 1


@pytest.mark.parametrize("value", ["1", "true", "YES", "On"])
def test_debug_hides_nothing(module: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DSU_ATTENTION_DEBUG", value)
    noisy_sdpa(monkeypatch, *NOISE)
    attend = module.Attend(flash=True).eval()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        attend(*qkv(1, 1, 4, 8))
    assert [str(warning.message) for warning in seen] == list(NOISE)


def test_debug_undoes_what_an_earlier_module_hid(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy_sdpa(monkeypatch, NOISE[0])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        module.Attend(flash=True).eval()(*qkv(1, 1, 4, 8))
        assert not seen
        monkeypatch.setenv("DSU_ATTENTION_DEBUG", "1")
        module.Attend(flash=True).eval()(*qkv(1, 1, 4, 8))
    assert len(seen) == 1


def test_a_call_looks_nothing_up(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attend = module.Attend(flash=True, scale=0.3).eval()
    tensors = qkv(1, 1, 4, 8)
    attend(*tensors)

    def looked_up(*_: Any, **__: Any) -> None:
        raise AssertionError("looked up")

    with monkeypatch.context() as closed:
        for name in ("compile", "match", "search", "sub"):
            closed.setattr(re, name, looked_up)
        closed.setattr(os, "getenv", looked_up)
        closed.setattr(type(os.environ), "__getitem__", looked_up)
        closed.setattr(builtins, "__import__", looked_up)  # last, since setattr imports
        attend(*tensors)


@pytest.mark.parametrize("value", ["", "0", "false", "off", "no"])
def test_debug_is_off_for_anything_else(module: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DSU_ATTENTION_DEBUG", value)
    assert module.Attend(flash=True).debug is False


# output


def test_standard_output_stays_empty_from_import_to_last_call(trees: Trees) -> None:
    trees.need(ATTEND, SAGE)
    script = """
        import sys, torch
        import torch.nn.functional as F
        sys.path.insert(0, {tree!r})
        for name in ("models", "models.bs_roformer"):
            sys.modules[name] = type(sys)(name)
            sys.modules[name].__path__ = [{tree!r} + "/" + name.replace(".", "/")]
        import models.bs_roformer.attend as attend, models.bs_roformer.attend_sage as sage
        print("imported", file=sys.stderr)
        def fail(*a, **k): raise RuntimeError("No available kernel. Aborting execution.")
        q = torch.randn(2, 2, 8, 64)
        real = F.scaled_dot_product_attention
        for module in (attend, sage):
            for flash in (True, False):
                for call in (real, fail):
                    F.scaled_dot_product_attention = call
                    module.Attend(flash=flash)(q, q, q)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script).format(tree=str(trees.patched))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    before, after = done.stderr.split("imported\n")
    assert before == ""
    # One message for four failing calls.
    assert after.count("no kernel") == 1


def test_messages_are_said_once_each_and_none_swallows_another(
    module: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for text in (*NO_KERNEL, *NO_KERNEL):
        failing_sdpa(monkeypatch, RuntimeError(text))
        module.Attend(flash=True).eval()(*qkv(1, 1, 4, 8))
    assert len(caplog.messages) == len(NO_KERNEL)
    for text in NO_KERNEL:
        assert sum(text in message for message in caplog.messages) == 1


# the system


def test_windows_and_new_gpus_are_no_special_cases(
    module: Any, code: dict[str, Any], untouched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream chose other kernels there, of which none took float32 on Linux."""
    asked: list[str] = []

    def properties(*_: Any) -> Any:
        asked.append("properties")
        return SimpleNamespace(major=8, minor=9)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    results = []
    q, k, v = on(OnCuda, *qkv(2, 2, 9, 16))
    for name in ("posix", "nt"):
        system = SimpleNamespace(**{**vars(os), "name": name})
        for code_globals in (code, vars(untouched)):
            monkeypatch.setitem(code_globals, "os", system)
        attend = module.Attend(flash=True).eval()
        results.append(attend(q, k, v))
        assert (asked, attend.last_backend) == ([], "pytorch_sdpa")
        assert untouched.Attend(flash=True).cuda_config.enable_flash == (name == "posix")
        assert asked.pop() == "properties"
    assert torch.equal(*results)


# the module as an object


def test_state_dict_names_and_repr_are_upstreams(module: Any, untouched: Any) -> None:
    ours, theirs = module.Attend(flash=True), untouched.Attend(flash=True)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == []
    assert repr(ours) == repr(theirs)
    for name in ("FlashAttentionConfig", "exists", "default", "once", "print_once"):
        assert hasattr(module, name)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_work(trees: Trees, copier: Callable[[Any], Any]) -> None:
    q, k, v = qkv(1, 2, 6, 8)
    with imports_from(trees.patched):
        from models.bs_roformer.attend import Attend

        attend = Attend(flash=True, scale=3).eval()
        first = attend(q, k, v)
        assert torch.equal(copier(attend)(q, k, v), first)


def test_a_module_pickled_by_upstream_runs(trees: Trees) -> None:
    q, k, v = qkv(1, 2, 6, 8)
    with imports_from(trees.upstream):
        from models.bs_roformer.attend import Attend

        data = io.BytesIO()
        torch.save(Attend(flash=True, scale=3).eval(), data)
    data.seek(0)
    with imports_from(trees.patched):
        loaded = torch.load(data, weights_only=False)
        torch.testing.assert_close(loaded(q, k, v).double(), reference(q, k, v, 3), atol=5e-6, rtol=5e-6)


SEVERAL_GRAPHS = "right, but in several graphs: this torch cannot trace Tensor.is_cpu"


@pytest.fixture
def one_graph() -> bool:
    """Whether one graph can be asked for. Where it cannot, results still have to be right before a test is skipped."""
    if not compiles():
        pytest.skip("this torch has no torch.compile for this Python")
    torch._dynamo.reset()
    return compiles(lambda x: x if x.is_cpu else -x)


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("flash", [True, False])
def test_compiles_as_one_graph(module: Any, one_graph: bool, flash: bool, scale: float | None) -> None:
    attend = module.Attend(flash=flash, scale=scale).eval()
    compiled = torch.compile(attend, fullgraph=one_graph, backend="eager")
    for batch, tokens in ((2, 12), (3, 12), (3, 17), (4, 31)):
        q, k, v = qkv(batch, 2, tokens, 16)
        torch.testing.assert_close(compiled(q, k, v).double(), reference(q, k, v, scale), atol=5e-6, rtol=5e-6)
    if not one_graph:
        pytest.skip(SEVERAL_GRAPHS)


def test_upstream_does_not_compile_as_one_graph(untouched: Any) -> None:
    if not compiles():
        pytest.skip("this torch has no torch.compile for this Python")
    torch._dynamo.reset()
    compiled = torch.compile(untouched.Attend(flash=True).eval(), fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(*qkv(1, 1, 4, 8))


@pytest.mark.parametrize("limit", [2, 65535])
def test_compiles_off_the_cpu_for_any_number_of_tokens(
    module: Any, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch, one_graph: bool, limit: int
) -> None:
    monkeypatch.setitem(code, "MAX_BATCH", {"meta": limit})
    compiled = torch.compile(module.Attend(flash=True).eval(), fullgraph=one_graph, backend="eager")
    for tokens in (12, 13, 29):
        q, k, v = (tensor.to("meta") for tensor in qkv(5, 2, tokens, 16))
        assert compiled(q, k, v).shape == (5, 2, tokens, 16)
    if not one_graph:
        pytest.skip(SEVERAL_GRAPHS)


@pytest.mark.parametrize("flash", [True, False])
def test_exports(module: Any, flash: bool) -> None:
    if not hasattr(torch, "export"):
        pytest.skip("this torch has no torch.export")
    q, k, v = qkv(2, 2, 12, 16)
    program = torch.export.export(module.Attend(flash=flash, scale=0.4).eval(), (q, k, v))
    run = program.module() if hasattr(program, "module") else program
    torch.testing.assert_close(run(q, k, v).double(), reference(q, k, v, 0.4), atol=5e-6, rtol=5e-6)


def test_exports_with_a_dynamic_batch(module: Any) -> None:
    if not hasattr(getattr(torch, "export", None), "Dim"):
        pytest.skip("this torch has no torch.export.Dim")
    batch = torch.export.Dim("batch", min=2, max=64)
    q, k, v = qkv(4, 2, 12, 16)
    program = torch.export.export(module.Attend(flash=True).eval(), (q, k, v), dynamic_shapes=[{0: batch}] * 3)
    more = qkv(9, 2, 12, 16, seed=1)
    torch.testing.assert_close(program.module()(*more).double(), reference(*more), atol=5e-6, rtol=5e-6)


@pytest.mark.parametrize("enabled", [FLAGS, ()], ids=["stock flags", "no flags"])
def test_eight_threads_are_right_and_leave_the_process_alone(module: Any, enabled: tuple[str, ...]) -> None:
    wrong: list[float] = []

    def call(seed: int) -> None:
        attend = module.Attend(flash=True, scale=1 + seed).eval()
        q, k, v = qkv(2, 2, 16, 8, seed=seed)
        expected = reference(q, k, v, 1 + seed)
        for _ in range(40):
            error = (attend(q, k, v).double() - expected).abs().max().item()
            if error > 1e-5:
                wrong.append(error)

    with only(*enabled):
        before = flags()
        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert flags() == before
    assert not wrong
