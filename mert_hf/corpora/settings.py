"""How recordings are written to shards: the options of `mert-hf shard`."""

from __future__ import annotations

from dataclasses import dataclass

from ..utils.settings import described, shared


@dataclass(frozen=True, kw_only=True)
class ShardingSettings:
    """How recordings are written to shards."""

    seconds: float = described("Length of a segment in seconds.", 60.0)
    codec: str = described("Format of the audio: flac, opus, or original (whole files as they are).", "flac")
    shard_size: str = described("Encoded audio in a shard, such as 500MB or 2GB.", "500MB")
    part: str = described("Write part I of N; parts may run on any machines.", "1/1", metavar="I/N")
    sampling_rate: int = described("Sampling rate in Hz; that of the teacher if there is one.", 24000)
    hop_length: int = described("Samples between two frames; those of the teacher if any.", 320)
    split: str | None = shared("split", None)
    workers: int = shared("workers", 2)
    device: str | None = shared("device", None)
    show_progress_bar: bool = shared("progress", True)
