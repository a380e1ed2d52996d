"""Files and file objects -> blocks of mono samples at their own rate, by libsndfile and FFmpeg's libraries.

libsndfile (soundfile) reads WAV, FLAC, MP3, Ogg Vorbis, AIFF and its other formats. FFmpeg's libraries (PyAV, whose
wheels bring them) read Opus, everything that libsndfile cannot open, and the rest of a file where libsndfile fails.

A file is decoded from its start to its end in blocks. Every fault of a file becomes an `AudioReadError`: files that
are empty, are not audio, hold a header only, are cut off, or hold NaN or infinite samples. A file that is whole but
lacks less than its header states (at most 1 s and 1 %), whose end is not marked, or whose channels cancel each other
in the mono mix, is read with a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .decoders import (
    AudioReadError,
    AudioSource,
    Decoder,
    LibavDecoder,
    SoundfileDecoder,
    Undecodable,
    cut_off,
    opened,
    warn,
)
from .ogg import FilePart, OggLink, ogg_links

PLAUSIBLE_RATES = (1000, 1_000_000)  # a wrong header must not allocate gigabytes of resampled sound
AUDIO_SIGNATURES = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b"caff", b".snd", b"riff")
# Of a frame that states the length of an MP3. Without it, libsndfile takes the first frame's bit rate for that of all,
# and most of the music can be lost without a warning.
MP3_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")
MP3_SEARCHED = 4096  # bytes after the ID3 tag
TEXT_BYTES = bytes(range(32, 127)) + b"\t\r\n"


@dataclass(frozen=True)
class AudioInfo:
    """The content of a recording's header.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
        num_samples: samples of one channel; right to 50 ms for MP3 without a frame count and for formats that
            libsndfile does not read.
        duration: in seconds.
    """

    sampling_rate: int
    channels: int
    num_samples: int
    duration: float


def audio_info(source: AudioSource) -> AudioInfo:
    """Reads the header of a recording, and its packets or samples only where the header does not state the length.

    Raises:
        AudioReadError: the file is missing, empty, not audio, or cut off according to its header.
    """
    with closing(open_decoder(source)) as decoder:
        samples = decoder.count()
        return AudioInfo(decoder.sampling_rate, decoder.channels, samples, samples / decoder.sampling_rate)


def open_decoder(source: AudioSource) -> Decoder:
    """The decoder of a recording, to be closed after use.

    Raises:
        AudioReadError: the file is missing, empty, not audio, or cut off according to its header.
    """
    name, head = _inspect(source)
    if not head.startswith(b"OggS"):
        return _open(source, name, head)
    with ExitStack() as stack:
        file = opened(source, stack)
        links = ogg_links(file)
        if len(links) == 1:
            return _open_link(source, links[0], name, head)
        parts = [FilePart(file, link.begin, link.end) for link in links]
        openers = [partial(_open_link, part, link, name, head) for part, link in zip(parts, links, strict=True)]
        return ChainedDecoder(name, openers, stack.pop_all())


def _open(source: AudioSource, name: str, head: bytes, opus: bool = False) -> Decoder:
    reasons, kinds = [], (SoundfileDecoder, LibavDecoder)
    if opus or (head.startswith((b"ID3", b"\xff", b"\0")) and not _states_length(source)):
        kinds = kinds[::-1]
    for kind in kinds:
        try:
            decoder = kind(source, name)
            break
        except Undecodable as error:
            reasons.append(f"{kind.library}: {error}")
    else:
        raise _not_audio(name, head, "; ".join(reasons))
    low, high = PLAUSIBLE_RATES
    if not low <= decoder.sampling_rate <= high:
        decoder.close()
        raise AudioReadError(
            name,
            f"the header states a sampling rate of {decoder.sampling_rate} Hz",
            f"Recordings have {low} to {high} Hz: correct the header, or leave the file out",
        )
    return decoder


def _states_length(source: AudioSource) -> bool:
    """Whether an MP3 states its length."""
    with ExitStack() as stack:
        file = opened(source, stack)
        file.seek(0)
        head, offset = file.read(10), 0
        if head[:3] == b"ID3" and len(head) == 10:  # its size is four bytes of seven bits (id3.org, ID3v2.3.0, 3.1)
            offset = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(offset)
        data = file.read(MP3_SEARCHED)
    return any(tag in data for tag in MP3_LENGTH_TAGS)


def _not_audio(name: str, head: bytes, reasons: str) -> AudioReadError:
    if head.startswith(AUDIO_SIGNATURES):
        problem = "the file begins like audio, but no audio can be decoded: damaged, or cut off after its header"
        remedy = "Copy the file again, or leave it out"
    elif not head.translate(None, TEXT_BYTES):
        return AudioReadError(name, "not audio, but text", "Leave it out, or download the recording again")
    else:
        problem, remedy = "not audio in a format that can be read", "Leave it out"
    return AudioReadError(name, problem, f"{remedy} ({reasons})")


def _open_link(source: AudioSource, link: OggLink, name: str, head: bytes) -> Decoder:
    """The decoder of an Ogg file, or of a link of it, in which no page is missing."""
    decoder = _open(source, name, head, link.opus)
    decoder.slack, decoder.tolerant = 0, True
    if link.incomplete or link.missing:
        decoder.close()
        if link.missing:
            raise AudioReadError(name, "damaged: pages of the Ogg stream are missing", "Copy the file again")
        raise cut_off(name, (decoder.num_samples or 0) / decoder.sampling_rate, None)
    if link.late:
        warn(f"{name}: the Ogg stream lacks its beginning, as a recorded broadcast does; the rest is read.")
    if not link.marked:
        warn(f"{name}: the end of the Ogg stream is not marked; what comes after its last page is unknown.")
    return decoder


class ChainedDecoder(Decoder):
    """Decodes the streams that follow one another in an Ogg file."""

    def __init__(self, name: str, openers: list[Callable[[], Decoder]], stack: ExitStack):
        super().__init__(None, name, stack)
        self._openers = openers
        with stack:
            lengths, formats = [], set()
            for opener in openers:
                with closing(opener()) as decoder:
                    lengths.append(decoder.count())
                    formats.add(decoder.sampling_rate)
                    self.channels = decoder.channels
            if len(formats) != 1:
                rates = ", ".join(map(str, sorted(formats)))
                raise AudioReadError(
                    name,
                    f"{len(openers)} streams one after the other, with sampling rates of {rates} Hz",
                    "Split the file, or convert it with `ffmpeg -i FILE good.flac`",
                )
            self.sampling_rate, self.num_samples = formats.pop(), sum(lengths)
            self._stack = stack.pop_all()

    def blocks(self, start: int = 0, channels: str = "mean") -> Iterator[np.ndarray]:
        """As of other decoders, each stream after the one before it."""
        position = 0
        for opener in self._openers:
            with closing(opener()) as decoder:
                for block in decoder.blocks(0, channels):
                    if position + len(block) > start:
                        yield block[max(start - position, 0) :]
                    position += len(block)
                self.decibels_lost = max(self.decibels_lost, decoder.decibels_lost)


def source_name(source: AudioSource) -> str:
    """The name of a recording in error messages."""
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) else "<audio in memory>"
    return os.fspath(source)


def _inspect(source: AudioSource) -> tuple[str, bytes]:
    """Name and first bytes of a file that exists and is not empty."""
    name = source_name(source)
    if not hasattr(source, "read"):
        path = Path(source)
        if not path.is_file():
            problem = "a folder, not a file" if path.is_dir() else "no such file"
            raise AudioReadError(name, problem, "Check the path")
    try:
        with ExitStack() as stack:
            file = opened(source, stack)
            file.seek(0)
            head = file.read(16)
    except OSError as error:
        raise AudioReadError(name, f"cannot be opened ({error.strerror})", "Check its permissions") from error
    if not head:
        raise AudioReadError(name, "the file is empty (0 bytes)", "Copy it again, or leave it out")
    return name, head
