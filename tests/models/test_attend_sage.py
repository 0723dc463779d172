"""Tests SageAttention in the patched attend.py, with stand-ins for the package and the GPU."""

import copy
import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.models.conftest import ATTEND, SAGE, Trees, imports_from
from tests.models.standins import OnCuda, OnMps, Sage, on, qkv, raises, reference

MonkeyPatch, Captured = pytest.MonkeyPatch, pytest.CaptureFixture[str]
HALF = torch.bfloat16
OFFERED = ["Attend", "default", "exists", "sageattn", "_has_sage_attention"]
OFFERED += ["_sdpa_is_available_probe", "_sdpa_call", "_einsum_attn"]
REFUSED, ADMITTED = ["pytorch_sdpa", "pytorch_sdpa"], ["pytorch_sdpa", "sageattention"]


class Late(OnCuda):
    """The result of a kernel whose failure is heard when somebody reads it."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


@pytest.fixture
def sage(monkeypatch: MonkeyPatch) -> Sage:
    """The stand-in, installed; its result is off by the 1 % of the real one."""
    sage = Sage(error=0.01)
    sage.install(monkeypatch)
    return sage


@pytest.fixture
def module(sage: Sage, trees: Trees) -> Any:  # noqa: ARG001
    """The patched attend.py, imported where SageAttention is installed."""
    return trees.load("patched", ATTEND)


def cuda_qkv(*shape: int, dtype: torch.dtype = HALF) -> list[Tensor]:
    return on(OnCuda, *qkv(*(shape or (2, 2, 64, 64)), dtype=dtype))


def sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """What SDPA gives, to the bit."""
    q = q * (scale / q.shape[-1] ** -0.5) if scale else q
    plain = [tensor.detach().as_subclass(Tensor) for tensor in (q, k, v)]
    return F.scaled_dot_product_attention(*plain)


def backends(module: Any, *tensors: Tensor, times: int = 2) -> list[str]:
    """The backend of each of so many calls, each by a new module, which has to give SDPA's answer where it ran."""
    found = []
    for _ in range(times):
        attend = module.Attend(flash=True).eval()
        out = attend(*tensors).as_subclass(Tensor)
        found.append(attend.last_backend)
        assert torch.equal(out, sdpa(*tensors)) or found[-1] != "pytorch_sdpa"
    return found


def test_attend_sage_exports_the_same_objects_as_attend(trees: Trees, capfd: Captured) -> None:
    with imports_from(trees.patched):
        theirs, ours = (importlib.import_module(f"models.bs_roformer.{name}") for name in ("attend", "attend_sage"))
    for name in OFFERED:
        assert getattr(ours, name) is getattr(theirs, name)
    say = ours._print_once("said")
    assert (say(), say(), *capfd.readouterr()) == (None, None, "", "said\n")
    offered = {name for name in vars(ours) if not name.startswith("__")}
    assert offered - {*OFFERED, "_print_once"} <= {"print_once", "partial"}


def provide(monkeypatch: MonkeyPatch, folder: Path, source: str) -> None:
    """Have `import sageattention` run `source`."""
    (folder / "sageattention.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "sageattention", raising=False)


@pytest.mark.parametrize("debug", ["", "1"])
@pytest.mark.parametrize("kind", ["ImportError", "OSError", "RuntimeError", "SyntaxError", "Exception"])
def test_any_error_on_import_means_no_sageattention(
    trees: Trees, monkeypatch: MonkeyPatch, capfd: Captured, tmp_path: Path, kind: str, debug: str
) -> None:
    provide(monkeypatch, tmp_path, f"raise {kind}('no triton')\n")
    monkeypatch.setenv("DSU_ATTENTION_DEBUG", debug)
    module = trees.load("patched", ATTEND)
    assert (module.Attend(flash=True).use_sage, module._has_sage_attention) == (False, False)
    assert backends(module, *cuda_qkv()) == REFUSED
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), err.count(f"{kind}: no triton")) == ("", len(debug), len(debug))


@pytest.mark.parametrize("value", ["1", "true", "Yes", "ON"])
def test_disabled_sageattention_is_not_imported(
    trees: Trees, monkeypatch: MonkeyPatch, capfd: Captured, tmp_path: Path, value: str
) -> None:
    provide(monkeypatch, tmp_path, "print('imported')\nraise SystemExit(3)\n")
    monkeypatch.setenv("DSU_DISABLE_SAGEATTN", value)
    assert backends(trees.load("patched", ATTEND), *cuda_qkv()) == REFUSED
    assert (capfd.readouterr().out, "sageattention" in sys.modules) == ("", False)


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("dtype", [HALF, torch.float32])
def test_sageattention_is_used_from_the_second_call_on(
    sage: Sage, module: Any, dtype: torch.dtype, scale: float | None
) -> None:
    attend = module.Attend(flash=True, scale=scale).eval()
    q, k, v = cuda_qkv(2, 2, 60, 80, dtype=dtype)
    before = k.clone()
    assert torch.equal(attend(q, k, v).as_subclass(Tensor), sdpa(q, k, v, scale))
    assert attend.last_backend == "pytorch_sdpa"
    expected = reference(q, k, v, scale)
    assert 0.005 < (attend(q, k, v) - expected).norm() / expected.norm() < 0.015
    assert attend.last_backend == "sageattention"
    assert torch.equal(k, before)
    assert [(call["tensor_layout"], call["is_causal"]) for call in sage.calls] == [("HND", False)] * 2


@pytest.mark.parametrize(
    ("behave", "word"),
    [
        (None, "14"),  # of 14 %
        (lambda q, *_: torch.full_like(q, float("nan")), "nan"),
        (lambda q, *_: torch.full_like(q, float("inf")), ""),
        (lambda q, *_: q[..., :1], ""),
        (lambda q, *_: q.as_subclass(Late), "RuntimeError: CUDA error: no kernel image"),
        (raises(AssertionError("headdim should be in [64, 96, 128].")), "AssertionError: headdim should be"),
        (raises(OSError("could not get source code")), "OSError: could not get source code"),
    ],
    ids=["14 % off", "nan", "inf", "shape", "late", "AssertionError", "OSError"],
)
def test_a_failure_turns_sageattention_off_for_that_kind_with_one_message(
    sage: Sage, module: Any, capfd: Captured, behave: Any, word: str
) -> None:
    sage.error, sage.behave = 0.14, behave
    assert backends(module, *cuda_qkv(), times=24) == ["pytorch_sdpa"] * 24
    assert len(sage.calls) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert word in err
    sage.error, sage.behave = 0.01, None
    assert backends(module, *cuda_qkv(5, 2, 64, 64)) == REFUSED
    x, y = (cuda_qkv(2, 2, tokens, 64)[0] for tokens in (64, 80))
    for other in ((y, y, y), (y, x, x), (x, y, y), cuda_qkv(2, 3, 64, 64), cuda_qkv(2, 2, 64, 32)):
        assert backends(module, *other) == ADMITTED
    assert backends(module, *cuda_qkv(dtype=torch.float32)) == ADMITTED


@pytest.mark.parametrize("batch", [2, 16, 62])
def test_an_error_in_later_entries_of_the_batch_is_noticed(sage: Sage, module: Any, batch: int) -> None:
    def half_right(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = reference(q, k, v).to(q.dtype)
        out[batch // 2 :] = torch.randn(out[batch // 2 :].shape)
        return out

    sage.behave = half_right
    assert backends(module, *cuda_qkv(batch, 2, 20, 64)) == REFUSED


@pytest.mark.parametrize("number", [0.0, 1.0, float("nan")])  # of silence, all tokens are alike
@pytest.mark.parametrize(("error", "expected"), [(0.01, ADMITTED), (0.14, REFUSED)])
def test_constant_values_neither_prove_nor_refuse_sageattention(
    sage: Sage, module: Any, capfd: Captured, number: float, error: float, expected: list[str]
) -> None:
    telling_nothing = cuda_qkv()
    telling_nothing[2][:] = number
    for _ in range(3):
        module.Attend(flash=True).eval()(*telling_nothing)
    assert (len(sage.calls), *capfd.readouterr()) == (3, "", "")
    sage.error = error
    assert backends(module, *cuda_qkv()) == expected


def test_a_checked_kind_is_used_for_any_batch_until_it_raises(sage: Sage, module: Any, capfd: Captured) -> None:
    assert backends(module, *cuda_qkv()) == ADMITTED
    assert backends(module, *cuda_qkv(3, 2, 64, 64)) == ["sageattention"] * 2
    sage.behave = raises(RuntimeError("lost"))
    assert backends(module, *cuda_qkv()) == REFUSED
    assert (len(sage.calls), capfd.readouterr().err.count("RuntimeError: lost")) == (5, 1)


def test_a_failure_wins_over_a_check_that_began_before_it(sage: Sage, module: Any) -> None:
    def slow_and_right(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sage.behave = raises(RuntimeError("not in this thread"))
        other = threading.Thread(target=lambda: module.Attend(flash=True).eval()(*cuda_qkv()))
        other.start()
        other.join()
        return reference(q, k, v)

    sage.behave = slow_and_right
    assert (backends(module, *cuda_qkv(), times=3), len(sage.calls)) == ([*REFUSED, "pytorch_sdpa"], 2)


def test_a_module_saved_where_it_was_installed_runs_where_it_is_not(
    sage: Sage, module: Any, trees: Trees, monkeypatch: MonkeyPatch, capfd: Captured
) -> None:
    state = vars(module.Attend(flash=True).eval())
    monkeypatch.setitem(sys.modules, "sageattention", None)
    attend = trees.load("patched", ATTEND).Attend(flash=True).eval()
    vars(attend).update(state)
    attend(*cuda_qkv())
    assert (attend.last_backend, sage.calls, capfd.readouterr().err) == ("pytorch_sdpa", [], "")


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError(), RuntimeError("Triton: out of memory"), MemoryError()])
@pytest.mark.parametrize("proven", [False, True])
def test_out_of_memory_falls_back_to_sdpa_and_is_not_remembered(
    sage: Sage, module: Any, capfd: Captured, error: Exception, proven: bool
) -> None:
    if proven:
        assert backends(module, *cuda_qkv()) == ADMITTED
    for sage.behave, expected in ((raises(error), REFUSED), (None, ["sageattention"] * 2 if proven else ADMITTED)):
        assert backends(module, *cuda_qkv()) == expected
    assert (len(sage.calls), capfd.readouterr().err) == (6 if proven else 4, "")


def test_nothing_is_tried_or_remembered_during_graph_capture(sage: Sage, module: Any, capfd: Captured) -> None:
    proven, lost = ["sageattention"] * 2, raises(RuntimeError("operation not permitted when stream is capturing"))
    steps = [(True, None, REFUSED), (False, None, ADMITTED), (True, None, proven), (True, lost, REFUSED)]
    for sage.capturing, sage.behave, expected in [*steps, (False, None, proven)]:
        assert backends(module, *cuda_qkv()) == expected
    assert (len(sage.calls), capfd.readouterr().err) == (8, "")


def test_sageattention_runs_on_the_inputs_device_and_keeps_the_current_one(sage: Sage, module: Any) -> None:
    sage.current = 1
    for behave in (None, None, raises(RuntimeError())):
        sage.behave = behave
        module.Attend(flash=True).eval()(*cuda_qkv())
        assert sage.current == 1
    assert [call["current"] for call in sage.calls] == [0, 0, 0]


def strided(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda q, k, v: [t.as_subclass(Tensor) for t in (q, k, v)], "not on CUDA"),
        (lambda q, k, v: on(OnMps, q, k, v), "not on CUDA"),
        (lambda q, k, v: [q, k, torch.cat([v, v], -1)], "differ"),
        (lambda *tensors: map(strided, tensors), "strided"),  # as those of LinearAttention are
        (lambda q, k, v: [strided(q), k, v], "strided"),
        (lambda q, k, v: [q, strided(k), v], "strided"),
        (lambda q, k, v: [q, k, strided(v)], "strided"),
        (lambda q, k, v: [q.requires_grad_(), k, v], "backward"),
        (lambda q, k, v: [q, k, v.requires_grad_()], "backward"),
    ],
)
def test_unsuitable_input_never_reaches_sageattention_and_debugging_says_why(
    sage: Sage, trees: Trees, monkeypatch: MonkeyPatch, capfd: Captured, make: Any, reason: str
) -> None:
    monkeypatch.setenv("DSU_ATTENTION_DEBUG", "1")
    module = trees.load("patched", ATTEND)
    assert backends(module, *make(*cuda_qkv())) == REFUSED
    assert sage.calls == []
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), err.count(reason)) == ("", 1, 1)
    q, k, v = cuda_qkv()
    with torch.no_grad():
        assert backends(module, q.requires_grad_(), k, v, times=3) == [*ADMITTED, "sageattention"]
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert all(word in err for word in ("sageattention", "cuda:0", "bfloat16", "64"))


def test_unequal_dtypes_and_dropout_in_training_never_reach_sageattention(sage: Sage, module: Any) -> None:
    with torch.autocast("cpu", dtype=HALF):  # where SDPA takes unequal ones
        assert module.Attend(flash=True)(*cuda_qkv()[:2], cuda_qkv(dtype=torch.float32)[2]).dtype == HALF
    attend = module.Attend(flash=True, dropout=0.1)
    for training, asked in ((True, 0), (True, 0), (False, 1), (False, 2)):
        attend.train(training)(*cuda_qkv())
        assert (attend.last_backend == "sageattention", len(sage.calls)) == (asked == 2, asked)


def test_a_compiled_module_does_without_it(sage: Sage, trees: Trees, monkeypatch: MonkeyPatch) -> None:
    pytest.importorskip("torch.nn.attention", reason="this torch is too old for SageAttention")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    attend = trees.load("patched", ATTEND).Attend(flash=True).eval()
    assert torch.equal(attend(*cuda_qkv()).as_subclass(Tensor), sdpa(*cuda_qkv()))
    assert sage.calls == []


def test_turned_off_in_a_module_or_after_the_import_it_is_never_asked(
    sage: Sage, module: Any, monkeypatch: MonkeyPatch
) -> None:
    attend = module.Attend(flash=True)
    attend.use_sage = False
    monkeypatch.setenv("DSU_DISABLE_SAGEATTN", "1")
    later = module.Attend(flash=True)
    monkeypatch.delenv("DSU_DISABLE_SAGEATTN")
    for made in (module.Attend(flash=False), copy.deepcopy(attend), later):
        made(*cuda_qkv())
        assert (made.use_sage, made.last_backend, sage.calls) == (False, "pytorch_sdpa" if made.flash else "einsum", [])


def test_a_failing_chain_ends_at_einsum(sage: Sage, module: Any, monkeypatch: MonkeyPatch) -> None:
    sage.behave = raises(RuntimeError("no sage"))
    monkeypatch.setattr(F, "scaled_dot_product_attention", raises(RuntimeError("no sdpa")))
    attend = module.Attend(flash=True, scale=0.1).eval()
    q, k, v = cuda_qkv(dtype=torch.float32)
    torch.testing.assert_close(attend(q, k, v).double(), reference(q, k, v, 0.1), atol=5e-6, rtol=5e-6)
    assert (attend.last_backend, len(sage.calls)) == ("einsum", 1)


def test_upstream_raises_and_prints_what_sageattention_raises(
    sage: Sage, trees: Trees, monkeypatch: MonkeyPatch, capfd: Captured
) -> None:
    sage.behave = raises(RuntimeError("no kernel image"))
    with pytest.raises(RuntimeError, match="no kernel image"):
        trees.load("upstream", SAGE).Attend(flash=True)(*cuda_qkv())
    assert backends(trees.load("patched", SAGE), *cuda_qkv()) == REFUSED
    monkeypatch.setitem(sys.modules, "sageattention", None)
    for tree, prints in (("upstream", True), ("patched", False)):
        trees.load(tree, SAGE)
        assert bool(capfd.readouterr().out) == prints
