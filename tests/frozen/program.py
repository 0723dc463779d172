"""The program that is frozen: runs the named models on a second of noise, and prints one line of JSON.

It also runs as a plain script, with the vendored tree on PYTHONPATH, for comparison. What a frozen program needs:

- torch reads the comments of its own `config.py` modules on import, so cx_Freeze's hook includes these sources.
  `without_torch_sources` makes them unnecessary, since only torch.compile uses the comments. torch then warns on
  standard error that it cannot find sources of overloads; only TorchScript needs them.
- librosa, which `models.bs_roformer` imports, reads `.pyi` files beside its modules: include them (`build.py`). It
  needs numba and llvmlite.
- beartype, einops, rotary_embedding_torch and the patched files need nothing. Only the experimental models import
  hyper_connections.
"""

import inspect
import json
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

read_source = inspect.getsource


def without_torch_sources() -> None:
    """Make torch read its configuration modules without their sources."""

    def getsource(thing: Any) -> str:
        is_config = isinstance(thing, ModuleType) and thing.__name__.startswith("torch.")
        return "" if is_config else read_source(thing)

    inspect.getsource = getsource


if getattr(sys, "frozen", False):
    without_torch_sources()

import torch  # noqa: E402

SMALL: dict[str, Any] = {
    "dim": 16,
    "depth": 1,
    "stereo": True,
    "num_stems": 2,
    "time_transformer_depth": 1,
    "freq_transformer_depth": 1,
    "heads": 2,
    "dim_head": 16,
    "flash_attn": True,
    "mask_estimator_depth": 1,
    "mlp_expansion_factor": 1,
    "stft_n_fft": 1024,
    "stft_hop_length": 512,
    "stft_win_length": 1024,
}
SCNET = {"sources": ["a", "b"], "dims": [4, 8, 16], "nfft": 512, "hop_size": 256, "win_size": 512, "num_dplayer": 2}
# The arguments of small models.
MODELS: dict[str, dict[str, Any]] = {
    "BSRoformer": {**SMALL, "linear_transformer_depth": 1, "freqs_per_bands": (32,) * 16 + (1,)},
    "MelBandRoformer": {**SMALL, "num_bands": 16},
    "SCNet": SCNET,
}


def run(name: str) -> dict[str, Any]:
    """Shape, norm and some samples of what model `name` makes of the noise, and what its attention ran on."""
    from models.bs_roformer import BSRoformer, MelBandRoformer
    from models.scnet import SCNet

    torch.manual_seed(0)
    model = {"BSRoformer": BSRoformer, "MelBandRoformer": MelBandRoformer, "SCNet": SCNet}[name](**MODELS[name]).eval()
    noise = torch.randn(1, 2, 44100, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = model(noise)
    backends = {module.last_backend for module in model.modules() if hasattr(module, "last_backend")}
    return {
        "shape": list(out.shape),
        "norm": float(out.double().norm()),
        "samples": out.flatten()[:: out.numel() // 16].tolist(),
        "backends": sorted(map(str, backends)),
    }


def with_source() -> list[str]:
    """Of torch.nn.functional and the models' modules: which can show their source, or that of a function or class."""
    found = set()
    for name in [name for name in sys.modules if name == "torch.nn.functional" or name.split(".")[0] == "models"]:
        own = [thing for thing in vars(sys.modules[name]).values() if getattr(thing, "__module__", None) == name]
        for thing in [sys.modules[name], *filter(inspect.isroutine, own), *filter(inspect.isclass, own)]:
            with suppress(OSError, TypeError):
                found.update([name] if read_source(thing) else [])
    return sorted(found)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    results = {name: run(name) for name in names}
    print(json.dumps({"torch": torch.__version__, **results, "with_source": with_source()}))


if __name__ == "__main__":
    main(sys.argv[1:])
