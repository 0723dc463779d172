"""Tests on an NVIDIA GPU, left out where there is none; `pytest -m cuda -s` prints the measured errors."""

from typing import Any

import pytest
import torch

from tests.models.conftest import ATTEND, Trees
from tests.models.standins import qkv, reference

pytestmark = pytest.mark.cuda
# The model's shapes: time and frequency attention of 8 s of audio.
SHAPES = [(62, 8, 801, 64), (801, 8, 62, 64)]
# Of the result's norm, against float64.
LIMIT = {torch.float32: 2e-3, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture
def module(trees: Trees) -> Any:
    return trees.load("patched", ATTEND)


def relative_error(out: torch.Tensor, *arguments: torch.Tensor) -> float:
    """Over eight entries of the batch: float64 einsum of all of it would need many gigabytes."""
    expected = reference(*(tensor[:8] for tensor in arguments))
    return ((out[:8].double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_sdpa_is_right(module: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, shape: Any) -> None:
    monkeypatch.setenv("DSU_DISABLE_SAGEATTN", "1")
    q, k, v = (tensor.cuda() for tensor in qkv(*shape, dtype=dtype))
    attend = module.Attend(flash=True).eval()
    error = relative_error(attend(q, k, v), q, k, v)
    print(f"{torch.cuda.get_device_name()} {dtype} {shape} {attend.last_backend}: {error:.2e}")
    assert attend.last_backend == "pytorch_sdpa"
    assert error < LIMIT[dtype]


def test_upstream_refuses_float32_on_a_modern_gpu(untouched: Any) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("an older GPU, for which upstream does not insist on the flash kernel")
    with pytest.raises(RuntimeError, match="No available kernel"):
        untouched.Attend(flash=True).eval()(*(tensor.cuda() for tensor in qkv(1, 2, 16, 64)))


@pytest.mark.parametrize("flash", [True, False])
def test_a_batch_past_the_grid_limit_is_right(module: Any, monkeypatch: pytest.MonkeyPatch, flash: bool) -> None:
    monkeypatch.setenv("DSU_DISABLE_SAGEATTN", "1")
    q, k, v = (tensor.cuda() for tensor in qkv(70_000, 1, 8, 64, dtype=torch.bfloat16))
    out = module.Attend(flash=flash).eval()(q, k, v)
    assert relative_error(out[-8:], q[-8:], k[-8:], v[-8:]) < LIMIT[torch.bfloat16]


@pytest.mark.parametrize("shape", [*SHAPES, (62, 8, 832, 64)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sageattention_is_close_where_it_is_used(module: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    attend = module.Attend(flash=True).eval()
    if not attend.use_sage:
        pytest.skip("sageattention is not installed")
    q, k, v = (tensor.cuda() for tensor in qkv(*shape, dtype=dtype))
    before = k.clone()
    assert relative_error(attend(q, k, v), q, k, v) < LIMIT[dtype]
    assert attend.last_backend == "pytorch_sdpa"
    out = attend(q, k, v)
    print(f"{torch.cuda.get_device_name()} {dtype} {shape} {attend.last_backend}: {relative_error(out, q, k, v):.2e}")
    assert attend.last_backend == "sageattention" or shape[2] % 64  # which version 1 gets wrong
    assert torch.equal(k, before)
    assert relative_error(out, q, k, v) < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_scnet_runs_under_autocast(trees: Trees, dtype: torch.dtype) -> None:
    scnet = trees.load("patched", "models/scnet/scnet.py").SCNet
    torch.manual_seed(0)
    model = scnet(dims=[4, 8, 16], nfft=512, win_size=512, hop_size=128, num_dplayer=2).eval().cuda()
    audio = torch.randn(1, 2, 8192, device="cuda")
    with torch.no_grad():
        expected = model(audio)
        with torch.autocast("cuda", dtype=dtype):
            out = model(audio)
    assert out.dtype == torch.float32
    error = ((out - expected).norm() / expected.norm()).item()
    print(f"SCNet under autocast {dtype}: {error:.2e}")
    assert error < 0.05
