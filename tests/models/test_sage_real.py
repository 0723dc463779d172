"""Tests the real SageAttention 1.0.6 without a GPU (`make test-sage`): import, fallback and kernels.

The kernels run in Triton's interpreter, in another process, on CPU tensors that say they are on a GPU.
"""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.models.conftest import ATTEND, Trees
from tests.models.standins import OnCuda, on, qkv, reference

pytestmark = pytest.mark.sage
HALF = torch.bfloat16


@pytest.fixture
def module(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return trees.load("patched", ATTEND)


def test_its_failure_without_a_gpu_falls_back(module: Any, capfd: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("it does not fail here, there is a GPU")
    q, k, v = qkv(2, 2, 64, 64, dtype=HALF)
    for _ in range(2):
        attend = module.Attend(flash=True).eval()
        out = attend(*on(OnCuda, q, k, v)).as_subclass(torch.Tensor)
        torch.testing.assert_close(out.double(), reference(q, k, v), atol=2e-2, rtol=2e-2)
        assert attend.last_backend == "pytorch_sdpa"
    assert capfd.readouterr().err.count("SageAttention failed") == 1


INTERPRETED = """if True:
    import sys, torch
    from contextlib import nullcontext
    from pathlib import Path
    torch.Tensor.is_cuda = property(lambda self: True)
    torch.cuda.synchronize = torch.cuda.current_device = torch.cuda.is_current_stream_capturing = lambda *_: None
    torch.cuda.device = nullcontext
    from sageattention import sageattn
    from tests.models.conftest import imports_from
    from tests.models.standins import qkv, reference
    with imports_from(Path(sys.argv[1])):
        from models.bs_roformer.attend import Attend

    def error(out, expected):
        return ((out - expected).norm() / expected.norm()).item()

    for dtype in (torch.float16, torch.bfloat16):
        for tokens in (64, 100, 128):
            q, k, v = qkv(1, 2, tokens, 64, dtype=dtype)
            k = k + 1
            before, expected = k.clone(), reference(q, k, v, 0.2)
            attend = Attend(flash=True, scale=0.2).eval()
            attend(q, k, v)
            ours = error(attend(q, k, v), expected)
            assert torch.equal(k, before)
            theirs = error(sageattn(q, k, v, sm_scale=0.2), expected)
            print(tokens, attend.last_backend, ours, theirs, torch.equal(k, before))
"""


def test_the_check_accepts_whole_blocks_of_64_keys_and_refuses_100(trees: Trees) -> None:
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", INTERPRETED, str(trees.patched)]
    rows = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert len(rows) == 6
    for tokens, backend, ours, theirs, k_untouched in (row.split() for row in rows):
        right = tokens != "100"  # where its last block runs over the end, unmasked
        assert backend == ("sageattention" if right else "pytorch_sdpa")
        assert float(ours) < 0.03
        assert (float(theirs) < 0.03) == right
        assert k_untouched == "False"  # it subtracts the mean from the caller's k in place; ours gives it a copy
