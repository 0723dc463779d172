"""Stand-ins for what a test machine lacks: devices and SageAttention. And the reference that all is held to."""

import sys
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def reference(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Attention by plain einsum in float64; q, k, v (batch, heads, tokens, head size) of any dtype."""
    q, k, v = (t.detach().double() for t in (q, k, v))
    scores = torch.einsum("bhid,bhjd->bhij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)


def own_error(q: Tensor, k: Tensor, v: Tensor, scale: float) -> float:
    """What torch's own attention is off by on this input, in the measure of `torch.testing.assert_close`.

    Without the fused attention of torch 2.1 scores are rounded to the dtype: 0.03 in bfloat16, later 0.004.
    """
    out = functional.scaled_dot_product_attention(q * (scale * q.shape[-1] ** 0.5), k, v)
    expected = reference(q, k, v, scale)
    return float(((out.double() - expected).abs() / (1 + expected.abs())).max())


def compiles(function: Callable[[Tensor], Tensor] = lambda x: -x) -> bool:
    """Whether `torch.compile` takes `function` in one graph; torch 2.0 takes nothing on Python 3.11."""
    try:
        torch.compile(function, fullgraph=True, backend="eager")(torch.ones(1))
    except RuntimeError:
        return False
    return True


def qkv(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Three seeded normal tensors of one shape."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, *shape, generator=generator).to(dtype)
    return q, k, v


class OnCuda(Tensor):
    """A CPU tensor that says it is on the first CUDA device; what is computed from it says so too."""

    is_cuda = property(lambda _: True)
    is_cpu = property(lambda _: False)
    device = property(lambda _: torch.device("cuda", 0))


class OnMps(Tensor):
    """The same for Apple's GPUs."""

    is_mps = property(lambda _: True)
    is_cpu = property(lambda _: False)
    device = property(lambda _: torch.device("mps", 0))


def on(kind: type[Tensor], *tensors: Tensor) -> list[Tensor]:
    """`tensors` as if on another device; their data is shared."""
    return [tensor.as_subclass(kind) for tensor in tensors]


class Sage:
    """A stand-in for the sageattention package: `calls` holds the keywords of each call.

    behave: called instead of computing, with (q, k, v); its result is returned, its exception raised.
    """

    def __init__(self, behave: Callable[[Tensor, Tensor, Tensor], Any] | None = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self.behave = behave

    def sageattn(
        self, q: Tensor, k: Tensor, v: Tensor, tensor_layout: str = "HND", is_causal: bool = False, **kwargs: Any
    ) -> Tensor:
        self.calls.append({"tensor_layout": tensor_layout, "is_causal": is_causal, **kwargs})
        if self.behave:
            return self.behave(q, k, v)
        out = reference(q, k, v, kwargs.get("sm_scale")).to(q.dtype)
        k -= k.mean(dim=-2, keepdim=True)  # as the real one of version 1 does
        return out.detach()

    def install(self, monkeypatch: pytest.MonkeyPatch, version: int | None = None) -> None:
        """Be what `import sageattention` finds; version: 1 or 2 by the parts that tell them apart, None for neither."""
        module = ModuleType("sageattention")
        module.sageattn = self.sageattn
        if version == 1:
            module.attn_qk_int8_per_block = ModuleType("attn_qk_int8_per_block")
        if version == 2:
            module.sageattn_qk_int8_pv_fp16_triton = self.sageattn
        monkeypatch.setitem(sys.modules, "sageattention", module)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


class Fft(TorchFunctionMode):
    """Inside, `kind` is a device apart from the CPU: copies go to it and from it, and no FFT takes tensors of both.

    refuses: the functions that raise `error` there. calls: which were called, each with "device" or "cpu".
    """

    NAMES = ("stft", "istft", "rfft", "irfft")

    def __init__(self, kind: type[Tensor], refuses: Collection[str] = NAMES, error: Exception | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.device = torch.empty(0).as_subclass(kind).device
        self.refuses = refuses
        self.error = error or RuntimeError("this device has no FFT")
        self.calls: list[tuple[str, str]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").removeprefix("fft_")
        if name in self.NAMES:
            here = {isinstance(value, self.kind) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)}
            if here == {True, False}:
                raise RuntimeError("Expected all tensors to be on the same device")
            self.calls.append((name, "device" if here == {True} else "cpu"))
            if here == {True} and name in self.refuses:
                raise self.error
        if func in (Tensor.cpu, Tensor.to) and isinstance(args[0], self.kind):
            target = torch.device("cpu") if func is Tensor.cpu else args[1]
            if target == torch.device("cpu"):
                with torch._C.DisableTorchFunctionSubclass():
                    return args[0].as_subclass(Tensor)
        if func is Tensor.to and args[1] == self.device:
            return args[0].as_subclass(self.kind)
        if kwargs.get("device") == self.device:
            return func(*args, **{**kwargs, "device": "cpu"}).as_subclass(self.kind)
        return func(*args, **kwargs)
