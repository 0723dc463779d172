"""Stand-ins for GPUs and SageAttention, and the reference attention that results are compared with."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def reference(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Attention by plain einsum in float64; q, k, v (batch, heads, tokens, head size) of any dtype."""
    q, k, v = (t.detach().double() for t in (q, k, v))
    scores = torch.einsum("bhid,bhjd->bhij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)


def raises(error: Exception) -> Callable[..., Any]:
    """A function that raises `error`, whatever it is called with."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def compiles(function: Callable[[Tensor], Tensor] = lambda x: -x) -> bool:
    """Whether `torch.compile` works here; that of torch 2.0 does not on Python 3.11."""
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


def stand_in(device: str) -> type[Tensor]:
    """A class of CPU tensors that say they are on `device`; their results say so too."""
    says = {"is_cpu": False, "is_cuda": "cuda" in device, "device": torch.device(device)}
    return type("OnDevice", (Tensor,), {name: property(lambda _, value=value: value) for name, value in says.items()})


OnCuda, OnMps = stand_in("cuda:0"), stand_in("mps:0")


def on(kind: type[Tensor], *tensors: Tensor) -> list[Tensor]:
    """`tensors` as if on another device; their data is shared."""
    return [tensor.as_subclass(kind) for tensor in tensors]


class Sage:
    """A stand-in for sageattention and GPUs; like the real one it changes k and the current device.

    error: the relative L2 error of its result. behave: a function of (q, k, v) to call instead. calls: the keywords of
    each call. current: the current CUDA device. capturing: whether a CUDA graph is captured.
    """

    def __init__(self, error: float = 0.0) -> None:
        self.error, self.current, self.capturing = error, 0, False
        self.behave: Callable[[Tensor, Tensor, Tensor], Any] | None = None
        self.calls: list[dict[str, Any]] = []

    def sageattn(self, q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Tensor:
        self.calls.append({**kwargs, "current": self.current})
        self.current = q.device.index
        if self.behave:
            return self.behave(q, k, v)
        out = reference(q, k, v)
        k -= k.mean(dim=-2, keepdim=True)
        noise = torch.randn(out.shape, dtype=out.dtype)
        return (out + noise * (self.error * out.norm() / noise.norm())).to(q.dtype)

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(self, "current", device.index)
            yield

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace the package sageattention and parts of torch.cuda."""
        monkeypatch.setitem(sys.modules, "sageattention", SimpleNamespace(sageattn=self.sageattn))
        monkeypatch.setattr(torch.cuda, "device", self.device)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.capturing)


class Fft(TorchFunctionMode):
    """While it is active, tensors of `kind` are on `device`, and no FFT takes tensors of two devices.

    refuses: the functions that raise `error` there, or, of COMPLEX, another error for complex numbers. calls: each FFT
    and the device type that it was called on. dtypes: of all tensors that were there.
    """

    NAMES = ("stft", "rfft", "irfft", "istft")
    COMPLEX = ("scatter_add_", "index_fill")

    def __init__(self, device: str, refuses: Collection[str] = (), error: Exception | None = None) -> None:
        super().__init__()
        self.device = torch.device(device)
        says = {"is_cpu": property(lambda _: False), "device": property(lambda _: self.device)}
        self.kind: type[Tensor] = Tensor if device == "cpu" else type("OnDevice", (Tensor,), says)
        self.refuses = refuses
        self.error = error or RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR")
        self.calls: list[tuple[str, str]] = []
        self.dtypes: set[torch.dtype] = set()

    def put(self, tensor: Tensor) -> Tensor:
        """`tensor` on the device; its data is shared."""
        return tensor.as_subclass(self.kind)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").removeprefix("fft_")
        if name in self.NAMES:
            places = {value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)}
            if len(places) > 1:
                raise RuntimeError("Expected all tensors to be on the same device")
            self.calls.append((name, *places))
            if places == {self.device.type} and name in self.refuses:
                raise self.error
        if name in self.COMPLEX and name in self.refuses and isinstance(args[0], self.kind) and args[0].is_complex():
            raise RuntimeError(f"{name}(): Yet not supported for complex")
        to = torch.device("cpu") if func is Tensor.cpu else args[1] if func is Tensor.to else None
        if isinstance(to, (Tensor, torch.device)):
            with torch._C.DisableTorchFunctionSubclass():
                result = args[0].to(to.dtype) if isinstance(to, Tensor) else args[0]
                result = result.as_subclass(self.kind if getattr(to, "device", to) == self.device else Tensor)
        elif kwargs.get("device") == self.device:
            result = self.put(func(*args, **{**kwargs, "device": "cpu"}))
        else:
            result = func(*args, **kwargs)
        if isinstance(result, self.kind):
            self.dtypes.add(result.dtype)
        return result
