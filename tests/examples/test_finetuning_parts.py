"""The parts of fine-tuning by themselves: data, clips, learning rates, refusals, resuming, pushing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoConfig, TrainerState

from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, LoraArguments, fine_tune
from mert_hf.finetuning.objective import (
    ClipCollator,
    FrameObjective,
    RandomCrops,
    frame_probabilities,
    mean_outputs,
    window_clips,
)
from mert_hf.finetuning.run import choose_task, parameter_depth, scale_learning_rates
from mert_hf.hub import PushError
from mert_hf.modeling.configuration_mert import MERTConfig
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.modeling.modeling_mert import MERTForSequenceClassification
from mert_hf.recordings.frames import beat_classes
from mert_hf.recordings.recordings import BeatTimes, Recording, TaskData, check_audio

SHORTEST = 400 / 24000


def training(output_dir: Path, **options) -> FineTuningTrainingArguments:
    quick = {"max_steps": 2, "use_cpu": True, "report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False}
    quick |= {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    return FineTuningTrainingArguments(output_dir=str(output_dir), **{**quick, **options})


# Data


def read(data, kind: str = "classification", target: str = "label", **options) -> TaskData:
    """The recordings of a run as it reads them."""
    arguments = FineTuningArguments(data=str(data), target=target, kind=kind, **options)
    loaded = choose_task(arguments).load(arguments.source, required=("train", "valid"))
    return check_audio(loaded, SHORTEST)


def test_a_folder_becomes_clips_at_the_models_rate(songs):
    data = read(songs)
    assert data.labels == ("high", "low")
    assert [len(data.split(split)) for split in ("train", "valid", "test")] == [16, 4, 4]
    assert data.hours("train") * 3600 == pytest.approx(16, abs=2)
    audio = window_clips(data.split("valid"), 0.5, 0.0)[0].read(24000)
    assert audio.shape == (12000,) and audio.dtype == np.float32
    whole = window_clips(data.split("valid"), 30.0, 1.0)
    assert len(whole) == 4 and len(whole[0].read(24000)) == round(whole[0].recording.seconds * 24000)


def test_random_crops_differ_and_lie_inside(songs):
    crops = RandomCrops(read(songs).split("train"), 0.5)
    offsets = [crops[0].offset for _ in range(8)]
    assert len(set(offsets)) == 8
    assert all(0 <= offset <= crops.recordings[0].seconds - 0.5 for offset in offsets)
    assert all(len(crops[0].read(24000)) == 12000 for _ in range(3))


@pytest.mark.parametrize(
    "seconds, shortest, expected",
    [
        (12.0, 1.0, [(0, 5), (5, 5), (10, 2)]),
        (10.5, 1.0, [(0, 5), (5, 5)]),
        (10.5, 0.0, [(0, 5), (5, 5), (10, 0.5)]),
        (10.0, 1.0, [(0, 5), (5, 5)]),
        (0.4, 1.0, [(0, 0.4)]),
    ],
)
def test_windows_cover_a_recording(seconds, shortest, expected):
    recording = Recording("a", Path("a.wav"), "test", 0, seconds=seconds)
    assert [(part.offset, part.seconds) for part in window_clips([recording], 5.0, shortest)] == expected


def test_outputs_of_windows_become_one_answer_a_recording_or_song():
    recordings = [
        Recording("a", Path("a.wav"), "test", 0, seconds=10.0),
        Recording("b-0", Path("b.wav"), "test", 1, ensemble="b", seconds=5.0),
        Recording("b-1", Path("c.wav"), "test", 1, ensemble="b", seconds=5.0),
    ]
    scored, means = mean_outputs(np.array([[1.0], [3.0], [5.0], [9.0]]), window_clips(recordings, 5.0, 1.0))
    assert [recording.id for recording in scored] == ["a", "b-0"] and means.tolist() == [[2.0], [7.0]]


def test_frames_of_windows_lie_on_one_grid():
    config = MERTConfig(num_hidden_layers=1)
    recording = Recording("a", Path("a.wav"), "test", None, seconds=12.3)
    windows = window_clips([recording], 5.0, 0.0)
    outputs = np.full((3, config.num_frames(5 * 24000), 2), -100.0, dtype=np.float32)
    for row, part in zip(outputs, windows, strict=True):
        frames = config.num_frames(round(part.seconds * 24000))
        # the logit is the time, so that the joined curve is a ramp
        row[:frames, 0] = part.offset + np.asarray(config.frame_times(frames))
        row[:frames, 1] = 0
    ((found, probabilities),) = frame_probabilities(outputs, windows, config)
    assert found is recording and len(probabilities) == np.ceil(12.3 * 75)
    times = np.log(probabilities[:, 0] / probabilities[:, 1])
    np.testing.assert_allclose(times, np.arange(len(times)) / 75, atol=1.5 / 75)


@pytest.fixture
def dataset_dir(songs: Path, tmp_path: Path) -> Path:
    """The songs as a data set of the datasets library: Parquet with the files' bytes, a ClassLabel, a list of tags."""
    from datasets import Audio, ClassLabel, Dataset, Features, Sequence, Value

    with (songs / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    label = ClassLabel(names=["low", "high"])
    encoded = {"bytes": Value("binary"), "path": Value("string")}
    features = Features({"audio": encoded, "label": label, "tags": Sequence(Value("string"))})
    for split in ("train", "test"):
        chosen = [row for row in rows if (row["split"] == "test") == (split == "test")]
        columns = {
            "audio": [{"bytes": (songs / row["file_name"]).read_bytes(), "path": row["file_name"]} for row in chosen],
            "label": [label.str2int(row["label"]) for row in chosen],
            "tags": [row["tags"].split("|") for row in chosen],
        }
        dataset = Dataset.from_dict(columns, features=features).cast_column("audio", Audio(sampling_rate=22050))
        dataset.to_parquet(tmp_path / "dataset" / f"{split}.parquet")
    return tmp_path / "dataset"


def test_a_data_set_of_the_datasets_library(dataset_dir):
    data = read(dataset_dir)
    assert set(data.labels) == {"low", "high"}
    counts = {split: len(data.split(split)) for split in ("train", "valid", "test")}
    assert counts["test"] == 4 and counts["train"] + counts["valid"] == 20 and counts["valid"] >= 2
    audio = window_clips(data.split("test"), 0.5, 0.0)[0].read(24000)
    assert audio.shape == (12000,) and np.abs(audio).max() > 0.1
    assert read(dataset_dir, "multilabel", "tags").labels == ("high", "low", "pulsing", "steady")
    with pytest.raises(ValueError, match="has the columns audio, label, tags; audiofolder needs mood"):
        read(dataset_dir, target="mood")


def test_unusable_recordings_are_all_named_before_training(songs, tmp_path, tiny_checkpoint):
    folder = tmp_path / "songs"
    folder.mkdir()
    for path in songs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "03.flac").write_bytes(b"no audio")
    (folder / "07.flac").write_bytes((songs / "07.flac").read_bytes()[:60])
    arguments = FineTuningArguments(model_name_or_path=str(tiny_checkpoint), data=str(folder))
    with pytest.raises(ValueError, match=r"2 of 24 recordings of songs cannot be used.*03\.flac: .*07\.flac: "):
        fine_tune(arguments, training(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"at least 0\.900 s are needed"):
        check_audio(read(songs), 0.9)
    loaded = choose_task(arguments).load(arguments.source)
    assert len(check_audio(loaded, SHORTEST, "10%").recordings) == 22


# Frames


def test_beat_classes_by_hand():
    beats = BeatTimes(np.array([0.26, 0.74, 5.0]), np.array([0.74]))
    assert beat_classes(beats, 10, 10.0, 0.05).tolist() == [0, 1, 1, 1, 0, 0, 2, 2, 2, 0]
    assert beat_classes(BeatTimes(np.array([]), np.array([])), 10, 10.0).tolist() == [0] * 10


def test_beat_labels_follow_the_clip_and_ignore_padding(clicks):
    data = read(clicks, "beats", "beats")
    config = MERTConfig(num_hidden_layers=1)
    recordings = data.split("train")
    long, short = RandomCrops(recordings, 3.0)[0], RandomCrops(recordings, 1.0)[1]
    batch = ClipCollator(MERTFeatureExtractor(), FrameObjective("beats", config).labels)([long, short])
    assert batch["labels"].shape == (2, config.num_frames(72000)) == (2, 224)
    assert (batch["labels"][1, 74:] == -100).all() and (batch["labels"][1, :74] >= 0).all()
    beat = next(beat for beat in long.recording.target.beats if beat > long.offset + 0.1)
    frame = int(np.argmin(np.abs(np.asarray(config.frame_times(224)) + long.offset - beat)))
    assert (batch["labels"][0, frame - 1 : frame + 2] > 0).all() and batch["labels"][0, frame + 8] == 0


# Learning rates


def test_each_layer_learns_slower_than_the_one_above(tiny_checkpoint):
    model = MERTForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = [{"params": list(names), "lr": 1.0, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups)
    scale_learning_rates(optimizer, names, model.config, decay=0.5)
    rates = {names[parameter]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(rates) == len(names) and all(group["weight_decay"] == 0.1 for group in optimizer.param_groups)
    assert rates["classifier.weight"] == rates["projector.bias"] == 1.0
    assert rates["mert.encoder.layers.1.attention.q_proj.weight"] == 0.5
    assert rates["mert.encoder.layers.0.attention.q_proj.weight"] == 0.25
    for name in ("feature_extractor.conv_layers.0.conv.weight", "feature_projection.projection.weight"):
        assert rates[f"mert.{name}"] == 0.125
    assert rates["mert.encoder.layer_norm.weight"] == 0.125
    pre_norm = MERTConfig(num_hidden_layers=2, do_stable_layer_norm=True)
    assert parameter_depth("mert.encoder.layer_norm.weight", pre_norm) == 2
    assert parameter_depth("base_model.model.mert.encoder.layers.1.attention.q_proj.lora_A.weight", pre_norm) == 2


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "a", "max_bad_files": "many"}, "give a number of files such as 3"),
        ({"data": "a", "freeze": "all"}, "freeze='all' must be one of none, feature_encoder, backbone"),
        ({"data": "a", "layer_decay": 0.0}, "layer_decay=0.0 must be above 0"),
        ({"data": "a", "layers": "7"}, "layers='7' must be -1 .the last layer. or weighted"),
        ({"data": "a", "max_seconds": 0.0}, "max_seconds=0.0 \\(--window\\) must be between"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        FineTuningArguments(**options)


def test_runs_that_cannot_work_are_refused(songs, tiny_checkpoint, tmp_path):
    given = {"model_name_or_path": str(tiny_checkpoint), "data": str(songs)}
    with pytest.raises(ValueError, match="Kind 'genre' is not one of classification"):
        fine_tune(FineTuningArguments(**given, kind="genre"), training(tmp_path))
    summed = FineTuningArguments(data=str(songs), layers="weighted")
    with pytest.raises(ValueError, match="--layers weighted\\) cannot be saved with adapters"):
        fine_tune(summed, training(tmp_path), LoraArguments())
    with pytest.raises(ValueError, match="lora_rank=0 must be 1 or more"):
        LoraArguments(lora_rank=0)
    with pytest.raises(ValueError, match="metadata.csv has no column mood"):
        fine_tune(FineTuningArguments(**given, target="mood", kind="key"), training(tmp_path))


# Runs


def test_a_run_is_continued_only_when_asked_to(songs, tiny_checkpoint, tmp_path, caplog):
    arguments = FineTuningArguments(model_name_or_path=str(tiny_checkpoint), data=str(songs))
    fine_tune(arguments, training(tmp_path / "out"))
    with pytest.raises(ValueError, match="holds checkpoint-2 of an earlier run.*--resume_from_checkpoint"):
        fine_tune(arguments, training(tmp_path / "out", max_steps=3))
    resumed = training(tmp_path / "out", max_steps=3, resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    fine_tune(arguments, resumed)
    state = TrainerState.load_from_json(str(tmp_path / "out" / "trainer_state.json"))
    assert state.global_step == 3
    assert [entry["step"] for entry in state.log_history if "eval_loss" in entry][:3] == [1, 2, 3]
    assert "The learning rate stays" not in caplog.text
    last = {"max_steps": 4, "resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-3")}
    fine_tune(arguments, training(tmp_path / "out", learning_rate=0.125, **last))
    assert "The learning rate stays 5e-05, that of the checkpoint; learning_rate=0.125 has no effect" in caplog.text


def test_the_head_follows_from_the_seed_and_the_callers_generator_is_left_alone(songs, tiny_checkpoint, tmp_path):
    from mert_hf.finetuning.run import build_model

    arguments = FineTuningArguments(model_name_or_path=str(tiny_checkpoint), data=str(songs))
    before = torch.get_rng_state()
    config = AutoConfig.from_pretrained(tiny_checkpoint)
    first, same, other = (build_model(arguments, config, False, seed) for seed in (1, 1, 2))
    assert torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_refusing_hub_is_reported_before_training(hub, songs, tiny_checkpoint, tmp_path):
    arguments = FineTuningArguments(model_name_or_path=str(tiny_checkpoint), data=str(songs))
    pushed = training(tmp_path / "out", push_to_hub=True, hub_model_id="bob/tones")
    with pytest.raises(PushError, match="may not write to bob/tones") as caught:
        fine_tune(arguments, pushed)
    assert "\n" not in str(caught.value) and not list((tmp_path / "out").glob("checkpoint-*"))


def test_the_result_is_pushed_with_code_and_card(hub, songs, tiny_checkpoint, tmp_path):
    arguments = FineTuningArguments(model_name_or_path=str(tiny_checkpoint), data=str(songs))
    pushed = {"push_to_hub": True, "hub_model_id": "alice/tones", "hub_private_repo": True}
    fine_tune(arguments, training(tmp_path / "out", **pushed))
    files = hub.files("alice/tones")
    assert hub.repositories["alice/tones"].private
    assert {"model.safetensors", "modeling_mert.py", "preprocessor_config.json", "eval_results.json"} <= set(files)
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "mit" and 'name = "alice/tones"' in card.text
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy"}


def test_losses_are_logged_each_epoch_or_as_wanted(tmp_path):
    assert FineTuningTrainingArguments(str(tmp_path), use_cpu=True).logging_strategy == "epoch"
    assert FineTuningTrainingArguments(str(tmp_path), use_cpu=True, logging_steps=10).logging_strategy == "steps"
    by_steps = {"eval_strategy": "steps", "save_strategy": "steps"}
    assert FineTuningTrainingArguments(str(tmp_path), use_cpu=True, **by_steps).eval_steps == 500
