# SPDX-License-Identifier: Apache-2.0
"""Constant-Q transform of MERT: the musical teacher's spectrum and the optional second input of MERT-v0."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

CQT_LOWEST_FREQUENCY = 32.7  # Hz, the C1 of the authors' CQT input and target
CQT_OCTAVES = 7
CQT_LOG_GAIN = 100.0  # log(1 + gain * magnitude) brings soft partials into the range of a linear layer
CQT_SIDELOBES = 40  # multiples of 1 / length kept on either side of a kernel's center frequency: errors near 1e-5
CQT_WINDOW_FRAMES = 1024  # longer clips are transformed in windows of about this many frames
# Fourier transforms are fast for even sizes without a prime factor above 5.
CQT_WINDOW_SIZES = sorted(2**a * 3**b * 5**c for a in range(1, 21) for b in range(13) for c in range(9))
CQT_CACHED_WINDOWS = 4  # window lengths whose kernels are kept


class CQTKernels(NamedTuple):
    """Kernels of `MERTConstantQTransform` for a window of `frames` hops."""

    left: int  # number of frequencies by which the one-sided spectrum is extended below 0
    right: int  # number of those above the Nyquist frequency
    half_sample: torch.Tensor  # (frequencies,) complex64, the spectrum of a delay of half a sample
    # For each group of long kernels, the positions of their first frequencies and their spectra (bins, folds, frames).
    bands: tuple[tuple[list[int], torch.Tensor], ...]
    taps: tuple[torch.Tensor, ...]  # for each group of short kernels, cosines and sines (2 * half width, 2 * bins)


class MERTConstantQTransform(nn.Module):
    """Constant-Q magnitudes, equal to nnAudio's `CQT(norm=1, pad_mode="constant")` to about 1e-5 of the maximum.

    On impulses the largest difference is 2.8e-5.

    Kernels are Hann-windowed exponentials of `ceil(Q * sampling_rate / frequency)` samples with unit L1 norm. The
    output is multiplied by the square root of that length. Frames are centered on multiples of the hop, and the clip
    is surrounded by silence. Long kernels are narrow in frequency: each multiplies a band of the clip's spectrum, which
    is folded to the hop rate and transformed back. Short kernels are wide in frequency: they are applied to the clip's
    frames as a matrix product.

    The transform is computed in float32, also under autocast. It has no parameters and no buffers: kernels are computed
    for each window length and device when they are first used, so that the module can be built on the meta device.

    Source: Brown & Puckette 1992; nnAudio, `features/cqt.py` (CQT1992v2) and `utils.py` (create_cqt_kernels).

    Args:
        sampling_rate: sampling rate of the input in Hz.
        hop_length: samples from one frame to the next.
        num_bins: number of frequencies.
        bins_per_octave: frequencies per octave; Q = 1 / (2^(1 / bins_per_octave) - 1).
        f_min: lowest frequency in Hz.

    Raises:
        ValueError: a size is not positive, or the highest frequency exceeds half the sampling rate.

    Examples:

    ```python
    >>> import torch
    >>> from mert_hf.modeling.cqt_mert import MERTConstantQTransform

    >>> transform = MERTConstantQTransform(sampling_rate=24000, num_bins=84, bins_per_octave=12)
    >>> tone = torch.sin(2 * torch.pi * 440.0 * torch.arange(24000) / 24000)
    >>> spectrum = transform(tone[None])
    >>> spectrum.shape
    torch.Size([1, 76, 84])
    >>> spectrum[0, 38].argmax()  # 45 semitones above C1 is A4, 440 Hz
    tensor(45)

    ```
    """

    def __init__(
        self,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        num_bins: int = 336,
        bins_per_octave: int = 48,
        f_min: float = 32.7,
    ):
        super().__init__()
        sizes = {"sampling_rate": sampling_rate, "hop_length": hop_length, "num_bins": num_bins}
        for name, value in {**sizes, "bins_per_octave": bins_per_octave, "f_min": f_min}.items():
            if not value > 0:
                raise ValueError(f"{name} of the constant-Q transform must be positive, given {value}.")
        frequencies = f_min * 2.0 ** (np.arange(num_bins) / bins_per_octave)
        if frequencies[-1] > sampling_rate / 2:
            raise ValueError(
                f"num_bins={num_bins} with bins_per_octave={bins_per_octave} from {f_min} Hz reach "
                f"{frequencies[-1]:.0f} Hz, more than half the sampling rate of {sampling_rate} Hz. Use fewer bins or "
                "more bins per octave."
            )
        self.sampling_rate, self.hop_length, self.f_min = sampling_rate, hop_length, f_min
        self.num_bins, self.bins_per_octave = num_bins, bins_per_octave
        quality = 1.0 / (2.0 ** (1.0 / bins_per_octave) - 1.0)
        self._frequencies = frequencies / sampling_rate  # cycles per sample
        self._lengths = np.ceil(quality * sampling_rate / frequencies).astype(np.int64)
        self._longest = int(self._lengths[0])
        # The cost of a matrix product grows with length, that of a band with hop / length. They are equal here on CPU.
        self._num_long = int((self._lengths > 40 * math.sqrt(hop_length)).sum())
        self._kernels: dict[tuple[int, torch.device], CQTKernels] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kernels": {}}  # copies and data workers compute their own kernels

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Transforms clips.

        Args:
            waveforms: (batch, samples) floating point, mono at `sampling_rate`.

        Returns:
            Magnitudes (batch, samples // hop_length + 1, num_bins) float32.

        Raises:
            TypeError: the input is not a floating-point tensor.
            ValueError: the input does not have the shape (batch, samples), or has no samples.
        """
        if not torch.is_floating_point(waveforms):
            raise TypeError(f"waveforms must be floating point, given {waveforms.dtype}. Convert PCM to [-1, 1] first.")
        if waveforms.ndim != 2 or waveforms.shape[1] == 0:
            raise ValueError(
                f"waveforms must have the shape (batch, samples) with samples > 0, given {tuple(waveforms.shape)}."
            )
        with without_autocast(waveforms.device):
            return self._transform(waveforms.float())

    def _transform(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, frames, bins), in overlapping windows if the clip is long."""
        hop, count = self.hop_length, waveforms.shape[1] // self.hop_length + 1
        exporting = getattr(torch.compiler, "is_exporting", torch.onnx.is_in_onnx_export)  # torch < 2.7 lacks it
        if exporting() or torch.onnx.is_in_onnx_export():  # Fourier transforms have a fixed size there
            return self._direct(waveforms, count)
        # Frames whose kernels would extend beyond the window, which is circular: without this margin the end of a clip
        # would be heard at its start.
        margin = self._longest // (2 * hop) + 2
        if count + margin <= CQT_WINDOW_FRAMES:
            return self._magnitudes(waveforms, window_size(count + margin), 0, count)
        size = window_size(max(CQT_WINDOW_FRAMES, 6 * margin))
        step = size - 2 * margin
        padded = nn.functional.pad(waveforms, (margin * hop, size * hop))
        return torch.cat(
            [
                self._magnitudes(padded[:, first * hop : (first + size) * hop], size, margin, min(step, count - first))
                for first in range(0, count, step)
            ],
            dim=1,
        )

    def _direct(self, waveforms: torch.Tensor, count: int) -> torch.Tensor:
        """All kernels as convolutions in time: slower, and a graph that takes any number of samples."""
        parts = []
        for begin, end in similar_runs(1.0 / self._lengths):
            taps = torch.from_numpy(self._taps(np.arange(begin, end))).to(waveforms.device)
            half = taps.shape[0] // 2
            padded = nn.functional.pad(waveforms[:, None], (half, half + self.hop_length))
            products = nn.functional.conv1d(padded, taps.T[:, None], stride=self.hop_length)[..., :count]
            parts.append(magnitudes(*products.chunk(2, dim=1)))
        return torch.cat(parts, dim=1).transpose(1, 2).contiguous()

    def _magnitudes(self, waveforms: torch.Tensor, size: int, first: int, count: int) -> torch.Tensor:
        """`count` frames from frame `first` of a window of `size` hops: (batch, samples) -> (batch, count, bins).

        The window is circular: silence of half a kernel at its end surrounds the clip on both sides.
        """
        kernels = self._window_kernels(size, waveforms.device)
        parts = []
        if kernels.bands:
            folded = self._folded_bands(torch.fft.rfft(waveforms, n=size * self.hop_length), kernels)
            bands = torch.view_as_real(torch.fft.ifft(folded)[..., first : first + count])  # (batch, bins, count, 2)
            parts.append(magnitudes(bands[..., 0], bands[..., 1]).transpose(1, 2))
        if kernels.taps:
            parts.append(self._tapped(waveforms, kernels.taps, first, count))
        return torch.cat(parts, dim=-1)

    def _folded_bands(self, spectrum: torch.Tensor, kernels: CQTKernels) -> torch.Tensor:
        """Each long kernel's band at the hop rate: (batch, frequencies) complex -> (batch, bins, frames) complex.

        Decimation in time by the hop is aliasing in frequency: the band is cut into pieces of `frames` frequencies,
        which are added. Starting at the band's first frequency instead of 0 changes the phase but not the magnitude.
        """
        if kernels.left or kernels.right:  # the spectrum of a real signal is conjugate symmetric about 0 and Nyquist
            left = spectrum[:, 1 : kernels.left + 1].flip(1).conj()
            right = spectrum[:, spectrum.shape[1] - 1 - kernels.right : -1].flip(1).conj()
            spectrum = torch.cat([left, spectrum, right], dim=1)
        both = torch.cat([spectrum, spectrum * kernels.half_sample], dim=1)
        folded = []
        for starts, spectra in kernels.bands:
            _, folds, frames = spectra.shape
            band = torch.stack([both[:, start : start + folds * frames] for start in starts], dim=1)
            folded.append(band.unflatten(-1, (folds, frames)).mul_(spectra).sum(2))
        return torch.cat(folded, dim=1)

    def _tapped(self, waveforms: torch.Tensor, taps: tuple[torch.Tensor, ...], first: int, count: int) -> torch.Tensor:
        """The short kernels: (batch, samples) -> (batch, count, bins)."""
        widest = taps[0].shape[0] // 2
        padded = nn.functional.pad(waveforms, (widest, widest + self.hop_length))
        frames = padded.unfold(1, 2 * widest, self.hop_length)[:, first : first + count]
        frames = frames.to(taps[0].dtype).contiguous()
        parts = []
        for matrix in taps:
            half = matrix.shape[0] // 2
            parts.append(magnitudes(*(frames[..., widest - half : widest + half] @ matrix).chunk(2, dim=-1)))
        return torch.cat(parts, dim=-1).float()

    @torch.compiler.assume_constant_result
    def _window_kernels(self, size: int, device: torch.device) -> CQTKernels:
        """The kernels for windows of `size` hops on `device`; the most recently used ones are kept."""
        kernels = self._kernels.pop((size, device), None)
        if kernels is None:
            with torch.inference_mode(False):  # tensors created in inference mode cannot be used in training
                kernels = self._make_kernels(size, device)
        if not torch.compiler.is_compiling():  # the fake tensors of an export must not be kept
            self._kernels[size, device] = kernels
            if len(self._kernels) > CQT_CACHED_WINDOWS:
                del self._kernels[next(iter(self._kernels))]
        return kernels

    def _make_kernels(self, size: int, device: torch.device) -> CQTKernels:
        """Computes the kernels for windows of `size` hops."""
        samples, lengths = size * self.hop_length, self._lengths
        # A kernel of n samples fills 2 * CQT_SIDELOBES / n of the spectrum, and `size` frequencies fill 1 / hop of it.
        folds = np.ceil(2 * CQT_SIDELOBES * self.hop_length / lengths[: self._num_long]).astype(np.int64)
        folds = np.minimum(folds, self.hop_length)  # the whole spectrum
        groups = [(slice(begin, end), int(folds[end - 1])) for begin, end in similar_runs(folds)]
        centers = np.rint(self._frequencies * samples).astype(np.int64)
        starts = [centers[bins] - count * size // 2 for bins, count in groups]
        ends = [start + count * size for start, (_, count) in zip(starts, groups, strict=True)]
        left = max([0, *(-int(start.min()) for start in starts)])
        right = max([0, *(int(end.max()) - 1 - samples // 2 for end in ends)])
        frequencies = np.arange(-left, samples // 2 + right + 1) / samples
        bands = tuple(
            (
                # Kernels of odd length are read from the second copy of the spectrum, delayed by half a sample.
                (start + left + lengths[bins] % 2 * len(frequencies)).tolist(),
                torch.from_numpy(self._spectra(bins, start, count * size, samples))
                .to(device)
                .unflatten(1, (count, size)),
            )
            for start, (bins, count) in zip(starts, groups, strict=True)
        )
        half_sample = torch.from_numpy(np.exp(-1j * np.pi * frequencies).astype(np.complex64)).to(device)
        exact = torch.float64 if device.type in ("cuda", "xpu") else torch.float32  # TF32 has errors of 1e-3
        runs = similar_runs(1.0 / lengths[self._num_long :])
        taps = [self._taps(np.arange(begin, end) + self._num_long) for begin, end in runs]
        return CQTKernels(left, right, half_sample, bands, tuple(torch.from_numpy(t).to(device, exact) for t in taps))

    def _spectra(self, bins: slice, starts: np.ndarray, width: int, samples: int) -> np.ndarray:
        """Spectra of long kernels at `width` of the `samples` frequencies, starting at `starts`: (bins, width) float32.

        A Hann window of n samples with its middle at time 0 has the real spectrum
        E(x) / 2 + E(x + pi / n) / 4 + E(x - pi / n) / 4 at 2 x radians per sample, with E(a) = sin(n a) / tan(a). The
        middle of a kernel of odd length lies half a sample before the frame's time, which the factor `half_sample`
        accounts for.
        """
        lengths = self._lengths[bins, None].astype(np.float64)
        x = np.pi * ((starts[:, None] + np.arange(width)) / samples - self._frequencies[bins, None])
        spectra = np.zeros_like(x)
        for shift, weight in ((0.0, 0.5), (np.pi / lengths, 0.25), (-np.pi / lengths, 0.25)):
            angle = x + shift
            at_zero = np.abs(angle) < 1e-9
            angle[at_zero] = 1.0
            spectra += weight * np.where(at_zero, lengths, np.sin(lengths * angle) / np.tan(angle))
        spectra *= 2.0 / np.sqrt(lengths) / self.hop_length
        return spectra.astype(np.float32)

    def _taps(self, bins: np.ndarray) -> np.ndarray:
        """Short kernels, centered and padded to the longest one: (2 * half width, 2 * bins) float32."""
        lengths = self._lengths[bins]
        half = int(lengths[0] + 1) // 2
        time = np.arange(-half, half)[:, None]
        age = time + (lengths + 1) // 2  # samples since the start of the kernel
        window = np.where((age >= 0) & (age < lengths), 0.5 - 0.5 * np.cos(2 * np.pi * age / lengths), 0.0)
        window *= 2.0 / np.sqrt(lengths)
        phase = 2 * np.pi * self._frequencies[bins] * time
        return np.concatenate([window * np.cos(phase), window * np.sin(phase)], axis=1).astype(np.float32)


def without_autocast(device: torch.device) -> torch.autocast:
    """A context without autocast on `device`: operations run in the dtype of their inputs."""
    return torch.autocast(device_type=device.type if device.type in ("cuda", "xpu") else "cpu", enabled=False)


def magnitudes(real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
    """Absolute values of complex numbers, with a finite gradient at 0."""
    power = real.square() + imaginary.square()
    return (power.clamp_min(1e-30) if power.requires_grad else power).sqrt()


def window_size(minimum: int) -> int:
    """The smallest supported size of at least `minimum` hops with a fast Fourier transform.

    The loop makes it a constant for torch.compile where `minimum` is symbolic.
    """
    for size in CQT_WINDOW_SIZES:
        if size >= minimum:
            return size
    raise ValueError(
        f"A constant-Q kernel needs a window of {minimum} hops; at most {CQT_WINDOW_SIZES[-1]} are supported."
    )


def similar_runs(values: np.ndarray) -> list[tuple[int, int]]:
    """Splits increasing positive values into runs that grow by at most a fifth; returns pairs (begin, end)."""
    runs, begin = [], 0
    for position in range(1, len(values) + 1):
        if position == len(values) or values[position] > 1.2 * values[begin]:
            runs.append((begin, position))
            begin = position
    return runs


__all__ = ["MERTConstantQTransform"]
