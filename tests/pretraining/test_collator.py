"""The collator: clean labels, mixed and normalized input, masks in step with frames, draws that no worker changes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from tiny_pretraining import RATE, BandTeacher, LoudnessTeacher, make_collator, make_dataset, tiny_config
from torch.utils.data import DataLoader

from mert_hf.corpora.dataset import AudioCrop
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.modeling.modeling_mert import MERTForPreTraining
from mert_hf.pretraining.collator import CLEAN_WAVEFORMS, MERTBatch
from mert_hf.pretraining.student_input import NoiseMixture, SpanMasking


def crops(lengths: list[int], seed: int = 0) -> list[AudioCrop]:
    generator = torch.Generator().manual_seed(seed)
    return [
        AudioCrop(torch.randn(size, generator=generator) * 0.2, f"clip {row}", 40 * row, seed=100 * seed + row)
        for row, size in enumerate(lengths)
    ]


def test_a_batch_fits_the_model():
    config = tiny_config()
    batch = make_collator(config)(crops([RATE] * 3))
    frames = config.num_frames(RATE)
    assert set(batch) == {"input_values", "mask_time_indices", "codes", "cqt"}
    assert batch["input_values"].shape == (3, RATE) and batch["input_values"].dtype == torch.float32
    assert batch["mask_time_indices"].shape == (3, frames) and batch["mask_time_indices"].dtype == torch.bool
    assert batch["codes"].shape == (3, 2, frames) and batch["codes"].dtype == torch.int64
    assert batch["cqt"].shape == (3, frames, 4) and batch["cqt"].dtype == torch.float32
    assert batch.crops == [("clip 0", 0), ("clip 1", 40), ("clip 2", 80)] and batch.audio_seconds == 3.0
    assert set(batch.teacher_times) == {"acoustic_teacher", "musical_teacher"}
    assert torch.isfinite(MERTForPreTraining(config)(**batch).loss)


def test_labels_are_those_of_the_clean_clips_and_the_student_hears_the_mixture():
    items = crops([RATE] * 4)
    clean = torch.stack([crop.waveform for crop in items])
    batch = make_collator(mixture=NoiseMixture(probability=1.0, length=(200, 400)))(items)
    frames = batch["mask_time_indices"].shape[1]
    assert torch.equal(batch["codes"], LoudnessTeacher()(clean)[..., :frames])
    assert torch.equal(batch["cqt"], BandTeacher()(clean)[:, :frames])
    differs = (batch["input_values"] != clean).sum(dim=1)
    assert (differs >= 200).all() and (differs <= 1200).all()
    without = make_collator(mixture=None)(items)
    assert torch.equal(without["input_values"], clean)


def test_normalization_is_of_the_mixed_clip():
    extractor = MERTFeatureExtractor(sampling_rate=RATE, do_normalize=True)
    batch = make_collator(feature_extractor=extractor)(crops([RATE, RATE, 1500]))
    for row, length in enumerate([RATE, RATE, 1500]):
        clip = batch["input_values"][row, :length]
        assert abs(float(clip.mean())) < 1e-5 and float(clip.std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_clips_of_different_lengths_are_padded_and_ignored_past_their_end():
    config = tiny_config()
    lengths = [RATE, 1200, 700]
    batch = make_collator(config)(crops(lengths))
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    for row, length in enumerate(lengths):
        frames = config.num_frames(length)
        assert (batch["codes"][row, :, :frames] >= 0).all() and (batch["codes"][row, :, frames:] == -100).all()
        assert batch["mask_time_indices"][row, :frames].any()
        assert not batch["mask_time_indices"][row, frames:].any()
        assert (batch["input_values"][row, length:] == 0).all()
    assert torch.isfinite(MERTForPreTraining(config)(**batch).loss)


def test_a_row_draws_its_mask_whatever_batch_it_is_in():
    items = crops([RATE] * 6)
    together = make_collator()(items)["mask_time_indices"]
    apart = torch.cat(
        [make_collator()(items[:2])["mask_time_indices"], make_collator()(items[2:])["mask_time_indices"]]
    )
    assert torch.equal(together, apart)
    assert len({tuple(row.tolist()) for row in together}) == 6


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_do_not_depend_on_the_workers(recordings, workers):
    def batches(number):
        loader = DataLoader(make_dataset(recordings), batch_size=4, num_workers=number, collate_fn=make_collator())
        return list(loader)

    for one, other in zip(batches(0), batches(workers), strict=True):
        assert one.keys() == other.keys() and one.crops == other.crops
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_global_random_numbers_are_neither_used_nor_changed():
    items = crops([RATE] * 4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make_collator()(items)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = make_collator()(items)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda wave: wave,
        lambda wave: wave.numpy(),
        lambda wave: {"input_values": wave.numpy()},
        lambda wave: {"input_values": wave.tolist(), "label": 3},
        lambda wave: {"audio": {"array": wave.numpy(), "sampling_rate": RATE}},
        lambda wave: {"array": wave.numpy(), "sampling_rate": RATE, "path": None},
        lambda wave: torch.stack([wave, wave]),
    ],
    ids=["tensor", "array", "dictionary", "list", "audio", "audio dictionary", "stereo"],
)
def test_plain_clips_are_accepted(wrap):
    waves = [crop.waveform for crop in crops([RATE, 1500])]
    batch = make_collator(mixture=None)([wrap(wave) for wave in waves])
    torch.testing.assert_close(batch["input_values"][0], waves[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(batch["input_values"][1, :1500], waves[1], rtol=0, atol=1e-7)
    assert batch["attention_mask"].sum(dim=1).tolist() == [RATE, 1500]


def test_plain_clips_draw_anew_each_time_from_the_seed():
    waves = [crop.waveform for crop in crops([RATE] * 2)]
    one, same, other = make_collator(seed=1), make_collator(seed=1), make_collator(seed=2)
    first, second = one(waves)["mask_time_indices"], one(waves)["mask_time_indices"]
    assert not torch.equal(first, second)
    assert torch.equal(same(waves)["mask_time_indices"], first) and torch.equal(
        same(waves)["mask_time_indices"], second
    )
    assert not torch.equal(other(waves)["mask_time_indices"], first)


def test_workers_draw_differently_for_plain_clips_and_repeat_with_the_seed():
    waves = [crop.waveform for crop in crops([RATE])] * 8

    def masks(seed):
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(waves, batch_size=2, num_workers=2, collate_fn=make_collator(), generator=generator)
        return torch.cat([batch["mask_time_indices"] for batch in loader])

    first = masks(0)
    assert len({tuple(row.tolist()) for row in first}) == 8
    assert torch.equal(first, masks(0)) and not torch.equal(first, masks(1))


def test_labels_left_to_the_device_are_the_same():
    items = crops([RATE, 1500])
    here, there = make_collator(), make_collator(labels_on_device=True)
    batch = there(items)
    assert set(batch) == {"input_values", "attention_mask", "mask_time_indices", CLEAN_WAVEFORMS}
    finished, expected = there.add_targets(batch), here(items)
    assert finished.keys() == expected.keys()
    assert all(torch.equal(finished[name], expected[name]) for name in expected)


class OnGPU(LoudnessTeacher):
    device = "cuda:0"


def from_forked_process(function) -> list[str] | str:
    """The keys that function() returns in a forked process, or the message of its ValueError."""
    context = torch.multiprocessing.get_context("fork")
    answers = context.Queue()

    def answer():
        try:
            answers.put(sorted(function()))
        except ValueError as error:
            answers.put(str(error))

    process = context.Process(target=answer)
    process.start()
    result = answers.get(timeout=60)
    process.join()
    return result


def test_a_teacher_on_cuda_is_refused_in_forked_workers():
    collator = make_collator(acoustic_teacher=OnGPU())
    message = from_forked_process(lambda: collator(crops([RATE])))
    assert "OnGPU is on cuda:0, and CUDA cannot be used in a forked data worker" in message
    assert "labels_on_device=True" in message and "dataloader_num_workers=0" in message
    assert "codes" in collator(crops([RATE]))  # in the process that made it, all is well
    assert "codes" in pickle.loads(pickle.dumps(collator))(crops([RATE]))  # and in a spawned one


def test_a_collator_with_labels_on_device_passes_forked_workers():
    collator = make_collator(acoustic_teacher=OnGPU(), labels_on_device=True)
    assert CLEAN_WAVEFORMS in from_forked_process(lambda: collator(crops([RATE])))


def test_a_batch_keeps_its_origin_when_it_moves():
    batch = MERTBatch({"input_values": torch.zeros(2, 5)})
    batch.crops, batch.audio_seconds = [("a", 0)], 2.5
    moved = pickle.loads(pickle.dumps(batch)).to("cpu", non_blocking=True)
    assert isinstance(moved, MERTBatch) and moved.crops == [("a", 0)] and moved.audio_seconds == 2.5
    assert dict(moved).keys() == {"input_values"}


class Cache:
    """Codes of whole files: the code is the number of the frame, modulo 8."""

    sampling_rate, frame_rate, num_codebooks, codebook_size = RATE, 50.0, 2, 8

    def __call__(self, source: str, first_frame: int, frames: int) -> np.ndarray:
        return np.stack([np.arange(first_frame, first_frame + frames) % 8] * 2)


def test_cached_labels_are_cut_at_the_crop():
    config = tiny_config()
    items = [AudioCrop(torch.randn(RATE), "a", 80, 0), AudioCrop(torch.randn(1000), "b", 400, 1)]
    batch = make_collator(config, acoustic_teacher=None, label_cache=Cache())(items)
    assert batch["codes"][0, 1, :4].tolist() == [2, 3, 4, 5]
    assert batch["codes"][1, 0, :3].tolist() == [2, 3, 4]
    assert (batch["codes"][1, :, config.num_frames(1000) :] == -100).all()
    assert set(batch.teacher_times) == {"musical_teacher"}


def test_teachers_that_do_not_fit_the_model_are_refused():
    with pytest.raises(
        ValueError, match="predicts 3 codebooks of 8 codes, the acoustic teacher gives 2 codebooks of 8"
    ):
        make_collator(tiny_config(num_codebooks=3))
    with pytest.raises(ValueError, match="model predicts 2 codebooks of 5 codes"):
        make_collator(tiny_config(codebook_size=5))
    with pytest.raises(ValueError, match="predicts 7 spectrum bins, the musical teacher gives 4"):
        make_collator(tiny_config(cqt_bins=7))
    with pytest.raises(ValueError, match="musical teacher gives 0"):
        make_collator(musical_teacher=None)
    with pytest.raises(ValueError, match="feature extractor works at 24000 Hz, the model at 2000"):
        make_collator(feature_extractor=MERTFeatureExtractor())

    class Slow(BandTeacher):
        frame_rate = 25.0

    with pytest.raises(ValueError, match="Slow works at 2000 Hz and 25.0 frames a second, the model at 2000"):
        make_collator(musical_teacher=Slow())


def test_targets_that_do_not_fit_are_refused():
    class Short(BandTeacher):
        def forward(self, waveforms):
            return super().forward(waveforms)[:, :10]

    class Unknown(LoudnessTeacher):
        def __call__(self, waveforms):
            return super().__call__(waveforms) + 5

    with pytest.raises(ValueError, match="musical teacher gave 10 frames for clips of which the student makes 49"):
        make_collator(musical_teacher=Short())(crops([RATE]))
    with pytest.raises(ValueError, match="codes from 6 to 11 for 2 codebooks of 8 codes"):
        make_collator(acoustic_teacher=Unknown())(crops([RATE]))


def test_long_clips_are_cut_at_random_on_the_frame_grid():
    clip = torch.arange(3.0 * RATE)
    collator = make_collator(mixture=None, crop_length=RATE)
    starts = [int(collator([clip])["input_values"][0, 0]) for _ in range(40)]
    assert all(start % 40 == 0 for start in starts) and len(set(starts)) > 20
    assert min(starts) < RATE / 2 and max(starts) > 1.5 * RATE
    batch = collator([AudioCrop(clip, "a", 400, seed=7), AudioCrop(clip[:1500], "b", 0, seed=8)])
    assert batch["attention_mask"].sum(dim=1).tolist() == [RATE, 1500]
    start = int(batch["input_values"][0, 0])
    assert batch.crops == [("a", 400 + start), ("b", 0)]
    again = make_collator(mixture=None, crop_length=RATE)([AudioCrop(clip, "a", 400, seed=7)])
    assert int(again["input_values"][0, 0]) == start
    with pytest.raises(ValueError, match="crop_length=20 samples is too short: the first frame needs 45"):
        make_collator(crop_length=20)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one clip"):
        make_collator()([])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (AudioCrop(torch.zeros(30), "short", 0, 0), "clip of 30 samples is too short: the first frame needs 45"),
        (AudioCrop(torch.full((RATE,), torch.nan), "nan.wav", 80, 0), "nan.wav at sample 80"),
        (np.full(RATE, np.inf), "NaN or infinite"),
        ({"label": 1}, r"under 'input_values' or 'audio', got the keys \['label'\].*remove_unused_columns=False"),
    ],
)
def test_bad_items_are_refused(item, message):
    with pytest.raises(ValueError, match=message):
        make_collator()([item])


def test_masking_settings_are_used():
    batch = make_collator(masking=SpanMasking(probability=0.0, length=1, min_masks=1))(crops([RATE] * 3))
    assert batch["mask_time_indices"].sum(dim=1).tolist() == [1, 1, 1]
