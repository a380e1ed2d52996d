"""Formats of FFmpeg's libraries, Ogg files as users have them, and recordings whose channels cancel each other."""

from __future__ import annotations

import io
import logging
import multiprocessing
import shutil
import struct
import subprocess
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from encoding import encode
from sounds import set_in_ogg_page, sweep, write, write_format

from mert_hf.audio import AUDIO_EXTENSIONS, AudioReadError, audio_info, read_audio, stream_audio
from mert_hf.audio.decoding import open_decoder

ENCODED = {  # name of the file: encoder of FFmpeg, sampling rate
    "a.m4a": ("aac", 44100),
    "b.m4a": ("alac", 44100),
    "c.wma": ("wmav2", 44100),
    "d.ac3": ("ac3", 48000),
    "e.aac": ("aac", 44100),
    "f.mka": ("flac", 44100),
    "h.webm": ("libopus", 48000),
    "i.mp4": ("aac", 48000),  # a video
    "j.opus": ("libopus", 48000),
    "l.oga": ("flac", 44100),  # FLAC in Ogg
    "m.flac": ("flac", 44100),
    "n.mp3": ("libmp3lame", 44100),
    "o.wav": ("pcm_s24le", 44100),
    "p.wv": ("wavpack", 44100),
    "q.mp2": ("mp2", 44100),
}
EXACT = {"alac", "flac", "pcm_s24le", "wavpack"}
SECONDS = 4.0


def encoded(folder: Path, name: str, seconds: float = SECONDS, **options: str) -> Path:
    codec, rate = ENCODED[name]
    return encode(folder / name, codec, rate, sweep(seconds, rate), **options)


def by_ffmpeg(path: Path, rate: int) -> np.ndarray:
    """The mono mix of the samples that ffmpeg decodes; libopus decodes Opus."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, the reference, is not installed")
    opus = ["-c:a", "libopus"] if path.suffix in (".opus", ".webm") else []
    command = ["ffmpeg", "-v", "error", *opus, "-i", str(path), "-vn", "-f", "f32le", "-"]
    data = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(data, np.float32).reshape(-1, 2).mean(axis=1)


@pytest.mark.parametrize("name", ENCODED)
def test_formats_are_decoded_at_their_length(tmp_path, name):
    codec, rate = ENCODED[name]
    path = encoded(tmp_path, name)
    assert path.suffix in AUDIO_EXTENSIONS
    info = audio_info(path)
    assert (info.sampling_rate, info.channels) == (rate, 2)
    assert info.duration == pytest.approx(
        SECONDS, abs=0.045 if name in ("e.aac", "q.mp2") else 0.02
    )  # delay not stated
    samples, given = read_audio(path, rate), sweep(SECONDS, rate).mean(axis=1)
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.045)
    if codec in EXACT:
        np.testing.assert_allclose(samples, given, atol=4e-5)
    elif name not in ("d.ac3", "e.aac", "q.mp2", "c.wma"):  # the delay is removed where it is stated
        common = min(len(samples), len(given))
        assert np.corrcoef(samples[:common], given[:common])[0, 1] > 0.98


def test_a_long_wma_has_its_length(tmp_path):
    """Its packets have whole milliseconds: 46 of 46.44."""
    assert audio_info(encoded(tmp_path, "c.wma", seconds=60.0)).duration == pytest.approx(60.0, abs=0.05)


@pytest.mark.parametrize("name", ENCODED)
def test_formats_equal_ffmpeg(tmp_path, name):
    path = encoded(tmp_path, name)
    expected = by_ffmpeg(path, ENCODED[name][1])
    samples = read_audio(path, ENCODED[name][1])
    assert len(samples) == len(expected)
    # ffmpeg gives 16 bits of Opus (by libopus) and MPEG layer II
    tolerance = 4e-5 if path.suffix in (".opus", ".webm", ".mp2") else 2e-6
    np.testing.assert_allclose(samples, expected, atol=tolerance)


@pytest.mark.parametrize("name", ["a.m4a", "c.wma", "h.webm", "i.mp4", "j.opus", "l.oga"])
def test_parts_and_file_objects_equal_the_whole_file(tmp_path, name):
    path = encoded(tmp_path, name)
    rate = ENCODED[name][1]
    whole = read_audio(path, rate)
    np.testing.assert_array_equal(read_audio(path, rate, offset=1.5, duration=1.0), whole[3 * rate // 2 :][:rate])
    data = io.BytesIO(path.read_bytes())
    np.testing.assert_array_equal(read_audio(data, rate), whole)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(read_audio(file, rate, offset=3.0), whole[3 * rate :])
    assert audio_info(data) == audio_info(path)
    assert not data.closed
    resampled = read_audio(path, 24000)
    np.testing.assert_allclose(read_audio(path, 24000, 1.23456, 0.7), resampled[29629:46429], atol=2e-6)


def test_threads_and_forked_processes_decode_the_same(tmp_path):
    path = encoded(tmp_path, "a.m4a")
    whole, found = read_audio(path, 24000), []
    threads = [threading.Thread(target=lambda: found.append(read_audio(path, 24000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found += pool.starmap(read_audio, [(path, 24000)] * 2)
    assert len(found) == 6
    for samples in found:
        np.testing.assert_array_equal(samples, whole)


def test_blocks_are_large_and_memory_is_bounded(tmp_path):
    path = encoded(tmp_path, "a.m4a", seconds=8.0)
    lengths = [len(block) for block in stream_audio(path, 44100)]
    assert 65536 <= max(lengths) < 2 * 65536 and len(lengths) == 6


@pytest.mark.parametrize("fraction", [0.5, 0.9])
@pytest.mark.parametrize(("name", "options"), [("a.m4a", {}), ("b.m4a", {"movflags": "faststart"}), ("f.mka", {})])
def test_cut_off_containers_are_refused(tmp_path, name, options, fraction):
    path = encoded(tmp_path, name, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(AudioReadError, match="cut off|not audio in a format that can be read"):
        read_audio(path, 24000)


def test_damage_has_the_reason_of_each_decoder(tmp_path):
    path = encoded(tmp_path, "f.mka")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(AudioReadError, match=r"decoding fails after .* s \(FFmpeg: .*; libsndfile: Format not recog"):
        read_audio(path, 24000)


def test_a_playlist_opens_nothing(tmp_path):
    """HTTP live streaming names other files, which a recording must not make us open."""
    write_format(tmp_path, "a.wav")
    path = tmp_path / "list.mp3"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{tmp_path / 'a.wav'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioReadError, match="not audio, but text"):
        read_audio(path, 24000)


def test_a_video_without_sound(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(AudioReadError, match="no sound in the file"):
        read_audio(path, 24000)


@pytest.mark.parametrize("name", ["d.flac", "e.ogg", "a.wav"])
def test_the_second_decoder_continues_where_the_first_fails(tmp_path, monkeypatch, name):
    path = write_format(tmp_path, name)
    rate = audio_info(path).sampling_rate
    whole = read_audio(path, rate)
    read = soundfile.SoundFile.read

    def failing(self, *arguments, **options):
        if self.tell() > 60000:
            raise soundfile.LibsndfileError(154)
        return read(self, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", failing)
    np.testing.assert_allclose(read_audio(path, rate), whole, atol=1e-6)
    np.testing.assert_allclose(read_audio(path, rate, offset=1.0), whole[rate:], atol=1e-6)


OGG = {"e.ogg": 44100, "j.opus": 48000, "l.oga": 44100}  # Vorbis, Opus, FLAC


def ogg(folder: Path, name: str, seconds: float = SECONDS) -> Path:
    return write_format(folder, name, seconds) if name == "e.ogg" else encoded(folder, name, seconds)


@pytest.mark.parametrize("name", OGG)
def test_chained_ogg_is_read_to_its_end(tmp_path, name):
    rate = OGG[name]
    first, second = ogg(tmp_path, name).read_bytes(), ogg(tmp_path, name, 2.5).read_bytes()
    parts = [read_audio(io.BytesIO(data), rate) for data in (first, second, first)]
    whole = np.concatenate(parts)
    path = tmp_path / f"chain-{name}"
    path.write_bytes(first + second + first)
    assert audio_info(path).num_samples == len(whole)
    for source in (path, io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(read_audio(source, rate), whole)
        np.testing.assert_array_equal(read_audio(source, rate, offset=5.0), whole[5 * rate :])


def test_chained_ogg_of_several_rates_is_refused(tmp_path):
    path = tmp_path / "rates.ogg"
    path.write_bytes(ogg(tmp_path, "e.ogg").read_bytes() + ogg(tmp_path, "j.opus").read_bytes())
    with pytest.raises(AudioReadError, match="2 streams one after the other, with sampling rates of 44100, 48000 Hz"):
        read_audio(path, 24000)


@pytest.mark.parametrize("name", OGG)
def test_ogg_without_the_mark_of_its_end(tmp_path, name, caplog):
    path = ogg(tmp_path, name)
    whole, data = read_audio(path, 24000), bytearray(path.read_bytes())
    last = data.rindex(b"OggS")
    set_in_ogg_page(data, last, "<B", 5, data[last + 5] & ~4)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            samples = read_audio(path, 24000)
            assert 0 <= len(samples) - len(whole) <= 480  # without the mark, Opus keeps the padding of its last packet
            np.testing.assert_allclose(samples[: len(whole) - 100], whole[:-100], atol=1e-6)
    assert caplog.text.count(f"{path}: the end of the Ogg stream is not marked") == 1


@pytest.mark.parametrize("name", OGG)
def test_ogg_that_lacks_pages_is_refused(tmp_path, name):
    path = ogg(tmp_path, name)
    data = path.read_bytes()
    pages = [place for place in range(len(data)) if data.startswith(b"OggS", place)]
    path.write_bytes(data[: pages[-2]] + data[pages[-1] :])
    with pytest.raises(AudioReadError, match="pages of the Ogg stream are missing"):
        read_audio(path, 24000)


@pytest.mark.parametrize(("missing", "accepted"), [(10, True), (1000, True), (4000, False)])
@pytest.mark.parametrize("name", ["e.ogg", "j.opus"])
def test_ogg_that_lacks_a_little_of_its_stated_length(tmp_path, name, missing, accepted, caplog):
    path = ogg(tmp_path, name)
    whole, data = read_audio(path, OGG[name]), bytearray(path.read_bytes())
    last = data.rindex(b"OggS")
    (granule,) = struct.unpack_from("<q", data, last + 6)
    set_in_ogg_page(data, last, "<q", 6, granule + 700 + missing)  # the last packet has up to 700 samples more
    path.write_bytes(data)
    if not accepted:
        with pytest.raises(AudioReadError, match=r"cut off: .* s can be decoded, but the file promises"):
            read_audio(path, OGG[name])
        return
    with caplog.at_level(logging.WARNING):
        samples = read_audio(path, OGG[name])
    np.testing.assert_array_equal(samples[: len(whole)], whole)
    assert "s that the file promises are missing" in caplog.text


def test_channels_that_cancel_each_other_are_reported(tmp_path, caplog):
    samples = sweep(3.0, 24000)
    opposed = np.stack([samples[:, 0], -0.98 * samples[:, 0]], axis=1)
    bad = write(tmp_path / "opposed.wav", opposed, 24000)
    good = write(tmp_path / "good.wav", samples, 24000)
    half = write(tmp_path / "half.wav", np.stack([samples[:, 0], 0 * samples[:, 0]], axis=1), 24000)
    silent = write(tmp_path / "silent.wav", 0 * samples, 24000)
    with caplog.at_level(logging.WARNING):
        for path in (bad, good, half, silent, bad):
            read_audio(path, 24000)
        read_audio(bad, 24000, offset=1.0, duration=0.5)
    assert [record.message.split(": ")[0] for record in caplog.records] == [str(bad)]
    assert "the channels are out of phase: their mono mix is 40 dB softer" in caplog.text


@pytest.mark.parametrize("name", ["a.m4a", "o.wav"])
def test_channels_of_a_recording(tmp_path, name):
    path = encoded(tmp_path, name)
    left, right = (read_audio(path, 44100, channels=side) for side in ("left", "right"))
    assert np.corrcoef(left, right)[0, 1] < 0.5
    expected = {"mean": (left + right) / 2, "mid": (left + right) / 2, "side": (left - right) / 2}
    for channels, samples in expected.items():
        np.testing.assert_allclose(read_audio(path, 44100, channels=channels), samples, atol=1e-6)
    with pytest.raises(ValueError, match="channels='both' must be one of mean, left, right, mid, side"):
        read_audio(path, 44100, channels="both")


def test_one_channel_has_no_side(tmp_path):
    path = write(tmp_path / "mono.wav", sweep(1.0, 24000, 1), 24000)
    for channels in ("left", "right", "mid"):
        np.testing.assert_array_equal(read_audio(path, 24000, channels=channels), read_audio(path, 24000))
    with pytest.raises(AudioReadError, match="mono.wav: one channel, which has no side"):
        read_audio(path, 24000, channels="side")


def test_one_of_the_channels_of_a_recording_out_of_phase(tmp_path, caplog):
    samples = sweep(1.0, 24000, 1)[:, 0]
    path = write(tmp_path / "opposed.wav", np.stack([samples, -samples], axis=1), 24000)
    for channels in ("left", "side"):
        np.testing.assert_allclose(read_audio(path, 24000, channels=channels), samples, atol=1e-4)
    assert "out of phase" not in caplog.text


def test_decoders_close_their_files(tmp_path):
    path = encoded(tmp_path, "a.m4a")
    decoder = open_decoder(path)
    next(decoder.blocks())
    decoder.close()
    path.unlink()


def test_a_tag_that_is_cut_off_is_no_recording(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    with pytest.raises(AudioReadError):
        read_audio(tmp_path / "a.mp3", 24000)
