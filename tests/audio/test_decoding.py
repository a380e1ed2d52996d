"""Headers, damaged files and file objects."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct

import numpy as np
import pytest
import soundfile
from sounds import FORMATS, set_in_ogg_page, sweep, write, write_format

from mert_hf.audio import AudioReadError, audio_info, read_audio


@pytest.mark.parametrize("name", FORMATS)
def test_info_tells_what_was_written(tmp_path, name):
    info = audio_info(write_format(tmp_path, name, seconds=2.0))
    rate = FORMATS[name][2]
    assert (info.sampling_rate, info.channels, info.num_samples, info.duration) == (rate, 2, 2 * rate, 2.0)


def test_file_objects_are_read_from_their_start_and_stay_open(tmp_path):
    path = write_format(tmp_path, "g.mp3")
    data = io.BytesIO(path.read_bytes())
    data.seek(1000)
    assert audio_info(data) == audio_info(path)
    np.testing.assert_array_equal(read_audio(data, 24000), read_audio(path, 24000))
    assert not data.closed
    with pytest.raises(AudioReadError, match="<audio in memory>: the file is empty"):
        read_audio(io.BytesIO(), 24000)


def test_flac_of_unknown_length_is_counted(tmp_path):
    path = write_format(tmp_path, "d.flac")
    whole = read_audio(path, 24000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO: the 36 bits of the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert audio_info(path).num_samples == 4 * 44100
    np.testing.assert_array_equal(read_audio(path, 24000), whole)


def test_vorbis_whose_last_page_states_a_later_position(tmp_path):
    """As music/eureka.ogg of Debian's naev-data, which has 1105 samples fewer than its last page states."""
    path = write_format(tmp_path, "e.ogg")
    whole, data = read_audio(path, 44100), bytearray(path.read_bytes())
    last = data.rindex(b"OggS")
    set_in_ogg_page(data, last, "<q", 6, len(whole) + 1105)
    path.write_bytes(data)
    assert audio_info(path).num_samples == len(whole) + 1105
    read = read_audio(path, 44100)
    assert abs(len(read) - len(whole)) < 2048  # more than before, where the old position cut the last block
    np.testing.assert_array_equal(read[: len(whole)], whole)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_written_to_a_pipe_is_whole(tmp_path, size):
    path = write_format(tmp_path, "a.wav")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", size)
    path.write_bytes(data)
    assert len(read_audio(path, 22050)) == 4 * 22050


@pytest.mark.parametrize("fraction", [0.5, 0.98])
@pytest.mark.parametrize("name", FORMATS)
def test_cut_off_files_are_refused(tmp_path, name, fraction):
    path = write_format(tmp_path, name)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(AudioReadError, match=rf"{name}: (damaged or )?cut off.*(Copy the file again)") as caught:
        read_audio(path, 24000)
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.wav", b"", "the file is empty"),
        ("letter.mp3", b"Dear reader, this is not music. " * 40, "not audio, but text"),
        ("noise.bin", bytes(range(256)) * 20, "not audio in a format that can be read"),
        ("header.raw", bytes(4000), "not audio in a format that can be read"),
        ("lone.flac", b"fLaC\x00\x00\x00\x22" + bytes(34), "begins like audio, but no audio can be decoded"),
    ],
)
def test_files_that_are_no_audio(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioReadError, match=message):
        read_audio(path, 24000)
    with pytest.raises(AudioReadError, match=message):
        audio_info(path)


def test_header_without_samples(tmp_path):
    path = write(tmp_path / "none.wav", np.zeros((0, 1), np.float32), 24000)
    with pytest.raises(AudioReadError, match="a header without any samples"):
        read_audio(path, 24000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_located(tmp_path, value):
    samples = sweep(3.0, 44100)
    samples[2 * 44100, 1] = value
    path = write(tmp_path / "bad.wav", samples, 44100, subtype="FLOAT")
    with pytest.raises(AudioReadError, match=r"NaN or infinite samples, the first at 2\.00 s"):
        read_audio(path, 24000)
    assert len(read_audio(path, 44100, offset=2.5)) == 22050


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(AudioReadError, match="no such file"):
        audio_info(tmp_path / "missing.wav")
    with pytest.raises(AudioReadError, match="a folder, not a file"):
        read_audio(tmp_path, 24000)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioReadError, match="not a regular file"):
        read_audio(tmp_path / "pipe.wav", 24000)


def test_errors_cross_process_borders():
    error = AudioReadError("x.wav", "the file is empty", "Leave it out")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "x.wav: the file is empty. Leave it out"
    assert (copy.path, copy.problem, copy.remedy) == (error.path, error.problem, error.remedy)


def test_variable_bit_rate_mp3_without_a_count_is_not_called_cut_off(tmp_path):
    """Without the count, libsndfile estimates the length from the first frame, which may promise far too much."""
    quiet, loud = np.zeros(3 * 44100, np.float32), sweep(3.0, 44100, channels=1)[:, 0]
    path = tmp_path / "vbr.mp3"
    with soundfile.SoundFile(path, "w", 44100, 1, format="MP3", compression_level=0.5, bitrate_mode="VARIABLE") as file:
        file.write(np.concatenate([quiet, loud]))
    data = path.read_bytes()
    position = max(data.find(b"Xing"), data.find(b"Info"))
    path.write_bytes(data[:position] + b"None" + data[position + 4 :])
    assert 5.5 < len(read_audio(path, 24000)) / 24000 < 6.5


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_rates_that_no_recording_has(tmp_path, rate):
    path = write_format(tmp_path, "a.wav")
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    with pytest.raises(AudioReadError, match=f"the header states a sampling rate of {rate} Hz"):
        audio_info(path)


DAMAGED = {
    "empty.wav": "the file is empty",
    "header_only.flac": "begins like audio, but no audio can be decoded",
    "nan.wav": "NaN or infinite samples, the first at 0.21 s",
    "not_audio.mp3": "not audio, but text",
    "truncated.ogg": "cut off: {seconds:.3f} s can be decoded, but the file does not end as an Ogg stream must",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_users_damaged_files_have_their_message(audio_dir, name):
    path = audio_dir / "damaged" / name
    message = DAMAGED[name]
    if name == "truncated.ogg":
        message = message.format(seconds=soundfile.info(path).duration)
    with pytest.raises(AudioReadError, match=re.escape(message)):
        read_audio(path, 24000)
