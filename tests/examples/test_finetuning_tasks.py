"""Fine-tuning on the tasks of `mert-hf evaluate`, by both generations: same readers, splits and metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForAudioClassification, AutoModelForAudioFrameClassification
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.metrics.frames import frame_predictions
from mert_hf.evaluation.tasks import get_task
from mert_hf.evaluation.tasks.protocols import STRICT
from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, LoraArguments, fine_tune
from mert_hf.finetuning.objective import RecordingObjective, window_clips
from mert_hf.finetuning.run import choose_task
from mert_hf.hub.checkpoint import save_checkpoint
from mert_hf.modeling.configuration_mert2 import MERT2Config
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.modeling.modeling_mert2 import MERT2Model
from mert_hf.recordings.recordings import Recording

from ..evaluation import miniatures


def training(output_dir: Path, **options) -> FineTuningTrainingArguments:
    quick = {"max_steps": 2, "use_cpu": True, "report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False}
    quick |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    return FineTuningTrainingArguments(output_dir=str(output_dir), **{**quick, **options})


def arguments_of(data: Path, model: Path, **settings) -> FineTuningArguments:
    return FineTuningArguments(str(data), model_name_or_path=str(model), **settings)


@pytest.fixture(scope="module")
def gtzan(tmp_path_factory) -> Path:
    return miniatures.gtzan(tmp_path_factory.mktemp("gtzan"))


@pytest.fixture(scope="session")
def tiny_checkpoint2(tmp_path_factory) -> Path:
    """An untrained encoder of the second generation: 2 blocks, 16 dimensions."""
    config = MERT2Config(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        subsampling_channels=[8, 8, 16],
        subsampling_depths=[1, 1, 1],
        classifier_proj_size=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MERT2Model(config)
    folder = tmp_path_factory.mktemp("tiny2")
    return save_checkpoint(
        model, MERTFeatureExtractor(do_normalize=False), folder, card="---\nlicense: mit\n---\n# t\n"
    )


def test_a_task_by_the_command_line(gtzan, tiny_checkpoint, tmp_path):
    command = ["finetune", "--task", "gtzan_genre", "--data", str(gtzan), "--model", str(tiny_checkpoint)]
    command += ["--epochs", "1", "--output", str(tmp_path / "out"), "--freeze", "backbone", "--quiet"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "test_accuracy" in result.output
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.id2label[5] == "jazz" and len(config.id2label) == 10
    data = get_task("gtzan_genre").load(gtzan)
    card = (tmp_path / "out" / "README.md").read_text()
    assert data.manifest_hash in card and "24 recordings to train on, 8 for validation, 8 for test" in card


@pytest.mark.parametrize("task, head", [("gtzan_genre", "audio"), ("gtzan_rhythm", "frame")])
def test_the_second_generation(task, head, gtzan, tiny_checkpoint2, tmp_path):
    pytest.importorskip("mir_eval")
    arguments = FineTuningArguments(
        str(gtzan), model_name_or_path=str(tiny_checkpoint2), task=task, max_seconds=3.0, layer_decay=0.9
    )
    results = fine_tune(arguments, training(tmp_path / "out", per_device_train_batch_size=4))
    assert f"test_{get_task(task).metric}" in results
    auto_class = AutoModelForAudioFrameClassification if head == "frame" else AutoModelForAudioClassification
    model = auto_class.from_pretrained(tmp_path / "out")
    assert type(model).__name__.startswith("MERT2For") and len(model.config.id2label) == (3 if head == "frame" else 10)


def test_adapters_of_the_second_generation(gtzan, tiny_checkpoint2, tmp_path):
    pytest.importorskip("peft")
    arguments = FineTuningArguments(
        str(gtzan), model_name_or_path=str(tiny_checkpoint2), task="gtzan_genre", max_seconds=2.0
    )
    fine_tune(arguments, training(tmp_path / "out"), lora=LoraArguments(lora_rank=2))
    modules = json.loads((tmp_path / "out" / "adapters" / "adapter_config.json").read_text())["target_modules"]
    assert set(modules) == {"query_proj", "value_proj"}
    merged = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    assert merged(torch.randn(1, 24000)).logits.shape == (1, 10)
    with pytest.raises(ValueError, match="the model has no linear layer q_proj; it has"):
        fine_tune(arguments, training(tmp_path / "b"), lora=LoraArguments(lora_modules="q_proj"))


@pytest.mark.slow
def test_the_whole_recording_is_scored(gtzan, tiny_checkpoint, tmp_path):
    """The metrics of a run equal those of the saved model on all windows, computed one by one."""
    pytest.importorskip("mir_eval")
    arguments = FineTuningArguments(
        str(gtzan), model_name_or_path=str(tiny_checkpoint), task="gtzan_rhythm", max_seconds=2.5
    )
    results = fine_tune(arguments, training(tmp_path / "out", learning_rate=1e-2, max_steps=6))
    model = AutoModelForAudioFrameClassification.from_pretrained(tmp_path / "out").eval()
    from mert_hf.audio import stream_windows
    from mert_hf.evaluation.metrics.frames import decode

    references, estimates = [], []
    extract = MERTFeatureExtractor.from_pretrained(tmp_path / "out")
    for recording in get_task("gtzan_rhythm").load(gtzan).split("test"):
        times, probabilities = [], []
        for window in stream_windows(recording.path, 24000, 2.5):
            with torch.no_grad():
                batch = extract(window.samples, sampling_rate=24000, return_tensors="pt")
                logits = model(**batch).logits[0].double().softmax(dim=1).numpy()
            times.append(window.start + np.asarray(model.config.frame_times(len(logits))))
            probabilities.append(logits)
        times, probabilities = np.concatenate(times), np.concatenate(probabilities)
        grid = np.arange(int(np.ceil(6.0 * 75))) / 75
        nearest = np.abs(times[None] - grid[:, None]).argmin(axis=1)
        references.append(recording.target)
        estimates.append(decode("beats", probabilities[nearest], 75.0, STRICT.downbeat_tempi))
    expected = scores("beats", frame_predictions("beats", range(len(references)), references, estimates))
    assert results["test_beat_f1_70ms"] == pytest.approx(expected["beat_f1_70ms"], abs=0.02)


def test_answers_of_a_recording_are_means_of_its_windows():
    data = get_task("audiofolder", target="x").tables
    assert data.columns == (("x",),)
    recordings = [Recording(str(index), Path("a"), "test", index % 2, seconds=7.0) for index in range(4)]
    from mert_hf.recordings.recordings import TaskData

    answers = RecordingObjective("classification", TaskData(("a", "b"), tuple(recordings)))
    windows = window_clips(recordings, 3.0, 0.5)
    outputs = np.array([[1, 0], [1, 0], [0, 9.0]] * 4)  # the last window decides the mean, not the majority
    assert len(windows) == 12 and answers.metrics(outputs, windows)["accuracy"] == 0.5


def test_tasks_without_a_head_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be fine-tuned for the kind 'separation' of musdb18"):
        choose_task(FineTuningArguments(data=str(tmp_path), task="musdb18"))
    assert choose_task(FineTuningArguments(data=str(tmp_path), task="gtzan")).window == 30.0
    assert choose_task(FineTuningArguments(data=str(tmp_path))).window == 5.0
