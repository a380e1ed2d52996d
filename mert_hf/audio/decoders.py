"""Decoders of libsndfile (soundfile) and FFmpeg (PyAV): both check what they decode; one continues where one fails."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import soundfile

logger = logging.getLogger(__name__)

AudioSource = str | os.PathLike | BinaryIO

COPY = "Copy the file again, or keep what is there with `ffmpeg -i FILE good.flac`"
BLOCK_FRAMES = 65536  # decoded at a time: half a megabyte of stereo
UNKNOWN_LENGTH = 2**62  # libsndfile gives 2^63 - 1 where a header does not state the length
MP3_SLACK = 2304  # samples that a whole MP3 may lack: two frames, as some encoders count the one of the count, too
CONTAINER_SLACK = 0.05  # seconds by which the lengths that containers state are inexact
MOST_MISSING = (1.0, 0.01)  # seconds, and share of the stated length, that a file with its end may lack: both hold
LOUDEST = 100.0  # 40 dB above full scale, which no recording reaches
# Of the first two channels; a recording with one channel has no side.
MIXES = {"left": (1.0, 0.0), "right": (0.0, 1.0), "mid": (0.5, 0.5), "side": (0.5, -0.5)}
CANCELLED_DECIBELS = 20.0  # where the mono mix is softer than the channels by more, they are out of phase
SILENCE_POWER = 1e-8  # -80 dB: in what is softer, noise decides
# What programs that write WAV to a pipe leave as the size: ffmpeg, SoX, arecord, MPlayer; the last less 36 bytes.
STREAMED_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000, 0xFFFFFFDB)
# Formats of FFmpeg that state no length, or a wrong one: their packets are counted.
UNSTATED_LENGTH = frozenset("aac ac3 eac3 asf dts loas mp3 truehd".split())
# "riff" in small letters is Wave64's, for which the size of the data says nothing about what is missing.
SIZE_TOO_LARGE = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+)(?: \(should be (\d+)\))?", re.MULTILINE)
COUNT_TOO_LARGE = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
NOT_THERE = "File does not exist"  # libsndfile's words also for an MP3 without any frame


class AudioReadError(ValueError):
    """A recording that cannot be read: its path, or "<audio in memory>", the problem, and a remedy."""

    def __init__(self, path: str, problem: str, remedy: str):
        super().__init__(f"{path}: {problem}. {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy

    def __reduce__(self):  # crosses process borders, as data loader workers need
        return type(self), (self.path, self.problem, self.remedy)


class Undecodable(Exception):
    """A library cannot open or decode a file; its message has no period, as it becomes a part of another one."""

    def __str__(self) -> str:
        return super().__str__().rstrip(".")


class Decoder:
    """A recording that is decoded from front to back and checked on the way; `name` is for messages."""

    library: str
    sampling_rate: int  # in Hz
    channels: int  # their number
    num_samples: int | None = None  # of one channel, by the header; None where it states none
    slack = 0  # samples that a whole file may have fewer
    tolerant = False  # whether a file that lacks up to `MOST_MISSING` more is read with a warning
    decibels_lost = 0.0  # by how much the mean of the channels was softer than they are, in what was decoded last

    def __init__(self, source: AudioSource, name: str, stack: ExitStack):
        self.name, self._source, self._stack = name, source, stack

    def close(self) -> None:
        self._stack.close()

    def count(self) -> int:
        """Number of samples of one channel; decodes the file where its header does not state it."""
        return sum(len(block) for block in self.blocks()) if self.num_samples is None else self.num_samples

    def blocks(self, start: int = 0, channels: str = "mean") -> Iterator[np.ndarray]:
        """Mono blocks (samples,) float32 from sample `start` to the end of the file; `channels` as in `read_audio`.

        Raises:
            AudioReadError: the file is damaged, cut off, without samples, or with NaN or infinite ones.
        """
        position = self._seek(start)
        decoded, powers = position, np.zeros(2)
        try:
            for frames in self._frames_of_either(position):
                mono = self._mix(frames, channels)
                check_finite(mono, decoded, self.sampling_rate, self.name)
                self._check_scale(mono)
                if frames.shape[1] > 1 and channels == "mean":
                    powers += np.vdot(mono, mono), np.vdot(frames, frames) / frames.shape[1]
                if decoded + len(mono) > start:
                    yield mono[max(start - decoded, 0) :]
                decoded += len(mono)
        finally:
            self._check_mix(*powers, decoded - position)
        self._check_end(decoded)

    def _mix(self, frames: np.ndarray, channels: str) -> np.ndarray:
        """(samples, channels) -> (samples,) float32."""
        if frames.shape[1] > 1:
            return frames.mean(axis=1) if channels == "mean" else frames[:, :2] @ np.float32(MIXES[channels])
        if channels == "side":
            raise AudioReadError(self.name, "one channel, which has no side", "Leave it out, or take its mean")
        return frames[:, 0]

    def _seek(self, start: int) -> int:
        """The sample from which decoding begins, at or before `start`."""
        return 0

    def _frames(self) -> Iterator[np.ndarray]:
        """Blocks (samples, channels) float32; raises `Undecodable`."""
        raise NotImplementedError

    def _frames_of_either(self, position: int) -> Iterator[np.ndarray]:
        """Blocks (samples, channels) from `position`; where one library fails, the other decodes the rest."""
        last = np.zeros((0, self.channels), dtype=np.float32)
        try:
            for last in self._frames():
                yield last
                position += len(last)
            return
        except Undecodable as error:
            reason = f"{self.library}: {error}"
        other = LibavDecoder if isinstance(self, SoundfileDecoder) else SoundfileDecoder
        try:
            with closing(other(self._source, self.name)) as decoder:
                yield from self._rest(decoder, position, last)
        except Undecodable as error:
            raise AudioReadError(
                self.name,
                f"damaged or cut off: decoding fails after {position / self.sampling_rate:.2f} s "
                f"({reason}; {other.library}: {error})",
                COPY,
            ) from error

    def _rest(self, decoder: Decoder, position: int, last: np.ndarray) -> Iterator[np.ndarray]:
        """Blocks of another decoder from `position`, if what it has before equals `last`, the block that ends there."""
        if (decoder.sampling_rate, decoder.channels) != (self.sampling_rate, self.channels):
            raise Undecodable("another sampling rate or number of channels")
        begin, place = position - len(last), 0
        for frames in decoder._frames():
            known = frames[max(begin - place, 0) : max(position - place, 0)]
            if not np.allclose(known, last[max(place - begin, 0) :][: len(known)], atol=1e-3):
                raise Undecodable("other samples in the part that both decode")
            if place + len(frames) > position:
                yield frames[max(position - place, 0) :]
            place += len(frames)

    def _check_scale(self, mono: np.ndarray) -> None:
        """Warns of a file of floating-point numbers that were integers and have not been divided."""
        if np.abs(mono).max(initial=0.0) > LOUDEST:
            warn(
                f"{self.name}: samples are far beyond [-1, 1], as of integers that were written as floating-point "
                "numbers without a division. Write the file again with samples in [-1, 1]."
            )

    def _check_mix(self, mix: float, channels: float, samples: int) -> None:
        """Warns where channels of a summed power lose almost all of it in their mix."""
        if channels > SILENCE_POWER * samples:
            self.decibels_lost = 10 * np.log10(channels / max(mix, 1e-12 * channels))
        if self.decibels_lost > CANCELLED_DECIBELS:
            warn(
                f"{self.name}: the channels are out of phase: their mono mix is {self.decibels_lost:.0f} dB softer "
                "than they are, and what is computed from it says little about the recording. Take one of them "
                "(--channels left), or reverse the polarity of one in the file."
            )

    def _check_end(self, decoded: int) -> None:
        if decoded == 0:
            raise AudioReadError(self.name, "a header without any samples", "Copy the file again, or leave it out")
        missing = 0 if self.num_samples is None else self.num_samples - decoded - self.slack
        if missing <= 0:
            return
        found, promised = decoded / self.sampling_rate, self.num_samples / self.sampling_rate
        seconds, share = MOST_MISSING
        if not self.tolerant or missing > min(seconds * self.sampling_rate, share * self.num_samples):
            raise cut_off(self.name, found, promised)
        warn(f"{self.name}: {promised - found:.4f} s of the {promised:.3f} s that the file promises are missing.")


class _SequentialFile(soundfile.SoundFile):
    """A sound file read from front to back.

    soundfile seeks after each block to the current position; in a FLAC of unknown length, or one cut off, this
    seek fails although there is more to decode.
    """

    def seekable(self) -> bool:
        return False


class SoundfileDecoder(Decoder):
    """Decodes WAV, FLAC, Ogg Vorbis, MP3, AIFF and all other formats of libsndfile."""

    library = "libsndfile"

    def __init__(self, source: AudioSource, name: str):
        with ExitStack() as stack:
            super().__init__(source, name, stack)
            if hasattr(source, "read"):
                source.seek(0)
            try:
                self._file = stack.enter_context(_SequentialFile(_openable(source)))
            except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless .raw
                reason = str(error).rsplit(": ", 1)[-1]  # the file is there, see _inspect
                raise Undecodable("No frame of MPEG audio was found." if NOT_THERE in reason else reason) from error
            self.sampling_rate, self.channels = self._file.samplerate, self._file.channels
            self.num_samples = self._file.frames if self._file.frames < UNKNOWN_LENGTH else None
            self._refuse_cut_off(source)
            if self._file.format == "MP3":
                self.slack = MP3_SLACK
            self._stack = stack.pop_all()

    def _seek(self, start: int) -> int:
        # Seeking in Vorbis is wrong by up to a packet in libsndfile, and impossible where the length is unknown.
        if start and self.num_samples is not None and self._file.subtype != "VORBIS":
            return self._file.seek(min(start, self.num_samples))
        return 0

    def _frames(self) -> Iterator[np.ndarray]:
        try:
            while len(frames := self._file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield frames
        except soundfile.LibsndfileError as error:
            raise Undecodable(error) from error

    def _refuse_cut_off(self, source: AudioSource) -> None:
        """libsndfile corrects headers that state too many samples and reports it only in its log."""
        log = self._file.extra_info
        seconds = (self.num_samples or 0) / self.sampling_rate
        if match := COUNT_TOO_LARGE.search(log):
            raise cut_off(self.name, seconds, int(match[2]) / self.sampling_rate)
        for promised, found in SIZE_TOO_LARGE.findall(log):
            present = int(found) if found else _size(source)
            if int(promised) > present and int(promised) not in STREAMED_SIZES and present:
                raise cut_off(self.name, seconds, seconds * int(promised) / present)


class LibavDecoder(Decoder):
    """Decodes Opus and what libsndfile does not read: AAC, ALAC, WMA, AC-3, APE, the sound of videos, ...

    The samples are those of `ffmpeg -i`, with libopus for Opus: without the delay of the encoder where the file states
    it. Seeking would not be exact, so decoding begins at the start.
    """

    library = "FFmpeg"
    tolerant = True

    def __init__(self, source: AudioSource, name: str):
        import av  # takes a third of a second, which only files that need it should cost

        with ExitStack() as stack:
            super().__init__(source, name, stack)
            file = opened(source, stack)
            file.seek(0)
            try:  # playlists must not open other files or addresses
                options = {"protocol_whitelist": "none"}
                self._container = stack.enter_context(av.open(file, metadata_errors="ignore", options=options))
            except (av.FFmpegError, ValueError) as error:
                raise Undecodable(_reason(error)) from error
            self._stream = self._container.streams.best("audio")
            codec = self._stream and self._stream.codec_context  # None where there is no decoder
            if not codec or not codec.sample_rate or not codec.layout.nb_channels:
                raise Undecodable("no sound in the file that can be decoded")
            self._codec = _codec_context(codec)
            self.sampling_rate, self.channels = codec.sample_rate, codec.layout.nb_channels
            self.slack = round(CONTAINER_SLACK * self.sampling_rate)
            self._counted = bool(UNSTATED_LENGTH.intersection(self._container.format.name.split(",")))
            if not self._counted:
                self.num_samples = self._stated_length()
            self._failure = (av.FFmpegError, ValueError)
            self._stack = stack.pop_all()

    def count(self) -> int:
        """Samples of one channel: of the packets, without decoding them, where they state their lengths."""
        if not self._counted:
            return super().count()
        try:
            packets = [packet for packet in self._container.demux(self._stream) if packet.pts is not None]
        except self._failure as error:
            raise AudioReadError(self.name, f"damaged or cut off ({_reason(error)})", COPY) from error
        if self._container.format.name == "asf":  # whole milliseconds; the first packet only begins to overlap
            ticks = packets[-1].pts - packets[0].pts if packets else 0
        else:
            ticks = sum(packet.duration or 0 for packet in packets)
        return round(ticks * self._stream.time_base * self.sampling_rate)

    def _stated_length(self) -> int | None:
        if self._stream.duration:
            seconds = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration:
            seconds = self._container.duration / 1e6
        else:
            return None
        samples = round(seconds * self.sampling_rate)
        if self._stream.codec_context.name in ("opus", "libopus"):  # less the delay of the encoder: RFC 7845, 5.1
            samples -= int.from_bytes((self._stream.codec_context.extradata or b"")[10:12], "little")
        return samples

    def _frames(self) -> Iterator[np.ndarray]:
        pieces, length = [], 0
        for frame in self._decoded():
            pieces.append(frame)
            length += len(frame)
            if length >= BLOCK_FRAMES:
                yield np.concatenate(pieces)
                pieces, length = [], 0
        if pieces:
            yield np.concatenate(pieces)

    def _decoded(self) -> Iterator[np.ndarray]:
        """Frames (samples, channels) float32 of one packet after the other."""
        failure = None
        try:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt:
                    raise Undecodable("a packet is incomplete")
                try:
                    frames = self._codec.decode(packet)
                except self._failure as error:
                    failure = failure or Undecodable(_reason(error))
                    continue
                if frames and failure:
                    raise failure
                yield from map(self._to_samples, frames)
        except self._failure as error:
            raise Undecodable(_reason(error)) from error
        if failure and not self._counted:  # what follows the last frame of a stream without a container may be tags
            raise failure

    def _to_samples(self, frame) -> np.ndarray:
        samples, channels = frame.to_ndarray(), frame.layout.nb_channels
        if (frame.sample_rate, channels) != (self.sampling_rate, self.channels):
            raise Undecodable(f"the format changes to {frame.sample_rate} Hz and {channels} channels")
        samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
        if samples.dtype.kind == "u":
            samples = (samples.astype(np.float32) - 128) / 128
        elif samples.dtype.kind == "i":
            samples = samples / -float(np.iinfo(samples.dtype).min)
        return samples.astype(np.float32, copy=False)


def _codec_context(codec):
    """The decoder of a stream in one thread; libopus for Opus, from which FFmpeg's own decoder differs audibly."""
    import av

    if codec.name == "opus" and "libopus" in av.codecs_available:
        libopus = av.CodecContext.create("libopus", "r")
        libopus.extradata, libopus.sample_rate, libopus.layout = codec.extradata, codec.sample_rate, codec.layout
        libopus.options = {"request_sample_fmt": "flt"}
        codec = libopus
    elif codec.name == "flac":  # checksums are not compared otherwise
        codec.options = {"err_detect": "crccheck+explode"}
    codec.thread_count = 1
    return codec


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


def opened(source: AudioSource, stack: ExitStack) -> BinaryIO:
    return source if hasattr(source, "read") else stack.enter_context(open(source, "rb"))


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


def cut_off(name: str, found: float, promised: float | None) -> AudioReadError:
    whole = "does not end as an Ogg stream must" if promised is None else f"promises {promised:.3f} s"
    return AudioReadError(name, f"cut off: {found:.3f} s can be decoded, but the file {whole}", COPY)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip() or type(error).__name__


@lru_cache(maxsize=65536)
def warn(message: str) -> None:
    """Logs a warning, once for each file."""
    logger.warning(message)
