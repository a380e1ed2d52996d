"""Random crops: same item for the same (seed, epoch, index), the right samples, bad files counted and replaced."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
import soundfile
import torch
from tiny_pretraining import RATE, make_dataset, write_recordings
from torch.utils.data import DataLoader

from mert_hf.corpora.dataset import AudioCropDataset, derive_seed
from mert_hf.utils.tolerance import TooManyBadFilesError


def all_items(dataset, **loader) -> list:
    return [crop for batch in DataLoader(dataset, batch_size=5, collate_fn=list, **loader) for crop in batch]


def test_an_epoch_is_one_pass_over_the_audio(recordings):
    dataset = make_dataset(recordings)
    assert len(dataset) == 2 + 2 + 3 + 4 + 4 + 5 + 6 + 6  # seconds, rounded to crops of one second
    assert len(make_dataset(recordings, weighting="file")) == 8
    sources = [dataset[index].source for index in range(len(dataset))]
    assert sources.count(str(recordings / "clip_07.wav")) == 6


def test_crops_are_the_samples_of_their_file_on_the_frame_grid(recordings):
    dataset = make_dataset(recordings)
    offsets = set()
    for index in range(len(dataset)):
        crop = dataset[index]
        whole, _ = soundfile.read(crop.source, dtype="float32")
        assert crop.waveform.dtype == torch.float32 and crop.waveform.shape == (RATE,)
        assert crop.offset % 40 == 0
        np.testing.assert_array_equal(crop.waveform.numpy(), whole[crop.offset : crop.offset + RATE])
        offsets.add(crop.offset)
    assert len(offsets) > 20


def test_crops_are_resampled_and_mixed_to_mono(tmp_path):
    time = np.arange(3 * 4000) / 4000
    tone = np.sin(2 * np.pi * 100 * time)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, 0 * tone], axis=1), 4000, subtype="FLOAT")
    crop = make_dataset(tmp_path)[0]
    expected = 0.5 * np.sin(2 * np.pi * 100 * (crop.offset + np.arange(RATE)) / RATE)
    np.testing.assert_allclose(crop.waveform[200:-200], expected[200:-200], atol=2e-3)


def test_crops_may_be_shorter_than_the_shortest_recording(recordings):
    dataset = make_dataset(recordings, crop_length=RATE // 2, min_duration=3.0, max_bad_files=0)
    assert {len(dataset[index].waveform) for index in range(len(dataset))} == {RATE // 2}
    assert not dataset.bad_recordings


@pytest.mark.parametrize("workers", [1, 2])
def test_items_are_the_same_for_any_number_of_workers(recordings, workers):
    alone = all_items(make_dataset(recordings))
    shared = all_items(make_dataset(recordings), num_workers=workers)
    assert [(crop.source, crop.offset, crop.seed) for crop in alone] == [
        (crop.source, crop.offset, crop.seed) for crop in shared
    ]
    assert all(torch.equal(one.waveform, other.waveform) for one, other in zip(alone, shared, strict=True))


def test_seed_and_epoch_change_the_crops(recordings):
    def draws(dataset):
        return [(dataset[index].offset, dataset[index].seed) for index in range(len(dataset))]

    first = make_dataset(recordings)
    kept = draws(first)
    assert draws(make_dataset(recordings)) == kept
    assert draws(make_dataset(recordings, seed=1)) != kept
    first.set_epoch(1)
    assert first.epoch == 1 and draws(first) != kept
    first.set_epoch(0)
    assert draws(first) == kept


def test_running_workers_learn_of_a_new_epoch(recordings):
    dataset = make_dataset(recordings)
    loader = DataLoader(dataset, batch_size=4, collate_fn=list, num_workers=1, persistent_workers=True)
    first = [crop.seed for batch in loader for crop in batch]
    dataset.set_epoch(1)
    second = [crop.seed for batch in loader for crop in batch]
    assert first != second and second == [crop.seed for crop in all_items(dataset)]


def test_short_recordings_give_short_crops_and_very_short_ones_are_left_out(tmp_path, caplog):
    write_recordings(tmp_path, [0.7, 0.2, 3.0])
    with caplog.at_level(logging.WARNING):
        dataset = make_dataset(tmp_path)
    assert "1 of 3 recordings are shorter than 0.5 seconds and are left out" in caplog.text
    assert sorted({len(crop.waveform) for crop in all_items(dataset)}) == [1400, RATE]


def test_a_recording_of_the_least_duration_survives_resampling(tmp_path):
    soundfile.write(tmp_path / "edge.wav", np.zeros(3677, dtype=np.float32), 7353, subtype="FLOAT")  # 0.50007 s
    dataset = make_dataset(tmp_path)
    assert len(dataset[0].waveform) == pytest.approx(1000, abs=1)


def test_bad_files_are_logged_once_and_replaced(tmp_path, caplog):
    write_recordings(tmp_path, [3.0] * 4)
    broken = np.full(3 * RATE, np.nan, dtype=np.float32)
    soundfile.write(tmp_path / "broken.wav", broken, RATE, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        dataset = make_dataset(tmp_path, max_bad_files="50%")
        items = all_items(dataset)
        dataset.set_epoch(1)
        items += all_items(dataset)
    assert len(items) == 30 and all(torch.isfinite(crop.waveform).all() for crop in items)
    assert not any(crop.source.endswith("broken.wav") for crop in items)
    assert caplog.text.count("Cannot use") == 1 and "broken.wav" in caplog.text
    assert dataset.bad_recordings == [str(tmp_path / "broken.wav")]


def test_bad_files_are_counted_in_workers_too(tmp_path):
    write_recordings(tmp_path, [3.0] * 4)
    soundfile.write(tmp_path / "broken.wav", np.full(3 * RATE, np.inf, dtype=np.float32), RATE, subtype="FLOAT")
    dataset = make_dataset(tmp_path, max_bad_files="50%")
    with_workers = all_items(dataset, num_workers=2)
    assert dataset.bad_recordings == [str(tmp_path / "broken.wav")]
    alone = all_items(make_dataset(tmp_path, max_bad_files="50%"))
    assert [crop.seed for crop in with_workers] == [crop.seed for crop in alone]
    assert all(torch.equal(one.waveform, other.waveform) for one, other in zip(with_workers, alone, strict=True))


def test_too_many_bad_files_stop_the_run(tmp_path):
    write_recordings(tmp_path, [3.0] * 4)
    soundfile.write(tmp_path / "broken.wav", np.full(3 * RATE, np.nan, dtype=np.float32), RATE, subtype="FLOAT")
    dataset = make_dataset(tmp_path)
    with pytest.raises(
        TooManyBadFilesError, match=r"1 of 5 recordings .*max_bad_files=1% tolerates 0.*broken.wav.*Fix or remove"
    ) as caught:
        all_items(dataset)
    raised = type(caught.value)("a data worker hands its error on as type(error)(text)")
    assert isinstance(raised, ValueError)


def test_unreadable_headers_count_at_once(tmp_path):
    write_recordings(tmp_path, [3.0] * 3)
    (tmp_path / "noise.wav").write_bytes(b"RIFF but nothing of it" * 20)
    with pytest.raises(TooManyBadFilesError, match="1 of 4 recordings cannot be used.*noise.wav"):
        make_dataset(tmp_path)
    assert make_dataset(tmp_path, max_bad_files=1).bad_recordings == [str(tmp_path / "noise.wav")]


def test_metadata_tells_files_splits_and_durations(recordings, tmp_path):
    write_recordings(tmp_path, [2.0, 3.0, 4.0])
    rows = ["file_name,split,duration", "clip_00.wav,train,2.0", "clip_01.wav,train,", "clip_02.wav,test,4.0"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    assert len(make_dataset(tmp_path)) == 9
    assert len(make_dataset(tmp_path, split="train")) == 5
    assert len(make_dataset(tmp_path / "metadata.csv", split="test")) == 4
    assert len(make_dataset([tmp_path, recordings], split="train")) == 5 + 32
    with pytest.raises(ValueError, match=r"no rows of split 'dev'; its column split holds test, train"):
        make_dataset(tmp_path, split="dev")


def test_a_duration_that_promises_too_much_makes_a_bad_file(tmp_path):
    write_recordings(tmp_path, [1.0, 3.0])
    rows = ["file_name,duration", "clip_00.wav,500.0", "clip_01.wav,3.0"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    dataset = make_dataset(tmp_path, max_bad_files="50%")
    assert {crop.source for crop in (dataset[400], dataset[0])} == {str(tmp_path / "clip_01.wav")}


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/hostname", "sub/../../secret.wav", "C:\\secret.wav"])
def test_metadata_cannot_name_files_outside_its_folder(tmp_path, name):
    folder = tmp_path / "data"
    write_recordings(folder, [2.0])
    write_recordings(tmp_path, [2.0])[0].rename(tmp_path / "secret.wav")
    (folder / "metadata.csv").write_text(f"file_name\n{name}\n")
    with pytest.raises(ValueError, match="does not stay inside the folder"):
        make_dataset(folder)


def test_audio_columns_of_datasets_are_read_in_part(recordings):
    datasets = pytest.importorskip("datasets")
    paths = sorted(str(path) for path in recordings.glob("*.wav"))
    table = datasets.Dataset.from_dict({"audio": paths, "label": list(range(8))})
    table = table.cast_column("audio", datasets.Audio(decode=False))
    from_column = make_dataset(table)
    from_files = make_dataset(recordings)
    assert len(from_column) == len(from_files)
    assert torch.equal(from_column[5].waveform, from_files[5].waveform)
    assert from_column[5].source == "audio[2]"
    with pytest.raises(ValueError, match=r"one of the Audio columns \['audio'\] of this data set; got 'label'"):
        make_dataset(table, column="label")


def test_audio_columns_may_hold_bytes():
    datasets = pytest.importorskip("datasets")
    wave = np.linspace(-0.5, 0.5, 3 * RATE, dtype=np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE, format="WAV", subtype="FLOAT")
    table = datasets.Dataset.from_dict({"audio": [{"bytes": buffer.getvalue(), "path": None}]})
    crop = make_dataset(table.cast_column("audio", datasets.Audio(decode=False)))[1]
    np.testing.assert_array_equal(crop.waveform.numpy(), wave[crop.offset : crop.offset + RATE])


def test_bad_arguments_are_refused(recordings, tmp_path):
    with pytest.raises(ValueError, match="weighting must be 'duration' or 'file', got 'size'"):
        make_dataset(recordings, weighting="size")
    with pytest.raises(ValueError, match="crop_length must be a positive number of samples"):
        AudioCropDataset(recordings, crop_length=0)
    with pytest.raises(ValueError, match="None of 8 recordings can be used: .*min_duration=60 seconds"):
        make_dataset(recordings, min_duration=60)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        make_dataset(tmp_path / "empty")
    with pytest.raises(IndexError, match="no item 32 in a data set of 32 crops"):
        make_dataset(recordings)[32]


def test_seeds_depend_on_every_key_and_their_order():
    seeds = {derive_seed(*keys) for keys in [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0), (0, 0, 1, 0), (2**62, 1)]}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)
