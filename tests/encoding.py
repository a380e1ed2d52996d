"""Recordings in the formats of FFmpeg, by PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def encode(path: Path, codec: str, rate: int, samples: np.ndarray, **options: str) -> Path:
    """Writes samples (samples, 2) with an encoder of FFmpeg; a file named .mp4 has a picture, too."""
    kind = {".m4a": "ipod", ".wma": "asf", ".aac": "adts", ".mka": "matroska", ".oga": "ogg"}.get(path.suffix)
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        picture = container.add_stream("mpeg4", rate=1) if path.suffix == ".mp4" else None
        if picture:
            picture.width = picture.height = 32
            picture.pix_fmt = "yuv420p"
            for second in range(int(len(samples) / rate)):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), second, np.uint8), format="rgb24")
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        stream.bit_rate = 192_000
        if codec == "wavpack":
            stream.codec_context.format = "s16p"  # of 8 bits by default
        resampler = av.AudioResampler(stream.format.name, "stereo", rate, stream.frame_size or 4096)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
    return path
