"""SageAttention in the chain of both patched modules, with a stand-in for the package and for the GPU."""

import copy
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.models.conftest import ATTEND, SAGE, Trees
from tests.models.standins import OnCuda, OnMps, Sage, on, own_error, qkv, reference

HALF = torch.bfloat16
OOM = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
    RuntimeError("CUDA error: out of memory"),
    MemoryError(),
]
FAILURES = [
    RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    AssertionError("headdim should be in [64, 96, 128]."),
    OSError("could not get source code"),
    ImportError("DLL load failed"),
    ValueError("out of resource: shared memory"),
]
# 0.004 measured, where torch's own attention is not off by more.
TOLERANCE = max(2e-2, 1.1 * own_error(*qkv(2, 2, 64, 64, dtype=HALF), scale=0.5))


@pytest.fixture
def load(trees: Trees, request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Import the module under test, once SageAttention is as the test wants it."""
    return lambda: trees.load("patched", request.param)


both = pytest.mark.parametrize("load", [ATTEND, SAGE], ids=["attend", "attend_sage"], indirect=True)


def cuda_qkv(*shape: int, dtype: torch.dtype = HALF, seed: int = 0) -> list[Tensor]:
    return on(OnCuda, *qkv(*(shape or (2, 2, 64, 64)), dtype=dtype, seed=seed))


def close(out: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> None:
    plain = [t.as_subclass(Tensor) for t in (q, k, v)]
    torch.testing.assert_close(
        out.as_subclass(Tensor).double(), reference(*plain, scale), atol=TOLERANCE, rtol=TOLERANCE
    )


# import


@both
@pytest.mark.parametrize(
    "error", [ImportError("no triton"), OSError("could not get source code"), RuntimeError("no compiler")], ids=repr
)
def test_whatever_the_import_raises_means_not_there(
    load: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Any,
    error: Exception,
) -> None:
    (tmp_path / "sageattention.py").write_text(f"raise {type(error).__name__}({str(error)!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sageattention", raising=False)
    importlib.invalidate_caches()
    module = load()
    assert capfd.readouterr() == ("", "")
    assert not caplog.messages
    attend = module.Attend(flash=True).eval()
    assert attend.use_sage is False
    q, k, v = cuda_qkv()
    close(attend(q, k, v), q, k, v)
    monkeypatch.setenv("DSU_ATTENTION_DEBUG", "1")
    module.Attend(flash=True)
    module.Attend(flash=True)
    [message] = caplog.messages
    assert type(error).__name__ in message
    assert str(error) in message


@both
@pytest.mark.parametrize("value", ["1", "true", "Yes", "ON"])
def test_it_can_be_disabled(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    sage = Sage()
    sage.install(monkeypatch)
    module = load()
    monkeypatch.setenv("DSU_DISABLE_SAGEATTN", value)
    attend = module.Attend(flash=True).eval()
    attend(*cuda_qkv())
    assert (attend.use_sage, attend.last_backend, sage.calls) == (False, "pytorch_sdpa", [])


# when it runs


@both
@pytest.mark.parametrize("scale", [None, 0.5])
def test_it_runs_where_it_can(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, scale: float | None) -> None:
    sage = Sage()
    sage.install(monkeypatch)
    attend = load().Attend(flash=True, scale=scale).eval()
    q, k, v = cuda_qkv()
    before = k.clone()
    close(attend(q, k, v), q, k, v, scale)
    assert torch.equal(k, before)
    assert attend.last_backend == "sageattention"
    assert sage.calls == [{"tensor_layout": "HND", "is_causal": False, "sm_scale": scale or 64**-0.5}]


@both
def test_parameters_that_need_a_gradient_do_not_matter_without_autograd(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Sage().install(monkeypatch)
    attend = load().Attend(flash=True)
    q, k, v = cuda_qkv()
    q.requires_grad_()
    with torch.no_grad():
        attend(q, k, v)
    assert attend.last_backend == "sageattention"


def strided(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


@both
@pytest.mark.parametrize(
    ("version", "make"),
    [
        (None, lambda: list(qkv(2, 2, 64, 64, dtype=HALF))),
        (None, lambda: on(OnMps, *qkv(2, 2, 64, 64, dtype=HALF))),
        (None, lambda: cuda_qkv(2, 2, 64, 64, dtype=torch.float32)),
        (2, lambda: cuda_qkv(2, 2, 64, 64, dtype=torch.float32)),
        (1, lambda: cuda_qkv(2, 2, 64, 64, dtype=torch.float64)),
        (None, lambda: cuda_qkv(2, 2, 64, 80)),
        (1, lambda: cuda_qkv(2, 2, 64, 32)),
        (2, lambda: cuda_qkv(2, 2, 64, 192)),
        (1, lambda: cuda_qkv(2, 2, 60, 64)),
        (None, lambda: [*cuda_qkv()[:2], cuda_qkv(2, 2, 64, 96)[2]]),
        (None, lambda: [strided(tensor) for tensor in cuda_qkv()]),
        (None, lambda: [*cuda_qkv()[:2], strided(cuda_qkv()[2])]),
        (None, lambda: [tensor.requires_grad_() for tensor in cuda_qkv()]),
        (None, lambda: [*cuda_qkv()[:2], cuda_qkv()[2].requires_grad_()]),
    ],
    ids=[
        "cpu",
        "mps",
        "float32, unknown version",
        "float32, version 2",
        "float64",
        "head size 80",
        "head size 32, version 1",
        "head size 192, version 2",
        "60 keys, version 1",
        "head size of v",
        "strides",
        "stride of v",
        "gradient",
        "gradient of v",
    ],
)
def test_a_call_that_does_not_qualify_goes_to_sdpa_and_changes_nothing(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, version: int | None, make: Callable[[], list[Tensor]]
) -> None:
    sage = Sage()
    sage.install(monkeypatch, version)
    attend = load().Attend(flash=True)
    q, k, v = make()
    close(attend(q, k, v).detach(), q.detach(), k.detach(), v.detach())
    assert (attend.last_backend, sage.calls) == ("pytorch_sdpa", [])
    attend(*cuda_qkv())
    assert attend.last_backend == "sageattention"


@both
def test_unequal_dtypes_are_never_given_to_it(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sage = Sage()
    sage.install(monkeypatch)
    q, k, v = cuda_qkv()
    with pytest.raises(RuntimeError, match="dtype"):  # SDPA's own word on it
        load().Attend(flash=True)(q, k, v.half())
    assert not sage.calls


@both
def test_flash_false_never_asks_it(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sage = Sage()
    sage.install(monkeypatch)
    attend = load().Attend(flash=False).eval()
    attend(*cuda_qkv())
    assert (attend.use_sage, attend.last_backend, sage.calls) == (False, "einsum", [])


@both
def test_dropout_keeps_it_out_only_while_training(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Sage().install(monkeypatch)
    attend = load().Attend(flash=True, dropout=0.1)
    attend.train()(*cuda_qkv())
    assert attend.last_backend == "pytorch_sdpa"
    attend.eval()(*cuda_qkv())
    assert attend.last_backend == "sageattention"


@both
@pytest.mark.parametrize(
    ("version", "shape", "dtype"),
    [
        (1, (2, 2, 64, 96), HALF),
        (1, (2, 2, 128, 128), torch.float16),
        (1, (2, 2, 64, 64), torch.float32),
        (2, (2, 2, 61, 32), HALF),
        (2, (2, 2, 61, 80), torch.float16),
        (None, (2, 2, 61, 96), HALF),
    ],
)
def test_what_a_version_takes_it_gets(
    load: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    version: int | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    Sage().install(monkeypatch, version)
    attend = load().Attend(flash=True).eval()
    q, k, v = cuda_qkv(*shape, dtype=dtype)
    close(attend(q, k, v), q, k, v)
    assert attend.last_backend == "sageattention"


@both
def test_linear_attention_is_never_given_to_it(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sage = Sage()
    sage.install(monkeypatch, 2)
    # What LinearAttention makes of (batch, tokens, heads * size): the tokens come last, and there may be 64 of them.
    q, k, v = (tensor.reshape(2, 64, 4, 32).permute(0, 2, 3, 1) for tensor in qkv(2, 64, 128, dtype=HALF))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    attend = load().Attend(flash=True, scale=8).eval()
    close(attend(*on(OnCuda, q, k, v)), q, k, v, 8)
    assert (attend.last_backend, sage.calls) == ("pytorch_sdpa", [])


@both
def test_a_compiled_module_does_without_it(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sage = Sage()
    sage.install(monkeypatch)
    module = load()
    monkeypatch.setitem(module.Attend.forward.__globals__, "_is_compiling", lambda: True)
    q, k, v = cuda_qkv()
    close(module.Attend(flash=True).eval()(q, k, v), q, k, v)
    assert not sage.calls


# when it fails


@both
@pytest.mark.parametrize("error", FAILURES, ids=repr)
@pytest.mark.parametrize("scale", [None, 0.5])
def test_a_failure_goes_on_to_sdpa_with_the_right_result(
    load: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    scale: float | None,
) -> None:
    def fail(_: Tensor, k: Tensor, *__: Tensor) -> Tensor:
        k.zero_()
        raise error

    sage = Sage(fail)
    sage.install(monkeypatch)
    module = load()
    attends = [module.Attend(flash=True, scale=scale).eval() for _ in range(24)]
    q, k, v = cuda_qkv()
    for attend in attends:
        close(attend(q, k, v), q, k, v, scale)
        assert attend.last_backend == "pytorch_sdpa"
    assert attends[0].use_sage is False
    assert len(sage.calls) == 1
    [message] = caplog.messages
    assert f"{type(error).__name__}: {error}" in message


@both
def test_a_failure_is_remembered_for_its_dtype_and_head_size_alone(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_64(q: Tensor, *_: Tensor) -> Tensor:
        if q.shape[-1] == 64:
            raise RuntimeError("not this one")
        return q

    sage = Sage(fail_for_64)
    sage.install(monkeypatch)
    module = load()
    module.Attend(flash=True).eval()(*cuda_qkv())
    for shape, dtype in (((2, 2, 64, 128), HALF), ((2, 2, 64, 128), torch.float16)):
        other = module.Attend(flash=True).eval()
        other(*cuda_qkv(*shape, dtype=dtype))
        assert other.last_backend == "sageattention"
    sage.behave = None
    for dtype, backend in ((HALF, "pytorch_sdpa"), (torch.float16, "sageattention")):
        other = module.Attend(flash=True).eval()
        other(*cuda_qkv(dtype=dtype))
        assert other.last_backend == backend


@both
def test_a_failing_chain_ends_at_einsum(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("No available kernel. Aborting execution.")

    Sage(fail).install(monkeypatch)
    monkeypatch.setattr(F, "scaled_dot_product_attention", fail)
    attend = load().Attend(flash=True, scale=0.1).eval()
    q, k, v = cuda_qkv()
    close(attend(q, k, v), q, k, v, 0.1)
    assert attend.last_backend == "einsum"


@both
@pytest.mark.parametrize("error", OOM, ids=repr)
def test_out_of_memory_is_never_swallowed(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Tensor:
        raise error

    sage = Sage(fail)
    sage.install(monkeypatch)
    attend = load().Attend(flash=True).eval()
    with pytest.raises(type(error)) as caught:
        attend(*cuda_qkv())
    assert caught.value is error
    sage.behave = None
    attend(*cuda_qkv())
    assert attend.last_backend == "sageattention"


@both
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_result_that_is_not_finite_is_a_failure(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bad: float
) -> None:
    Sage(lambda q, *_: torch.full_like(q, bad)).install(monkeypatch)
    attend = load().Attend(flash=True).eval()
    q, k, v = cuda_qkv()
    close(attend(q, k, v), q, k, v)
    assert attend.use_sage is False
    assert "not finite" in caplog.text


@both
def test_input_that_is_not_finite_is_not_held_against_it(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sage = Sage()
    sage.install(monkeypatch)
    attend = load().Attend(flash=True).eval()
    for place in range(3):
        tensors = cuda_qkv()
        tensors[place][0, 0, 0, 0] = float("nan")
        attend(*tensors)
        assert attend.use_sage is True
    # And the first use that can be judged still is.
    sage.behave = lambda q, *_: torch.full_like(q, float("nan"))
    attend(*cuda_qkv())
    assert attend.use_sage is False


@both
def test_a_failure_that_arrives_late_is_caught_on_the_first_use(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Sage().install(monkeypatch)
    synchronized: list[Any] = []

    def late(device: Any) -> None:
        synchronized.append(device)
        raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setattr(torch.cuda, "synchronize", late)
    attend = load().Attend(flash=True).eval()
    q, k, v = cuda_qkv()
    close(attend(q, k, v), q, k, v)
    assert synchronized == [torch.device("cuda", 0)]
    assert (attend.use_sage, attend.last_backend) == (False, "pytorch_sdpa")


@both
def test_only_the_first_use_waits_for_the_device(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Sage().install(monkeypatch)
    waits: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    module = load()
    for shape in [(2, 2, 64, 64), (2, 2, 64, 64), (1, 3, 128, 64), (2, 2, 64, 128)]:
        module.Attend(flash=True).eval()(*cuda_qkv(*shape))
    assert len(waits) == 2


@both
def test_a_copy_of_a_module_keeps_what_it_learned(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Sage(lambda *_: pytest.fail("asked")).install(monkeypatch)
    attend = load().Attend(flash=True).eval()
    attend.use_sage = False
    copy.deepcopy(attend)(*cuda_qkv())


# the upstream bug


def a_failing_sageattention_reaches_sdpa(trees: Trees, tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Tensor:
        raise RuntimeError("no kernel image")

    Sage(fail).install(monkeypatch)
    q, k, v = cuda_qkv()
    close(trees.load(tree, SAGE).Attend(flash=True).eval()(q, k, v), q, k, v)


def test_a_failing_sageattention_reaches_sdpa_in_the_patched_file(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_failing_sageattention_reaches_sdpa(trees, "patched", monkeypatch)


def test_and_does_not_in_upstreams(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="no kernel image"):
        a_failing_sageattention_reaches_sdpa(trees, "upstream", monkeypatch)


def test_upstreams_import_writes_to_standard_output_and_ours_does_not(trees: Trees) -> None:
    trees.need(SAGE)
    script = """
        import sys
        sys.path.insert(0, {tree!r})
        for name in ("models", "models.bs_roformer"):
            sys.modules[name] = type(sys)(name)
            sys.modules[name].__path__ = [{tree!r} + "/" + name.replace(".", "/")]
        sys.modules["sageattention"] = None
        import models.bs_roformer.attend_sage
    """
    said = []
    for tree in (trees.upstream, trees.patched):
        command = [sys.executable, "-c", textwrap.dedent(script).format(tree=str(tree))]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert said[0] != ""
    assert said[1] == ""
