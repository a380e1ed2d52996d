"""Files and file objects -> blocks of mono samples at their own rate: soundfile first, torchcodec for the rest.

A file is decoded from its start to its end in blocks. Every fault of a file becomes an `AudioReadError`: files that
are empty, are not audio, hold a header only, are cut off, or hold NaN or infinite samples.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from .mpeg import PrefixedFile, length_frame

AudioSource = str | os.PathLike | BinaryIO

BLOCK_FRAMES = 65536  # decoded at a time: half a megabyte of stereo
PLAUSIBLE_RATES = (1000, 1_000_000)  # a wrong header must not ask for gigabytes of resampled sound
UNKNOWN_LENGTH = 2**62  # libsndfile gives 2^63 - 1 where a header does not state the length
# Samples that may be missing at the end of a file that is whole. MP3, two frames: some encoders count the frame that
# holds the count, too. Vorbis, a usual block: the last page may state a position past its last sample.
TOLERANCES = {"MP3": 2304, "VORBIS": 2048}  # by format or subtype
OGG_PAGE_SIZE = 65536  # a page has at most 65307 bytes
STREAMED_SIZES = (0xFFFFFFFF, 0x7FFFFFFF)  # what programs that write WAV to a pipe leave as the size

# "riff" in small letters is Wave64's, for which the size of the data says nothing about what is missing.
SIZE_TOO_LARGE = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+)(?: \(should be (\d+)\))?", re.MULTILINE)
COUNT_TOO_LARGE = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
AUDIO_SIGNATURES = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b"caff", b".snd", b"riff")
TEXT_BYTES = bytes(range(32, 127)) + b"\t\r\n"
NOT_THERE = "File does not exist"  # libsndfile's words also for an MP3 without any frame


class AudioReadError(ValueError):
    """A recording that cannot be read.

    Attributes:
        path: the file, or "<audio in memory>".
        problem: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, path: str, problem: str, remedy: str):
        super().__init__(f"{path}: {problem}. {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy

    def __reduce__(self):  # crosses process borders, as data loader workers need
        return type(self), (self.path, self.problem, self.remedy)


@dataclass(frozen=True)
class AudioInfo:
    """The content of a recording's header.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
        num_samples: samples of one channel; an estimate for an MP3 without a frame count and for files that torchcodec
            reads.
        duration: in seconds.
    """

    sampling_rate: int
    channels: int
    num_samples: int
    duration: float


def audio_info(source: AudioSource) -> AudioInfo:
    """Reads the header of a recording; decodes it only where the header does not state the length.

    Raises:
        AudioReadError: the file is missing, empty, not audio, or cut off according to its header.
    """
    with closing(open_decoder(source)) as decoder:
        if decoder.num_samples is None:
            decoder.num_samples = sum(len(block) for block in decoder.blocks())
        rate, samples = decoder.sampling_rate, decoder.num_samples
        return AudioInfo(rate, decoder.channels, samples, samples / rate)


def open_decoder(source: AudioSource) -> SoundfileDecoder | TorchcodecDecoder:
    """The decoder of a recording, to be closed after use.

    Raises:
        AudioReadError: the file is missing, empty, not audio, or cut off according to its header.
    """
    name, head = _inspect(source)
    decoder = _open(source, name, head)
    low, high = PLAUSIBLE_RATES
    if not low <= decoder.sampling_rate <= high:
        decoder.close()
        raise AudioReadError(
            name,
            f"the header states a sampling rate of {decoder.sampling_rate} Hz",
            f"Recordings have {low} to {high} Hz: correct the header, or leave the file out",
        )
    return decoder


def _open(source: AudioSource, name: str, head: bytes) -> SoundfileDecoder | TorchcodecDecoder:
    try:
        return SoundfileDecoder(source, name)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless .raw
        soundfile_error = str(error).rsplit(": ", 1)[-1]
        if NOT_THERE in soundfile_error:  # the file is there, see _inspect
            soundfile_error = "No frame of MPEG audio was found."
    try:
        return TorchcodecDecoder(source, name)
    except (
        ImportError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # not installed, without FFmpeg, or unable to read it
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"failed too ({_first_line(error)})"
    if head.startswith(AUDIO_SIGNATURES):
        problem = "the file begins like audio, but no audio can be decoded: damaged, or cut off after its header"
        remedy = "Copy the file again, or leave it out"
    elif not head.translate(None, TEXT_BYTES):
        raise AudioReadError(name, "not audio, but text", "Leave it out, or download the recording again")
    else:
        problem = "not audio in a format that can be read"
        remedy = "Leave it out; formats such as M4A or WMA need torchcodec and FFmpeg, or a conversion to FLAC"
    raise AudioReadError(name, problem, f"{remedy} (soundfile: {soundfile_error} torchcodec {reason})")


class _SequentialFile(soundfile.SoundFile):
    """A sound file read from front to back.

    soundfile seeks after each block to the current position; in a FLAC of unknown length, or one cut off, this
    seek fails although there is more to decode.
    """

    def seekable(self) -> bool:
        return False


class SoundfileDecoder:
    """Decodes WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF and all other formats of libsndfile."""

    def __init__(self, source: AudioSource, name: str):
        self.name = name
        with ExitStack() as stack:
            self._file = stack.enter_context(_SequentialFile(_openable(source)))
            self.sampling_rate, self.channels = self._file.samplerate, self._file.channels
            self.num_samples = self._file.frames if self._file.frames < UNKNOWN_LENGTH else None
            self._refuse_cut_off(source)
            self._count_is_known = True
            if self._file.format == "MP3":
                self._read_on_without_count(source, stack)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Mono blocks (samples,) float32 from sample `start` to the end of the file.

        Raises:
            AudioReadError: the file is damaged, cut off, without samples, or with NaN or infinite ones.
        """
        position = 0
        # Seeking in Vorbis is wrong by up to a packet in libsndfile, and impossible where the length is unknown.
        if start and self.num_samples is not None and self._file.subtype != "VORBIS":
            position = self._file.seek(min(start, self.num_samples))
        while True:
            block = self._read(position)
            if len(block) == 0:
                break
            mono = block.mean(axis=1) if self.channels > 1 else block[:, 0]
            check_finite(mono, position, self.sampling_rate, self.name)
            if position + len(mono) > start:
                yield mono[max(start - position, 0) :]
            position += len(mono)
        self._check_end(position)

    def _read_on_without_count(self, source: AudioSource, stack: ExitStack) -> None:
        """Puts a frame count before an MP3 that has none; `num_samples` stays libsndfile's estimate."""
        file = source if hasattr(source, "read") else stack.enter_context(open(source, "rb"))
        if (frame := length_frame(file)) is not None:
            self._count_is_known = False
            self._file = stack.enter_context(_SequentialFile(PrefixedFile(frame, file)))

    def _read(self, position: int) -> np.ndarray:
        try:
            return self._file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioReadError(
                self.name,
                f"damaged or cut off: decoding fails after {position / self.sampling_rate:.2f} s ({error})",
                "Copy the file again, or keep its sound part with `ffmpeg -i FILE good.flac`",
            ) from error

    def _check_end(self, decoded: int) -> None:
        if decoded == 0:
            raise AudioReadError(self.name, "a header without any samples", "Copy the file again, or leave it out")
        tolerance = TOLERANCES.get(self._file.format) or TOLERANCES.get(self._file.subtype, 0)
        if self.num_samples is not None and self._count_is_known and decoded < self.num_samples - tolerance:
            raise _cut_off(self.name, decoded / self.sampling_rate, self.num_samples / self.sampling_rate)

    def _refuse_cut_off(self, source: AudioSource) -> None:
        """libsndfile corrects headers that state too many samples and reports it only in its log."""
        log = self._file.extra_info
        seconds = (self.num_samples or 0) / self.sampling_rate
        if self._file.format == "OGG" and not _ogg_is_closed(source):
            raise _cut_off(self.name, seconds, None)
        if match := COUNT_TOO_LARGE.search(log):
            raise _cut_off(self.name, seconds, int(match[2]) / self.sampling_rate)
        for promised, found in SIZE_TOO_LARGE.findall(log):
            present = int(found) if found else _size(source)
            if int(promised) > present and int(promised) not in STREAMED_SIZES and present:
                raise _cut_off(self.name, seconds, seconds * int(promised) / present)


class TorchcodecDecoder:
    """Decodes the formats of FFmpeg (M4A, AAC, WMA, ...) where torchcodec is installed.

    torchcodec decodes ranges of time, each from the start of the file, and in some formats its time stamps drift from
    the count of samples. Therefore the ranges are long and overlap, and each is joined where the last samples of the
    previous range are found in it. The result equals the whole file.
    """

    RANGE = 300.0  # seconds
    OVERLAP = 1.0  # seconds: far more than a clock drifts within a range
    TAIL = 2048  # samples that identify a place

    def __init__(self, source: AudioSource, name: str):
        self.name, self._source = name, source
        metadata = self._open().metadata
        if not metadata.sample_rate or not metadata.num_channels:
            raise RuntimeError("no sampling rate or channels in the header")
        self.sampling_rate, self.channels = int(metadata.sample_rate), int(metadata.num_channels)
        duration = metadata.duration_seconds
        self.num_samples = None if duration is None else round(duration * self.sampling_rate)

    def close(self) -> None:
        """Does nothing: no file stays open between two ranges."""

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Mono blocks (samples,) float32 from sample `start` to the end of the file; errors as with soundfile."""
        position = 0  # counted in decoded samples: some formats begin later than at time 0
        tail = np.zeros(0, dtype=np.float32)
        for index in range(2**31):
            mono = self._range(index)
            mono = mono[place_after(tail, mono, round(self.OVERLAP * self.sampling_rate)) :] if index else mono
            if len(mono) == 0:
                break
            check_finite(mono, position, self.sampling_rate, self.name)
            if position + len(mono) > start:
                yield mono[max(start - position, 0) :]
            position += len(mono)
            tail = np.concatenate([tail, mono[-self.TAIL :]])[-self.TAIL :]
        if position == 0:
            raise AudioReadError(self.name, "a header without any samples", "Copy the file again, or leave it out")

    def _open(self):
        from torchcodec.decoders import AudioDecoder

        if hasattr(self._source, "read"):
            self._source.seek(0)
            return AudioDecoder(self._source)
        return AudioDecoder(os.fspath(self._source))

    def _range(self, index: int) -> np.ndarray:
        """(samples,) of the range `index` with what overlaps the one before; none after the end."""
        begin, end = max(index * self.RANGE - self.OVERLAP, 0.0), (index + 1) * self.RANGE
        try:  # a decoder that has given a range before may lose packets of the next
            return self._open().get_samples_played_in_range(begin, end).data.numpy().mean(axis=0)
        except RuntimeError as error:
            if "No audio frames were decoded" in str(error):
                return np.zeros(0, dtype=np.float32)
            raise AudioReadError(
                self.name,
                f"damaged or cut off: decoding fails between {begin:.0f} and {end:.0f} s ({_first_line(error)})",
                "Copy the file again, or keep its sound part with `ffmpeg -i FILE good.flac`",
            ) from error


def place_after(tail: np.ndarray, samples: np.ndarray, expected: int) -> int:
    """Position in `samples` after the occurrence of `tail` nearest to `expected`; `expected` if there is none."""
    last = min(2 * expected, len(samples) - 1)
    ends = np.flatnonzero(samples[: last + 1] == tail[-1]) + 1
    for end in sorted(ends, key=lambda end: abs(end - expected)):
        if end >= len(tail) and np.array_equal(samples[end - len(tail) : end], tail):
            return int(end)
    return min(expected, len(samples))


def check_finite(samples: np.ndarray, position: int, sampling_rate: int, name: str) -> None:
    """Raises AudioReadError where samples (samples,) are NaN or infinite; `position` is the first one's in the file."""
    finite = np.isfinite(samples)
    if not finite.all():
        first = (position + int(np.argmin(finite))) / sampling_rate
        raise AudioReadError(
            name,
            f"NaN or infinite samples, the first at {first:.2f} s",
            "Export the file again, or replace them with numpy.nan_to_num",
        )


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
        if hasattr(source, "read"):
            source.seek(0)
        head = _head(source, 16)
    except OSError as error:
        raise AudioReadError(name, f"cannot be opened ({error.strerror})", "Check its permissions") from error
    if not head:
        raise AudioReadError(name, "the file is empty (0 bytes)", "Copy it again, or leave it out")
    return name, head


def _head(source: AudioSource, count: int, offset: int = 0) -> bytes:
    """`count` bytes from `offset`; a file object stays where it is, as a decoder may be reading it."""
    if hasattr(source, "read"):
        position = source.tell()
        source.seek(offset)
        head = source.read(count)
        source.seek(position)
        return head
    with open(source, "rb") as file:
        file.seek(offset)
        return file.read(count)


def _openable(source: AudioSource) -> bytes | str | BinaryIO:
    """The source for soundfile; bytes where names of files are bytes, as it cannot encode those that are not UTF-8."""
    if hasattr(source, "read"):
        return source
    return os.fspath(source) if os.name == "nt" else os.fsencode(source)


def _size(source: AudioSource) -> int:
    if hasattr(source, "read"):
        position = source.tell()
        size = source.seek(0, os.SEEK_END)
        source.seek(position)
        return size
    return os.path.getsize(source)


def _ogg_is_closed(source: AudioSource) -> bool:
    """Whether the last page of an Ogg file is complete and marked as the end of its stream (RFC 3533, section 6)."""
    tail = _head(source, OGG_PAGE_SIZE, max(_size(source) - OGG_PAGE_SIZE, 0))
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 0x04:
        return False
    segments = page[27 : 27 + page[26]]
    return len(segments) == page[26] and len(page) >= 27 + len(segments) + sum(segments)


def _cut_off(name: str, found: float, promised: float | None) -> AudioReadError:
    whole = "does not end as an Ogg stream must" if promised is None else f"promises {promised:.3f} s"
    return AudioReadError(
        name,
        f"cut off: {found:.3f} s can be decoded, but the file {whole}",
        "Copy the file again, or keep what is there with `ffmpeg -i FILE good.flac`",
    )


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^.*\.cpp:\d+, ", "", line)[:200]  # torchcodec begins with a place in its source
