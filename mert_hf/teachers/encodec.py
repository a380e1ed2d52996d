"""The acoustic teacher of the v1 models: EnCodec's residual codes at 24 kHz (paper, section 3.2)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mert_hf.teachers.base import TEACHER_FILE, Teacher, hash_tensors, read_teacher_file

if TYPE_CHECKING:
    from transformers import EncodecModel

ENCODEC_24KHZ = "facebook/encodec_24khz"
DEFAULT_CODEBOOKS = 8  # 6 kbit/s
BLOCK_FRAMES = 75 * 30  # of a long recording at a time


class EncodecTeacher(Teacher):
    """Codes of `transformers.EncodecModel`: (batch, samples) -> (batch, codebooks, ceil(samples / hop)) int64.

    Equal to `EncodecModel.encode` of the same clips, with as many of its residual codebooks as asked for.

    Args:
        model: a mono EnCodec that takes clips whole, such as facebook/encodec_24khz.
        num_codebooks: codebooks a frame; 8 (6 kbit/s, as in the paper) or as many as there are if None.

    Raises:
        ValueError: the model is of another kind, or has fewer codebooks.
    """

    kind = "encodec"

    def __init__(self, model: EncodecModel, num_codebooks: int | None = None):
        super().__init__()
        config = model.config
        if config.audio_channels != 1 or config.chunk_length_s is not None:
            raise ValueError(
                f"EncodecTeacher takes mono models without chunks, such as {ENCODEC_24KHZ}; this one has "
                f"audio_channels={config.audio_channels}, chunk_length_s={config.chunk_length_s}."
            )
        quantizer = model.quantizer
        by_bandwidth = {quantizer.get_num_quantizers_for_bandwidth(rate): rate for rate in config.target_bandwidths}
        most = max(by_bandwidth)
        num_codebooks = min(DEFAULT_CODEBOOKS, most) if num_codebooks is None else num_codebooks
        if not 1 <= num_codebooks <= most:
            raise ValueError(f"This EnCodec gives 1 to {most} codebooks, got num_codebooks={num_codebooks}.")
        self.num_codebooks, self.codebook_size = num_codebooks, config.codebook_size
        # The first codes of a residual quantiser do not depend on how many follow.
        self.bandwidth = by_bandwidth[min(count for count in by_bandwidth if count >= num_codebooks)]
        self.sampling_rate = config.sampling_rate
        self.hop_length = int(torch.tensor(config.upsampling_ratios).prod())
        self.model = model.requires_grad_(False)
        self.eval()

    def settings(self) -> dict[str, Any]:
        return {"num_codebooks": self.num_codebooks}

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        clips = waveforms.to(self.model.dtype)[:, None]
        return self.model.encode(clips, bandwidth=self.bandwidth).audio_codes[0, :, : self.num_codebooks]

    @torch.no_grad()
    def label_recording(self, waveform: torch.Tensor) -> torch.Tensor:
        """Codes (codebooks, frames) of a recording (samples,), in bounded memory.

        The convolutions of a causal model see so much of the past and no more, so they run block by block; the LSTM, 75
        steps a second, runs through the whole recording. Equal to `forward` up to rounding.
        """
        config, size = self.model.config, BLOCK_FRAMES * self.hop_length
        if waveform.shape[0] <= size or not config.use_causal_conv or config.normalize:
            return super().label_recording(waveform)
        layers = list(self.model.encoder.layers)
        recurrent = next(index for index, layer in enumerate(layers) if has_lstm(layer))
        front, back = nn.Sequential(*layers[:recurrent]), nn.Sequential(*layers[recurrent:])
        margin = -(-receptive_field(front) // self.hop_length)
        blocks = []
        for start in range(0, waveform.shape[0], size):
            begin = max(start - margin * self.hop_length, 0)
            clip = waveform[None, None, begin : start + size].to(self.model.dtype)
            blocks.append(front(clip)[..., (start - begin) // self.hop_length :])
        embeddings = back(torch.cat(blocks, dim=-1))
        return self.model.quantizer.encode(embeddings, self.bandwidth)[: self.num_codebooks, 0]

    def fingerprint(self) -> dict[str, Any]:
        # What encodes counts: a copy without its decoder is the same teacher.
        parts = (*self.model.encoder.state_dict().items(), *self.model.quantizer.state_dict().items())
        return {**super().fingerprint(), "weights": hash_tensors(dict(parts))}

    def save_weights(self, directory: Path) -> None:
        self.model.save_pretrained(directory)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike = ENCODEC_24KHZ,
        num_codebooks: int | None = None,
        revision: str | None = None,
    ) -> EncodecTeacher:
        """Loads a teacher from an EnCodec on the Hub or in a folder, saved by transformers or by this class.

        Args:
            name_or_path: Hub id or folder.
            num_codebooks: codebooks a frame; what was saved with the teacher, else 8, if None.
            revision: branch, tag or commit on the Hub.

        Raises:
            ValueError: the model is no mono EnCodec, or has fewer codebooks.
            OSError: nothing of that name can be read.
        """
        from transformers import EncodecModel

        directory = Path(name_or_path)
        if num_codebooks is None and (directory / TEACHER_FILE).is_file():
            num_codebooks = read_teacher_file(directory).get("num_codebooks")
        arguments = {} if revision is None else {"revision": revision}
        model = EncodecModel.from_pretrained(str(name_or_path), **arguments)
        teacher = cls(model, num_codebooks)
        teacher.name, teacher.revision = str(name_or_path), revision or getattr(model.config, "_commit_hash", None)
        return teacher


def has_lstm(module: nn.Module) -> bool:
    """Whether a layer remembers all of the past."""
    return any(isinstance(part, nn.LSTM) for part in module.modules())


def receptive_field(layers: nn.Module) -> int:
    """Samples that an output of convolutions, one after the other, may depend on; a bound where some are parallel."""
    samples, stride = 1, 1
    for layer in layers.modules():
        if isinstance(layer, nn.Conv1d):
            samples += (layer.kernel_size[0] - 1) * layer.dilation[0] * stride
            stride *= layer.stride[0]
    return samples
