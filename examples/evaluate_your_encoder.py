"""Evaluates an encoder of your own: any object with a sampling rate, a fingerprint and `encode`.

python examples/evaluate_your_encoder.py my_songs genre results.json
"""

import sys

import torch

from mert_hf.evaluation import evaluate


class LoudnessOfBands:
    """Replace it by your model: here, the log energy of 64 bands in 50 frames a second, one "layer"."""

    sampling_rate = 16000
    fingerprint = "log energy of 64 bands, 50 Hz"

    def encode(self, clips):
        frames = [torch.from_numpy(clip).unfold(0, 640, 320) * torch.hann_window(640) for clip in clips]
        spectra = [torch.fft.rfft(frame).abs()[:, :320] for frame in frames]
        return [(spectrum.unflatten(1, (64, 5)).mean(dim=2) + 1e-5).log() for spectrum in spectra]


if __name__ == "__main__":
    data, target, output = sys.argv[1:]
    results = evaluate("audiofolder", data, LoudnessOfBands(), name="bands", output=output, target=target)
    print(results["metrics"])
