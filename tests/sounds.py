"""Synthetic recordings for the audio and embedding tests."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import soundfile

FORMATS = {  # name of the file: format, subtype, sampling rate
    "a.wav": ("WAV", "PCM_16", 22050),
    "b.wav": ("WAV", "FLOAT", 44100),
    "c.wav": ("WAV", "PCM_24", 8000),
    "d.flac": ("FLAC", "PCM_16", 44100),
    "e.ogg": ("OGG", "VORBIS", 44100),
    "f.opus": ("OGG", "OPUS", 48000),
    "g.mp3": ("MP3", "MPEG_LAYER_III", 44100),
    "h.aiff": ("AIFF", "PCM_16", 96000),
    "i.w64": ("W64", "PCM_16", 32000),
    "j.au": ("AU", "PCM_16", 11025),
    "k.rf64": ("RF64", "PCM_16", 24000),
}


def sweep(seconds: float, sampling_rate: int, channels: int = 2) -> np.ndarray:
    """(samples, channels) float32: a rising tone in noise, another one in each channel."""
    time = np.arange(round(seconds * sampling_rate)) / sampling_rate
    noise = np.random.default_rng(0).standard_normal((len(time), channels))
    tones = [np.sin(2 * np.pi * (200 + 100 * channel + 300 * time) * time) for channel in range(channels)]
    return (0.4 * np.stack(tones, axis=1) + 0.05 * noise).astype(np.float32)


def write(path: Path, samples: np.ndarray, sampling_rate: int, format: str = "WAV", subtype: str = "PCM_16") -> Path:
    """Writes in blocks, since libsndfile crashes on a long Vorbis or Opus block."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", sampling_rate, channels, subtype, format=format) as file:
        for start in range(0, len(samples), 4096):
            file.write(samples[start : start + 4096])
    return path


def write_format(folder: Path, name: str, seconds: float = 4.0, channels: int = 2) -> Path:
    """A file of `FORMATS`."""
    format, subtype, rate = FORMATS[name]
    return write(folder / name, sweep(seconds, rate, channels), rate, format, subtype)


def set_in_ogg_page(data: bytearray, page: int, format: str, offset: int, value: int) -> None:
    """Changes a field in the header of the Ogg page at `page`, and the page's checksum with it."""
    segments = data[page + 26]
    end = page + 27 + segments + sum(data[page + 27 : page + 27 + segments])
    struct.pack_into(format, data, page + offset, value)
    struct.pack_into("<I", data, page + 22, 0)
    remainder = 0  # CRC of RFC 3533: polynomial 0x04C11DB7, not reflected, starting at 0
    for byte in data[page:end]:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C11DB7 if remainder >> 31 else 0)) & 0xFFFFFFFF
    struct.pack_into("<I", data, page + 22, remainder)


def melody(seed: int, seconds: float = 12.0, sampling_rate: int = 24000) -> np.ndarray:
    """(samples,) float32: notes of random pitch and length with partials, another melody for each seed."""
    draws = np.random.default_rng(seed)
    parts, remaining = [], round(seconds * sampling_rate)
    while remaining > 0:
        length = min(round(draws.uniform(0.15, 0.5) * sampling_rate), remaining)
        time = np.arange(length) / sampling_rate
        pitch = 110 * 2 ** (draws.integers(0, 36) / 12)
        partials = sum(np.sin(2 * np.pi * pitch * k * time) / k ** draws.uniform(0.5, 1.5) for k in range(1, 9))
        noise = draws.uniform(0.01, 0.1) * draws.standard_normal(length)
        parts.append((partials + noise) * np.exp(-draws.uniform(1, 6) * time))
        remaining -= length
    samples = np.concatenate(parts)
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


USERS_FILES = {  # name: format, subtype, sampling rate, channels, seconds
    "orchestral_stereo_44k.ogg": ("OGG", "VORBIS", 44100, 2, 5.0),
    "orchestral_stereo_44k.flac": ("FLAC", "PCM_16", 44100, 2, 6.0),
    "electronic_stereo_48k.opus": ("OGG", "OPUS", 48000, 2, 5.0),
    "ambient_mono_22k.wav": ("WAV", "PCM_16", 22050, 1, 8.0),
    "ambient_mono_8k.wav": ("WAV", "PCM_16", 8000, 1, 5.0),
    "metal_stereo_44k.mp3": ("MP3", "MPEG_LAYER_III", 44100, 2, 5.0),
    "synth_stereo_float32_44k.wav": ("WAV", "FLOAT", 48000, 2, 3.0),
}


def write_users_recordings(folder: Path) -> Path:
    """Generated sounds in place of ../shared/audio: the formats that users have and, in `damaged`, damaged files."""
    for name, (format, subtype, rate, channels, seconds) in USERS_FILES.items():
        write(folder / name, sweep(seconds, rate, channels), rate, format, subtype)
    damaged = folder / "damaged"
    damaged.mkdir()
    (damaged / "empty.wav").touch()
    (damaged / "not_audio.mp3").write_text("This is a text file.\n" * 50)
    (damaged / "header_only.flac").write_bytes((folder / "orchestral_stereo_44k.flac").read_bytes()[:60])
    data = (folder / "orchestral_stereo_44k.ogg").read_bytes()
    (damaged / "truncated.ogg").write_bytes(data[: len(data) * 2 // 3])
    with_nan = sweep(3.0, 24000, 1)
    with_nan[5000:5100] = np.nan  # from 0.21 s
    write(damaged / "nan.wav", with_nan, 24000, subtype="FLOAT")
    write(damaged / "silence.wav", np.zeros(72000), 24000)
    return folder
