"""The acoustic teacher of MuQ (arXiv 2501.01108, section 3.2): residual quantization of a linear code of log-mel."""

from __future__ import annotations

import torch

from .mel_frames import MelQuantizerTeacher
from .residual import residual_codes


class MelRVQTeacher(MelQuantizerTeacher):
    """Codes of a residual vector quantizer behind one linear layer, trained to reconstruct log-mel frames.

    MuQ's has 8 codebooks of 1,024 codes of dimension 16. `mert-hf fit-rvq` trains one.

    Args:
        sampling_rate: sampling rate of the waveforms in Hz.
        hop_length: samples from one frame to the next.
        num_bins: mel bands.
        stack: log-mel frames in a frame of the student.
        weights: `encoder` (num_bins * stack, dim), `bias` (dim,), `codebooks` (num_codebooks, codes, dim), and `mean`
            and `scale` (num_bins,).

    Raises:
        ValueError: weights are missing or do not fit.
    """

    kind = "mel_rvq"

    def __init__(
        self,
        sampling_rate: int = 24000,
        hop_length: int = 320,
        num_bins: int = 128,
        stack: int = 1,
        **weights: torch.Tensor,
    ):
        expected = {"encoder", "bias", "codebooks", "mean", "scale"}
        if set(weights) != expected:
            raise ValueError(f"The teacher needs the weights {sorted(expected)}, given {sorted(weights)}.")
        super().__init__(sampling_rate, hop_length, num_bins, stack, weights.pop("mean"), weights.pop("scale"))
        codebooks = weights["codebooks"]
        dim = codebooks.shape[-1]
        shapes = {"encoder": (num_bins * stack, dim), "bias": (dim,), "codebooks": (*codebooks.shape[:2], dim)}
        self._register(weights, shapes)
        self.codebook_sizes = (codebooks.shape[1],) * codebooks.shape[0]

    def quantize(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., num_codebooks)."""
        return residual_codes(vectors @ self.encoder + self.bias, self.codebooks)[0]
