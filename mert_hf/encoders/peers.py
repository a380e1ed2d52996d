"""Other people's pretrained models as encoders, for comparison: `peer:NAME`.

- `peer:basic-pitch`, Bittner et al., "A Lightweight Instrument-Agnostic Model for Polyphonic Note Transcription and
  Multipitch Estimation" (arXiv 2203.09893), Apache 2.0;
- `peer:torchcrepe`, the tiny model of Kim et al., "CREPE: A Convolutional Representation for Pitch Estimation" (arXiv
  1802.06182), MIT;
- `peer:pesto`, Riou et al., "PESTO: Pitch Estimation with Self-supervised Transposition-equivariant Objective" (arXiv
  2309.02265), LGPL 3.0.

Each class calls the functions of the model's own package, which holds the weights too. The packages are installed
without what they require, because that includes torchaudio and TensorFlow: they read files with them, and mert_hf reads
files itself. MusiCNN computes with TensorFlow; `scripts/write_peer_features.py` writes its features.
"""

from __future__ import annotations

import hashlib
import importlib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from ..utils.devices import resolve_device
from ..utils.imports import torchaudio_or_a_stub
from ..utils.optional import MissingExtraError
from .base import CenteredFrames

PREFIX = "peer:"
STEP = 640  # samples at 16 kHz from frame to frame of the models that take any step: 25 frames a second


class BasicPitch(CenteredFrames):
    """Basic Pitch: 264 contours, 88 notes and 88 onsets, of windows of 2 s, on the CPU.

    Frames are 256 samples apart within a window and less from one window to the next: 254.7 on average.
    """

    license = "apache-2.0"
    sampling_rate, hop_length, hidden_size = 22050, 255, 440
    receptive_field = 257  # its own rounding gives shorter clips no frame
    overlap = 30  # frames

    def __init__(self, device: torch.device) -> None:
        names = ("basic_pitch", "basic_pitch.inference", "basic_pitch.constants")
        package, self.inference, constants = _modules("basic-pitch", *names)
        weights = package.build_icassp_2022_model_path(package.FilenameSuffix.onnx)
        self.model = self.inference.Model(weights)
        self.fingerprint = _fingerprint("basic-pitch", weights, self.hop_length)
        self.spacing = constants.FFT_HOP  # of frames of the same window
        self.frames_per_window = constants.ANNOT_N_FRAMES - self.overlap
        self.step = constants.AUDIO_N_SAMPLES - self.overlap * self.spacing

    def features(self, clip: np.ndarray) -> np.ndarray:
        """See `CenteredFrames.features`; as `basic_pitch.inference.run_inference` does it for a file."""
        padded = np.concatenate([np.zeros(self.overlap // 2 * self.spacing, dtype=np.float32), clip])
        windows = self.inference.window_audio_file(padded, self.step)
        found = [self.model.predict(window[None]) for window, _ in windows]
        parts = [np.concatenate([each[name] for each in found]) for name in ("contour", "note", "onset")]
        return np.concatenate([self.inference.unwrap_output(part, len(clip), self.overlap) for part in parts], axis=1)

    def frame_times(self, num_frames: int) -> np.ndarray:
        window, frame = np.divmod(np.arange(num_frames), self.frames_per_window)
        return (window * self.step + frame * self.spacing) / self.sampling_rate


class TorchCrepe(CenteredFrames):
    """CREPE tiny: 256 values before its last convolution, from windows of 64 ms."""

    license = "mit"
    sampling_rate, hop_length, hidden_size = 16000, STEP, 256

    def __init__(self, device: torch.device) -> None:
        (self.package,) = _modules("torchcrepe", "torchcrepe")
        self.device = str(device)
        weights = Path(self.package.__file__).parent / "assets" / "tiny.pth"
        self.fingerprint = _fingerprint("torchcrepe", weights, self.hop_length)

    @torch.no_grad()  # not inference_mode: the package keeps one model for the whole process
    def features(self, clip: np.ndarray) -> np.ndarray:
        audio = torch.from_numpy(np.ascontiguousarray(clip))[None]
        options = {"model": "tiny", "batch_size": 512, "device": self.device}
        values = self.package.embed(audio, self.sampling_rate, self.hop_length, **options)
        return values.reshape(-1, self.hidden_size).numpy()


class Pesto(CenteredFrames):
    """PESTO: activations of 384 pitches, a third of a semitone apart."""

    license = "lgpl-3.0"
    sampling_rate, hop_length, hidden_size = 16000, STEP, 384
    checkpoint = "mir-1k_g7"  # the package's default

    def __init__(self, device: torch.device) -> None:
        package, loader = _modules("pesto-pitch", "pesto", "pesto.loader")
        milliseconds = 1000 * self.hop_length / self.sampling_rate
        self.model = loader.load_model(self.checkpoint, milliseconds, self.sampling_rate).to(device)
        weights = Path(package.__file__).parent / "weights" / f"{self.checkpoint}.ckpt"
        self.fingerprint = _fingerprint("pesto-pitch", weights, self.hop_length)
        transform = self.model.preprocessor.hcqt_kernels.cqt_kernels[0]
        self.receptive_field = transform.kernel_width // 2 + 1  # samples that it reflects at both ends
        self.device = device

    @torch.inference_mode()
    def features(self, clip: np.ndarray) -> np.ndarray:
        audio = torch.from_numpy(np.ascontiguousarray(clip)).to(self.device)
        return self.model(audio[None], self.sampling_rate)[-1][0].cpu().numpy()


PEERS: dict[str, type[CenteredFrames]] = {"basic-pitch": BasicPitch, "torchcrepe": TorchCrepe, "pesto": Pesto}


def open_peer(name: str, device: str | torch.device | None = None) -> CenteredFrames:
    """The encoder of a name such as "peer:pesto"; ValueError or MissingExtraError where there is none."""
    peer = name.removeprefix(PREFIX)
    if peer not in PEERS:
        raise ValueError(f"There is no model {name!r}. There are {', '.join(PREFIX + known for known in PEERS)}.")
    return PEERS[peer](resolve_device(device))


def _modules(package: str, *names: str) -> list[ModuleType]:
    """Modules of a package of the index, which are imported without torchaudio where there is none."""
    try:
        with torchaudio_or_a_stub():
            return [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'{error.name} is not installed. Install what {package} needs with: pip install "mert_hf[peers]" && '
            f"pip install --no-deps {package}",
            name=error.name,
        ) from error


def _fingerprint(package: str, weights: Path, hop_length: int) -> str:
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return f"{package} {version(package)} {digest} {hop_length}"
