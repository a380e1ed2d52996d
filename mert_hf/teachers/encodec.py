"""The acoustic teacher of MERT-v1: codes of EnCodec's residual vector quantiser (arXiv 2210.13438)."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from transformers import EncodecModel

from .base import CONFIG_NAME, Teacher, check_waveforms, local_folder, read_config

DEFAULT_CODEC = "facebook/encodec_24khz"
DEFAULT_CODEBOOKS = 8  # 6 kbps at 24 kHz


class EncodecTeacher(Teacher):
    """Codes of a frozen EnCodec, exactly those of `EncodecModel.encode`.

    Labelling a whole file and cropping the codes, as the authors do, differs near the crop's edges from labelling the
    crop: the codec sees padding there.

    Args:
        model: a mono codec without chunks or normalisation, such as facebook/encodec_24khz.
        num_codebooks: the first so many codebooks; 8, or all where there are fewer, if None.

    Raises:
        ValueError: a codec that is not mono, or works in chunks; more codebooks than it has.
    """

    kind = "encodec"

    def __init__(self, model: EncodecModel, num_codebooks: int | None = None):
        super().__init__()
        config = model.config
        if config.audio_channels != 1 or config.normalize or config.chunk_length_s is not None:
            raise ValueError(
                f"The codec has audio_channels={config.audio_channels}, normalize={config.normalize}, chunk_length_s="
                f"{config.chunk_length_s}: its codes do not follow the audio frame by frame. Give a mono codec that "
                f"works without chunks, such as {DEFAULT_CODEC}."
            )
        self.model = model.eval().requires_grad_(False)
        self.sampling_rate, self.hop_length = config.sampling_rate, math.prod(config.upsampling_ratios)
        self.codebook_size = config.codebook_size
        largest = self._codebooks_at(max(config.target_bandwidths))
        self.num_codebooks = min(DEFAULT_CODEBOOKS, largest) if num_codebooks is None else num_codebooks
        if isinstance(num_codebooks, bool) or not 1 <= self.num_codebooks <= largest:
            raise ValueError(f"num_codebooks={num_codebooks!r} must be between 1 and {largest}, what this codec has.")
        # A residual quantiser's first codebooks do not depend on how many follow.
        self.bandwidth = min(b for b in config.target_bandwidths if self._codebooks_at(b) >= self.num_codebooks)

    def _codebooks_at(self, bandwidth: float) -> int:
        return self.model.quantizer.get_num_quantizers_for_bandwidth(bandwidth)

    def settings(self) -> dict[str, Any]:
        """The number of codebooks; the codec's settings are its own config.json."""
        return {"num_codebooks": self.num_codebooks}

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes the codec as transformers does, and the number of codebooks beside it."""
        self.model.save_pretrained(directory)
        self._write_config(directory)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike = DEFAULT_CODEC, num_codebooks: int | None = None, **kwargs: Any
    ) -> EncodecTeacher:
        """Loads a codec from a folder or the Hub.

        Args:
            name_or_path: Hub id, or a folder that EncodecModel, this class or `mert-hf convert encodec` wrote.
            num_codebooks: overrides the saved number.
            kwargs: go to `EncodecModel.from_pretrained`.
        """
        model = EncodecModel.from_pretrained(name_or_path, **kwargs)
        saved = os.path.join(name_or_path, CONFIG_NAME)
        if num_codebooks is None and os.path.isfile(saved):
            num_codebooks = read_config(local_folder(name_or_path)).get("num_codebooks")
        return cls(model, num_codebooks)

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) floating point in [-1, 1] -> (batch, num_codebooks, ceil(samples / hop_length)) int64."""
        with torch.autocast(waveforms.device.type, enabled=False):
            codes = self.model.encode(check_waveforms(waveforms)[:, None], bandwidth=self.bandwidth).audio_codes
        return codes[0, :, : self.num_codebooks]
