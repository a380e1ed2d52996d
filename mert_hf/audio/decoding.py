"""Files and file objects -> blocks of mono samples at their own rate, by libsndfile and FFmpeg's libraries.

libsndfile (soundfile) reads WAV, FLAC, MP3, Ogg Vorbis, AIFF and its other formats. FFmpeg's libraries (PyAV, whose
wheels bring them) read Opus, everything that libsndfile cannot open, and the rest of a file where libsndfile fails.

A file is decoded from its start to its end in blocks. Every fault of a file becomes an `AudioReadError`: files that
are empty, are not audio, hold a header only, are cut off, or hold NaN or infinite samples. A file that is whole but
lacks less than its header states (at most 1 s and 1 %), whose end is not marked, or whose channels cancel each other
in the mono mix, is read with a warning.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

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

PLAUSIBLE_RATES = (1000, 1_000_000)  # a wrong header must not allocate gigabytes of resampled sound
AUDIO_SIGNATURES = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b"caff", b".snd", b"riff")
# Of a frame that states the length of an MP3. Without it, libsndfile takes the first frame's bit rate for that of all,
# and most of the music can be lost without a warning.
MP3_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")
MP3_SEARCHED = 4096  # bytes after the ID3 tag
TEXT_BYTES = bytes(range(32, 127)) + b"\t\r\n"
# Ogg (RFC 3533): streams follow one another in a file, found by the headers of their pages.
CAPTURE = b"OggS"
HEADER = struct.Struct("<4sBBqIIIB")  # capture, version, flags, granule position, serial, sequence, checksum, segments
FIRST, LAST = 2, 4  # flags
SEARCHED = 65536  # bytes read at a time where a page is searched


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
    """The decoder of a recording, to be closed after use; errors as of `audio_info`."""
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


@dataclass
class OggLink:
    """A part of an Ogg file that can be decoded by itself: a chained file has several."""

    begin: int
    end: int = 0
    opus: bool = False
    incomplete: bool = False  # the file ends within a page
    missing: bool = False  # pages are missing between others
    late: bool = False  # pages are missing after the headers, as in a recorded broadcast
    marked: bool = False  # the last page is marked as the end
    last: dict[int, tuple[int, int]] = field(default_factory=dict)  # serial number: sequence number, granule position

    def add(self, flags: int, granule: int, serial: int, sequence: int) -> None:
        """Notes what the header of the next page states."""
        before, granule_before = self.last.get(serial, (sequence - 1, 0))
        if sequence != before + 1:
            self.late |= granule_before == 0  # after the headers
            self.missing |= granule_before != 0
        self.last[serial] = sequence, granule
        self.marked = bool(flags & LAST)


def ogg_links(file: BinaryIO) -> list[OggLink]:
    """The links of an Ogg file, from the headers of all its pages; the position of `file` is not changed."""
    position, size = file.tell(), file.seek(0, os.SEEK_END)
    links: list[OggLink] = []
    offset, beginning = 0, False
    while (offset := _next_page(file, offset)) < size:
        file.seek(offset)
        header = file.read(HEADER.size)
        if len(header) == HEADER.size:
            _, _, flags, granule, serial, sequence, _, count = HEADER.unpack(header)
            segments = file.read(count)
            end = offset + HEADER.size + count + sum(segments)
            if not links or (flags & FIRST and not beginning):
                links.append(OggLink(offset))
            beginning = bool(flags & FIRST)
            links[-1].opus |= beginning and file.read(8) == b"OpusHead"
            links[-1].add(flags, granule, serial, sequence)
        else:
            end = size + 1
        if links:
            links[-1].end, links[-1].incomplete = min(end, size), end > size
        offset = end
    if links and links[-1].end < size and not links[-1].marked:
        links[-1].incomplete = True  # cut within the four bytes that begin a page, or something else follows
    file.seek(position)
    return links


def _next_page(file: BinaryIO, offset: int) -> int:
    """Place of the first page from `offset`, where it usually begins; the size of the file if there is none."""
    file.seek(offset)
    data = file.read(len(CAPTURE))
    while data != CAPTURE:
        data += file.read(SEARCHED)
        if (found := data.find(CAPTURE)) >= 0:
            return offset + found
        if len(data) <= len(CAPTURE):
            return offset + len(data)
        offset, data = offset + len(data) - 3, data[-3:]
    return offset


class FilePart(io.RawIOBase):
    """Bytes [begin, end) of a file as a file for reading."""

    def __init__(self, file: BinaryIO, begin: int, end: int):
        self.file, self._begin, self._size, self._position = file, begin, end - begin, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer) -> int:
        self.file.seek(self._begin + self._position)
        part = self.file.read(max(min(len(buffer), self._size - self._position), 0))
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


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


def source_name(source: Any) -> str:
    """The name of a recording in messages and results: of a path, a file object, or audio in memory."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<audio in memory>"


def _inspect(source: AudioSource) -> tuple[str, bytes]:
    """Name and first bytes of a file that exists and is not empty."""
    name = source_name(source)
    if not hasattr(source, "read"):
        path = Path(source)
        if not path.is_file():
            others = "not a regular file" if path.exists() else "no such file"
            problem = "a folder, not a file" if path.is_dir() else others
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
