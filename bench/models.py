"""Attention, the sum of masks and whole models: untouched upstream, patched, plain SDPA and einsum."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from bench.measure import compare, peak_memory
from tests.models.conftest import imports_from
from tests.models.standins import qkv

# (batch, heads, tokens, head size) at the app's settings: 62 bands; 801 frames in 8 s of audio, 1,101 in 11 s.
TIME = (62, 8, 801, 64)
LONG = (62, 8, 1101, 64)
FREQUENCY = (801, 8, 62, 64)
SHAPES = {"time attention": TIME, "time attention, 11 s": LONG, "frequency attention": FREQUENCY}
AGAINST = ("upstream", "plain SDPA")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_MEMORY = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from pathlib import Path
from bench.models import attention_ways
from tests.models.standins import qkv
way, shape, dtype = sys.argv[1], tuple(map(int, sys.argv[2].split(","))), getattr(torch, sys.argv[3])
tensors = qkv(*shape, dtype=dtype)
torch.set_grad_enabled(False)
run = attention_ways(Path(sys.argv[4]), Path(sys.argv[5]), *tensors)[way]
"""


def load(tree: Path, name: str) -> Any:
    """Import module `name` again, from `tree`."""
    with imports_from(tree):
        return importlib.import_module(name)


def attention_ways(
    upstream: Path, patched: Path, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Each way to attend with q, k, v (batch, heads, tokens, head size), upstream's first."""
    name = "models.bs_roformer.attend"
    old, new, sage = (load(tree, name).Attend(flash=True).eval() for tree in (upstream, patched, patched))
    einsum = load(upstream, name).Attend(flash=False).eval()
    new.use_sage = False
    ways: dict[str, Callable[[], object]] = {"upstream": lambda: old(q, k, v)}
    if q.is_cuda:
        try:
            old(q, k, v)
        except RuntimeError as error:  # float32 on a modern GPU
            if "No available kernel" not in str(error):
                raise
            del ways["upstream"]
        for _ in range(2):  # the first call of a kind is SDPA's, and checks SageAttention
            sage(q, k, v)
        if sage.last_backend == "sageattention":
            ways["patched, SageAttention"] = lambda: sage(q, k, v)
    ways["patched"] = lambda: new(q, k, v)
    ways["plain SDPA"] = lambda: F.scaled_dot_product_attention(q, k, v)
    ways["einsum"] = lambda: einsum(q, k, v)
    if q.is_cuda:
        ways = {name: _synchronized(way) for name, way in ways.items()}
    return ways


def _synchronized(way: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        way()
        torch.cuda.synchronize()

    return run


def attention(upstream: Path, patched: Path, device: str, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each shape, dtype and way: seconds, ratios, and peak memory of one call (on a CPU only on Linux)."""
    for label, shape in SHAPES.items():
        for dtype_name, dtype in DTYPES.items():
            tensors = [tensor.to(device) for tensor in qkv(*shape, dtype=dtype)]
            ways = attention_ways(upstream, patched, *tensors)
            timings = compare(ways, against=AGAINST, rounds=rounds)
            arguments = (",".join(map(str, shape)), dtype_name, str(upstream), str(patched))
            for timing in timings:
                if device == "cpu":
                    memory = peak_memory(_MEMORY, timing.way, *arguments)
                else:
                    torch.cuda.empty_cache()
                    before = torch.cuda.memory_allocated()
                    torch.cuda.reset_peak_memory_stats()
                    ways[timing.way]()
                    memory = torch.cuda.max_memory_allocated() - before
                yield {"what": label, "shape": shape, "dtype": dtype_name, "memory": memory, **timing.as_json()}


def overhead(upstream: Path, patched: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Rows for a tiny attention on one thread, which show the cost of a call itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ways = attention_ways(upstream, patched, *qkv(1, 1, 4, 8))
        order = {name: ways[name] for name in ("plain SDPA", "patched", "upstream", "einsum")}
        for timing in compare(order, against=AGAINST, rounds=rounds, inner=2000):
            yield {"what": "one tiny call", "shape": (1, 1, 4, 8), "dtype": "float32", **timing.as_json()}
    finally:
        torch.set_num_threads(threads)


def mask_sums(patched: Path, device: str, rounds: int) -> Iterator[dict[str, Any]]:
    """The average of 60 overlapping bands' masks, as upstream has it on complex numbers, and on real ones."""
    model = load(patched, "models.bs_roformer.mel_band_roformer").MelBandRoformer(dim=8, depth=1, stereo=True)
    bands = model.freq_indices.to(device)
    bins = model.num_bands_per_freq.to(device).repeat_interleave(2).float()[:, None]
    for stems in (1, 4):
        shape = (1, stems, len(bins), 801)
        # Time comes before frequency in memory, as the layers give it.
        masks = torch.randn(1, stems, 801, len(bands), 2, device=device).transpose(2, 3)

        def on_complex(masks: torch.Tensor = masks, shape: tuple[int, ...] = shape) -> torch.Tensor:
            index = bands[:, None].expand(masks.shape[:-1])
            zeros = torch.zeros(shape, dtype=torch.complex64, device=device)
            return zeros.scatter_add_(2, index, torch.view_as_complex(masks)) / bins

        def on_real(masks: torch.Tensor = masks, shape: tuple[int, ...] = shape) -> torch.Tensor:
            return torch.zeros(*shape, 2, device=device).index_add_(2, bands, masks).div_(bins[..., None])

        ways: dict[str, Callable[[], object]] = {"upstream": on_complex, "patched": on_real}
        if device != "cpu":
            ways = {name: _synchronized(way) for name, way in ways.items()}
        for timing in compare(ways, against=AGAINST, rounds=max(rounds, 15)):
            yield {"what": "sum of masks", "shape": shape, "dtype": "float32", **timing.as_json()}


def whole_models(upstream: Path, patched: Path, device: str, rounds: int) -> Iterator[dict[str, Any]]:
    """SCNet and, where their files could be had, BSRoformer and MelBandRoformer, forward on seeded weights."""
    small = {"dim": 128, "depth": 2, "stereo": True, "time_transformer_depth": 1, "freq_transformer_depth": 1}
    cases: dict[str, tuple[str, str, dict[str, Any], int]] = {
        "SCNet": ("models.scnet.scnet", "SCNet", {}, 4 * 44100),
        "BSRoformer": ("models.bs_roformer.bs_roformer", "BSRoformer", small, 4 * 44100),
        "MelBandRoformer": ("models.bs_roformer.mel_band_roformer", "MelBandRoformer", small, 4 * 44100),
    }
    for label, (module, name, settings, samples) in cases.items():
        if not (upstream / (module.replace(".", "/") + ".py")).exists():
            continue
        audio = torch.randn(1, 2, samples, generator=torch.Generator().manual_seed(0)).to(device)
        ways: dict[str, Callable[[], object]] = {}
        # A second model of upstream's is the control: its ratio differs from 1 only by noise.
        for way, tree in (("upstream", upstream), ("patched", patched), ("upstream again", upstream)):
            torch.manual_seed(0)
            model = getattr(load(tree, module), name)(**settings).eval().to(device)
            ways[way] = lambda model=model, x=audio: model(x)
        if device != "cpu":
            ways = {name: _synchronized(way) for name, way in ways.items()}
        for timing in compare(ways, against=AGAINST, rounds=rounds):
            yield {"what": label, "shape": tuple(audio.shape), "dtype": "float32", **timing.as_json()}


def run(upstream: Path, patched: Path, device: str, rounds: int) -> list[dict[str, Any]]:
    """All rows for `device`, measured without gradients."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = list(attention(upstream, patched, device, rounds))
        if device == "cpu":
            rows += overhead(upstream, patched, max(rounds, 15))
        if (patched / "models/bs_roformer/mel_band_roformer.py").exists():
            rows += mask_sums(patched, device, rounds)
        rows += whole_models(upstream, patched, device, rounds)
    return rows
