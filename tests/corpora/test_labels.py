"""Labels ahead of time: made once, found again, cut at the crop, refused where they do not belong."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from tiny_pretraining import RATE, make_collator, make_dataset, tiny_config, write_recordings
from typer.testing import CliRunner

from mert_hf.audio import read_audio
from mert_hf.cli.app import app
from mert_hf.corpora import labels
from mert_hf.corpora.labels import LabelCache, codes_path, label_files, read_index
from mert_hf.pretraining.arguments import PretrainingDataArguments
from mert_hf.pretraining.data import build_datasets
from mert_hf.teachers import FeatureSet, KMeansTeacher, Music2VecTeacher, load_teacher
from mert_hf.teachers.base import AcousticTeacher
from mert_hf.utils.tolerance import TooManyBadFilesError

HOP = 40
SETS = (FeatureSet("mfcc", 8), FeatureSet("chroma", 5))
# The few bands between 0 and 1 kHz leave some of the 80 mel filters empty, which is of no concern here.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")


class CountingTeacher(AcousticTeacher):
    """Each frame's code is its number, modulo the codebook's size; the second codebook counts down."""

    kind = "counting"

    def __init__(self, codebook_size: int = 8, constant: bool = False, shift: int = 0):
        super().__init__()
        self.sampling_rate, self.hop_length = RATE, HOP
        self.codebook_sizes, self.constant, self.shift = (codebook_size, codebook_size), constant, shift
        self.labeled = 0

    def settings(self):
        return {"codebook_size": self.codebook_size}

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        self.labeled += 1
        frames = torch.arange(waveforms.shape[1] // HOP + 1) % self.codebook_size
        second = torch.zeros_like(frames) if self.constant else self.codebook_size - 1 - frames
        return (torch.stack([frames, second]) + self.shift).expand(len(waveforms), -1, -1)


@pytest.fixture(scope="module")
def kmeans(recordings) -> KMeansTeacher:
    clips = [read_audio(path, RATE) for path in sorted(recordings.iterdir())]
    return KMeansTeacher.fit(clips, SETS, RATE, HOP, show_progress_bar=False)


def files_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.wav"))]


def label(files, teacher, output, **arguments):
    return label_files(files, teacher, output, show_progress_bar=False, **arguments)


def test_a_crop_of_cached_codes_is_a_cut_of_the_whole_files(recordings, kmeans, tmp_path):
    summary = label(files_of(recordings), kmeans, tmp_path)
    assert (summary.written, summary.kept, summary.failed) == (8, 0, {})
    cache = LabelCache(tmp_path, kmeans)
    assert (cache.num_codebooks, cache.codebook_size, cache.codebook_sizes) == (2, 8, (8, 5))
    assert (cache.sampling_rate, cache.hop_length, cache.frame_rate) == (RATE, HOP, 50.0)
    for file in files_of(recordings):
        whole = kmeans.label_recording(torch.from_numpy(read_audio(file, RATE))).numpy()
        frames = whole.shape[1]
        for first, count in ((0, frames), (0, 1), (7, 33), (frames - 5, 5), (3, 0)):
            codes = cache(file, first, count)
            assert codes.dtype == np.int64 and np.array_equal(codes, whole[:, first : first + count])


@pytest.mark.parametrize(("size", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (1024, "uint16")])
def test_arrays_are_as_small_as_the_codes_allow(tmp_path, size, dtype):
    (file,) = write_recordings(tmp_path / "data", [30.0])
    label([file], CountingTeacher(size), tmp_path / "labels")
    (path,) = (tmp_path / "labels").glob("codes/*/*.npy")
    codes = np.load(path, mmap_mode="r")
    assert codes.dtype == dtype and codes.shape == (2, 1501) and isinstance(codes, np.memmap)
    assert LabelCache(tmp_path / "labels")(str(file), 0, 1501).max() == min(size, 1501) - 1


def test_the_collator_takes_cached_labels_as_live_ones(recordings, kmeans, tmp_path):
    label(files_of(recordings), kmeans, tmp_path)
    config = tiny_config(codebook_size=8)
    dataset = make_dataset(recordings)
    batches = [
        make_collator(config, acoustic_teacher=teacher, label_cache=cache)([dataset[index] for index in range(8)])
        for teacher, cache in ((kmeans, None), (None, LabelCache(tmp_path, kmeans)))
    ]
    live, cached = (batch["codes"] for batch in batches)
    assert cached.shape == live.shape and cached.dtype == live.dtype
    assert any(offset for _, offset in batches[1].crops)
    inside = slice(8, -8)  # beyond the reach of the crop's edges, where live labels hear silence
    assert (cached[..., inside] == live[..., inside]).float().mean() > 0.998
    for (source, offset), row in zip(batches[1].crops, cached, strict=True):
        whole = kmeans.label_recording(torch.from_numpy(read_audio(source, RATE)))
        assert torch.equal(row, whole[:, offset // HOP :][:, : row.shape[1]])
    assert batches[0].keys() == batches[1].keys()


def test_labels_at_other_rates_are_refused(recordings, tmp_path):
    label(files_of(recordings), CountingTeacher(), tmp_path)
    slow = tiny_config(conv_stride=[5, 4, 4])
    with pytest.raises(
        ValueError, match=r"LabelCache works at 2000 Hz and 50\.0 frames a second, the model at 2000 Hz"
    ):
        make_collator(slow, acoustic_teacher=None, musical_teacher=None, label_cache=LabelCache(tmp_path))


def test_relative_and_absolute_paths_lead_to_the_same_labels(recordings, tmp_path, monkeypatch):
    label(files_of(recordings), CountingTeacher(), tmp_path)
    cache = LabelCache(tmp_path)
    monkeypatch.chdir(recordings)
    assert np.array_equal(cache("clip_03.wav", 2, 9), cache(f"{recordings}/../{recordings.name}/clip_03.wav", 2, 9))


def test_recordings_that_moved(tmp_path):
    files = write_recordings(tmp_path / "old" / "a", [1.0]) + write_recordings(tmp_path / "old" / "b", [2.0])
    label(files, CountingTeacher(), tmp_path / "labels")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = tmp_path / "new" / "b" / "clip_00.wav"
    cache = LabelCache(tmp_path / "labels", root=tmp_path / "new")
    assert cache(str(moved), 0, 101).shape == (2, 101)
    cache.check([str(moved)])
    place = rf"give LabelCache their folder as root \(--label_root in pre-training\), which was {tmp_path / 'old'}"
    with pytest.raises(ValueError, match=f"no codes of .*{place}"):
        LabelCache(tmp_path / "labels")(str(moved), 0, 1)
    with pytest.raises(ValueError, match=f"1 of 2 recordings have no codes in .*labels, such as {moved}.*{place}"):
        LabelCache(tmp_path / "labels").check([files[0], str(moved)])


def test_recordings_that_failed_leave_the_data_set(recordings, tmp_path):
    """They count against max_bad_files when the data set is made, instead of ending training when one is drawn."""
    shutil.copytree(recordings, tmp_path / "music")
    (tmp_path / "music" / "bad.wav").write_text("no music")
    files = files_of(tmp_path / "music")
    label(files, CountingTeacher(), tmp_path / "labels")
    shutil.copy(files[1], tmp_path / "music" / "bad.wav")  # readable by now, still without labels
    cache = LabelCache(tmp_path / "labels")
    failures = cache.failures(files)
    assert list(failures) == [str(tmp_path / "music" / "bad.wav")]
    with pytest.raises(TooManyBadFilesError, match="1 of 9 recordings cannot be used, and max_bad_files=1%.*bad.wav"):
        make_dataset(tmp_path / "music").leave_out(failures)
    dataset = make_dataset(tmp_path / "music", max_bad_files=1)
    assert len(dataset.used_recordings) == 9
    dataset.leave_out(failures)
    assert dataset.bad_recordings == list(failures) and len(dataset.used_recordings) == 8
    cache.check(dataset.used_recordings)
    collator = make_collator(acoustic_teacher=None, label_cache=cache)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        assert "codes" in collator([dataset[index] for index in range(len(dataset))])


def test_a_run_with_recordings_that_failed(recordings, tmp_path):
    """On the code of 623a583 the collator ended it at the step that drew the recording, again and again."""
    shutil.copytree(recordings, tmp_path / "music")
    for index in range(3):
        shutil.copy(tmp_path / "music" / "clip_07.wav", tmp_path / "music" / f"bad_{index}.wav")
    files = files_of(tmp_path / "music")
    label([file for file in files if "bad" not in file], CountingTeacher(), tmp_path / "labels")
    path = tmp_path / "labels" / "labels.json"
    index = json.loads(path.read_text())
    index["failed"] = {file: f"{file}: it could not be read" for file in files if "bad" in file}
    path.write_text(json.dumps(index))
    data = PretrainingDataArguments(train_data=[str(tmp_path / "music")], crop_length=RATE, min_duration=0.5)
    cache = LabelCache(tmp_path / "labels")
    with pytest.raises(TooManyBadFilesError, match="1 of 11 recordings"):
        build_datasets(tiny_config(), data, 0, [cache])
    data.max_bad_files = "3"
    train, evaluation = build_datasets(tiny_config(), data, 0, [cache])
    assert evaluation is None and len(train.used_recordings) == 8


def test_a_second_run_keeps_what_is_there(recordings, tmp_path):
    files, teacher = files_of(recordings), CountingTeacher()
    label(files[:5], teacher, tmp_path)
    summary = label(files, teacher, tmp_path)
    assert (summary.written, summary.kept, teacher.labeled) == (3, 5, 8)
    assert LabelCache(tmp_path).recordings == sorted(files)
    label(files[:1], teacher, tmp_path)
    assert teacher.labeled == 8 and len(LabelCache(tmp_path).recordings) == 8


def test_changed_recordings_and_damaged_arrays_are_labelled_anew(tmp_path):
    files = [str(path) for path in write_recordings(tmp_path / "data", [1.0, 1.0, 1.0])]
    teacher = CountingTeacher()
    label(files, teacher, tmp_path / "labels")
    write_recordings(tmp_path / "data", [2.0])
    os.utime(files[0], ns=(time.time_ns() + 10**9,) * 2)
    array = codes_path(tmp_path / "labels", files[1])
    array.write_bytes(array.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"(?s)clip_01.wav, cannot be read: .* Run mert-hf label again"):
        LabelCache(tmp_path / "labels")(files[1], 0, 5)
    assert label(files, teacher, tmp_path / "labels").written == 2
    cache = LabelCache(tmp_path / "labels")
    assert cache(files[0], 0, 101).shape == (2, 101) and cache(files[1], 0, 51).shape == (2, 51)


def test_files_that_cannot_be_read_are_reported(recordings, tmp_path, caplog):
    broken, empty = tmp_path / "broken.wav", tmp_path / "empty.wav"
    broken.write_bytes(b"RIFF no audio")
    empty.touch()
    infinite = tmp_path / "infinite.wav"
    soundfile.write(infinite, np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    bad = [str(broken), str(empty), str(infinite), str(tmp_path / "missing.wav")]
    summary = label([*files_of(recordings), *bad], CountingTeacher(), tmp_path / "labels")
    assert sorted(summary.failed) == sorted(bad) and summary.written == 8
    assert caplog.text.count("Cannot use") == 4 and "4 failed" in summary.text()
    assert sorted(read_index(tmp_path / "labels")["failed"]) == sorted(bad)
    with pytest.raises(ValueError, match=r"no codes of .*broken\.wav.*remove them from the data"):
        LabelCache(tmp_path / "labels")(str(broken), 0, 1)
    write_recordings(tmp_path, [1.0])[0].rename(broken)  # repaired
    assert label(bad[:1], CountingTeacher(), tmp_path / "labels").failed == {}
    assert str(broken) not in read_index(tmp_path / "labels")["failed"]
    with pytest.raises(ValueError, match="None of 1 recordings could be labeled"):
        label([str(empty)], CountingTeacher(), tmp_path / "nothing")


class StuckTeacher(CountingTeacher):
    """Tells when it has labeled three recordings, and goes no further."""

    def __init__(self, begun):
        super().__init__()
        self.begun = begun

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        if self.labeled == 3:
            self.begun.set()
            time.sleep(60)
        return super().forward(waveforms)


def test_a_killed_run_goes_on(recordings, tmp_path):
    files, fork = files_of(recordings), multiprocessing.get_context("fork")
    begun = fork.Event()
    process = fork.Process(target=label, args=(files, StuckTeacher(begun), tmp_path))
    process.start()
    assert begun.wait(timeout=60)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(ValueError, match="are not finished. Run the same mert-hf label again"):
        LabelCache(tmp_path)
    (leftover := tmp_path / "codes" / "00" / ".x.npy.0.partial").parent.mkdir(parents=True, exist_ok=True)
    leftover.touch()
    summary = label(files, CountingTeacher(), tmp_path)
    assert (summary.written, summary.kept) == (5, 3) and not leftover.exists()
    cache = LabelCache(tmp_path, CountingTeacher())
    for file, seconds in zip(files, (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 5.5, 6.0), strict=True):
        frames = round(seconds * 50) + 1
        assert np.array_equal(cache(file, 0, frames)[0], np.arange(frames) % 8)


def test_labels_of_another_teacher_are_refused(recordings, kmeans, tmp_path):
    label(files_of(recordings), kmeans, tmp_path)
    other = KMeansTeacher(SETS, RATE, HOP, **{**kmeans.state_dict(), "mean_0": kmeans.mean_0 + 1})
    for use in (lambda: LabelCache(tmp_path, other), lambda: label(files_of(recordings), other, tmp_path)):
        with pytest.raises(ValueError, match=r"(?s)made by another teacher.*the same settings but other weights"):
            use()
    with pytest.raises(ValueError, match=r"(?s)made by another teacher: .'kind': 'kmeans'.*'kind': 'counting'"):
        LabelCache(tmp_path, CountingTeacher())
    kmeans.save_pretrained(tmp_path / "saved")
    assert LabelCache(tmp_path, load_teacher(tmp_path / "saved")).num_codebooks == 2


def test_dead_codebooks_and_codes_out_of_range(recordings, tmp_path):
    files = files_of(recordings)
    with pytest.raises(ValueError, match=r"(?s)Dead codebooks: 1\..*codebook  used/codes"):
        label(files, CountingTeacher(constant=True), tmp_path / "dead")
    with pytest.raises(ValueError, match="are not finished"):
        LabelCache(tmp_path / "dead")
    for shift in (-1, 1):
        with pytest.raises(ValueError, match="Codebook . has the codes 0 to 7, but codes from"):
            label(files, CountingTeacher(shift=shift), tmp_path / f"range{shift}")
    assert label(files, CountingTeacher(), tmp_path / "fine").counts.entropy(0) == pytest.approx(3.0, abs=0.01)


class TooShort(CountingTeacher):
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return super().forward(waveforms)[..., :-3]


def test_teachers_that_cannot_be_cached(recordings, tmp_path):
    with pytest.raises(ValueError, match="The targets of Music2VecTeacher follow the training"):
        label(files_of(recordings), Music2VecTeacher(), tmp_path)
    with pytest.raises(ValueError, match=r"expected 2 rows of 100 or more, the teacher gave \(2, 98\)"):
        label(files_of(recordings), TooShort(), tmp_path)


def test_one_run_at_a_time(recordings, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match="Another process is writing to"):
        label(files_of(recordings), CountingTeacher(), tmp_path)


def test_frames_that_are_not_there(recordings, tmp_path):
    file = files_of(recordings)[0]
    label([file], CountingTeacher(), tmp_path)
    cache = LabelCache(tmp_path)
    for first, count in ((-1, 5), (100, 2), (0, 102)):
        with pytest.raises(ValueError, match=r"has codes of shape \(2, 101\), which do not hold the frames"):
            cache(file, first, count)
    with pytest.raises(ValueError, match="not among the 1 labeled recordings"):
        cache("audio[3]", 0, 1)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"format": 2}', '{"format": 1, "files": {}}', '{"format": 1, "num_codebooks": "2"}']
)
def test_a_damaged_index(tmp_path, content):
    (tmp_path / labels.INDEX).write_text(content)
    with pytest.raises(ValueError, match="is not valid JSON|a JSON object|not an index of labels of format 1"):
        LabelCache(tmp_path)


def test_no_index(tmp_path):
    with pytest.raises(ValueError, match="has no labels.json. Make labels with mert-hf label"):
        LabelCache(tmp_path / "nowhere")


def test_commands(recordings, tmp_path):
    run = CliRunner().invoke
    rates = ["--sampling-rate", str(RATE), "--hop-length", str(HOP), "--quiet"]
    teacher, output = str(tmp_path / "teacher"), str(tmp_path / "labels")
    fitted = run(
        app, ["fit-kmeans", "--data", str(recordings), "--output", teacher, "--features", "mfcc:8,chroma:5:0.5", *rates]
    )
    assert fitted.exit_code == 0, fitted.output
    assert load_teacher(teacher).feature_sets == (FeatureSet("mfcc", 8), FeatureSet("chroma", 5, 0.5))
    arguments = [
        "label",
        "--data",
        str(recordings),
        "--teacher",
        teacher,
        "--output",
        output,
        "--device",
        "cpu",
        "--quiet",
    ]
    result = run(app, arguments)
    assert result.exit_code == 0 and "8 recordings labeled" in result.output and "8/8" in result.output
    assert "8 existed already" in run(app, arguments).output
    LabelCache(output, load_teacher(teacher))
    (broken := tmp_path / "broken.wav").write_bytes(b"RIFF")
    assert run(app, [*arguments, "--data", str(broken)]).exit_code == 1
    assert run(app, [*arguments, "--data", str(broken), "--max-bad-files", "20%"]).exit_code == 0
    refused = run(app, [*arguments, "--teacher", "cqt"])
    assert refused.exit_code == 1 and "were made by another teacher" in refused.output
