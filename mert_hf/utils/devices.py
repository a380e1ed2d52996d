"""The device, the precision and the processes that compute, and the time that a computation takes there."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AUTO = "auto"
# The position convolution of wav2vec 2.0, HuBERT and music2vec: oneDNN computes some grouped convolutions wrongly in
# bfloat16 on CPUs with AMX (pytorch issues 163347, 169688). MERT does not use these kernels.
CHECKED_CHANNELS, CHECKED_GROUPS, CHECKED_KERNEL = 768, 16, 128
LARGEST_ERROR = 0.05  # relative; rounding to bfloat16 stays below 0.01, the wrong kernels exceed 1


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device named, or the GPU if there is one, or the CPU. Raises ValueError where torch finds no such device."""
    has_mps = torch.backends.mps.is_available()
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={str(device)!r} is not known. Give cpu, cuda, cuda:1 or mps.") from error
    count = {"cuda": torch.cuda.device_count(), "mps": int(has_mps)}.get(chosen.type)
    if count is not None and (chosen.index or 0) >= count:
        raise ValueError(
            f"device={str(device)!r} does not exist: torch finds {count or 'no'} GPUs of this kind. Give another "
            "device, such as cpu, or install a build of torch for your GPU."
        )
    return chosen


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device | str = "cpu") -> torch.dtype:
    """The torch.dtype for its name, float32 for None; "auto" depends on the device. ValueError for another name."""
    if dtype is None:
        return torch.float32
    if dtype in DTYPES.values():
        return dtype
    if dtype == AUTO:
        return automatic_dtype(device)
    if dtype not in DTYPES:
        hint = " For int8, export the model: mert-hf export onnx MODEL OUT --int8, and use --model OUT."
        raise ValueError(f"dtype={dtype!r} must be one of auto, {', '.join(DTYPES)}.{hint * (dtype == 'int8')}")
    return DTYPES[dtype]


def automatic_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device computes in it natively and correctly, else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
        in_hardware = kind == "cpu" and any(probe() for probe in probes if probe is not None)
        native = in_hardware and grouped_convolution_is_correct()
    return torch.bfloat16 if native else torch.float32


@cache
def grouped_convolution_is_correct() -> bool:
    """Whether a small grouped convolution in bfloat16 on the CPU agrees with float32."""
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(1, CHECKED_CHANNELS, 2 * CHECKED_KERNEL, generator=generator)
    kernel = torch.randn(CHECKED_CHANNELS, CHECKED_CHANNELS // CHECKED_GROUPS, CHECKED_KERNEL, generator=generator)
    expected = torch.nn.functional.conv1d(signal, kernel, groups=CHECKED_GROUPS)
    computed = torch.nn.functional.conv1d(signal.bfloat16(), kernel.bfloat16(), groups=CHECKED_GROUPS).float()
    return float((computed - expected).norm() / expected.norm()) < LARGEST_ERROR


def training_precision(dtype: str, device: str | None) -> dict[str, bool]:
    """The precision fields of `TrainingArguments` for the words of a command line.

    "auto" is bfloat16 on a GPU that computes in it, else float32; the device is "cpu" or "cuda", a GPU if there is one
    if None. Raises ValueError for another dtype, or a device that `TrainingArguments` cannot select.
    """
    if device not in (None, "cpu", "cuda"):
        raise ValueError(
            f"device={device!r} must be cpu or cuda in training. Choose among several GPUs with the environment "
            "variable CUDA_VISIBLE_DEVICES, or with accelerate launch."
        )
    resolve_device(device)  # refuses cuda where there is no GPU
    use_cpu = device == "cpu" or not torch.cuda.is_available()
    chosen = torch.float32 if dtype == AUTO and use_cpu else resolve_dtype(dtype, "cpu" if use_cpu else "cuda")
    return {"use_cpu": device == "cpu", "bf16": chosen == torch.bfloat16, "fp16": chosen == torch.float16}


def launched_processes(device: str | torch.device | None = None, **settings: Any):
    """accelerate's `PartialState`: number of this process and of all, which compute on `device`, a GPU by default.

    Left to itself, accelerate takes each of several processes without a GPU for the only one, so that all of them would
    do the whole work.
    """
    from accelerate import PartialState

    return PartialState(cpu=resolve_device(device).type == "cpu", **settings)


def device_of(computer: Any) -> torch.device:
    """Where a module or any callable computes: the device of its weights, its attribute `device`, else the CPU."""
    if isinstance(computer, torch.nn.Module):
        for tensor in (*computer.parameters(), *computer.buffers()):
            return tensor.device
    return torch.device(getattr(computer, "device", "cpu"))


class Stopwatch:
    """Starts when it is made; `stop` ends the measurement and `seconds` reads it.

    On a GPU both ends are events in its queue, and only `seconds` waits for them.
    """

    def __init__(self, device: torch.device):
        self._start = self._mark(device)
        self._device = device
        self._end = self._start

    @staticmethod
    def _mark(device: torch.device) -> float | torch.cuda.Event:
        if device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    def stop(self) -> None:
        self._end = self._mark(self._device)

    def seconds(self) -> float:
        """Time between start and `stop`."""
        if isinstance(self._start, float):
            return self._end - self._start
        self._end.synchronize()
        return self._start.elapsed_time(self._end) / 1000.0
