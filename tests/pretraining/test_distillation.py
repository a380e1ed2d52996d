"""Distillation of tiny encoders: a plain student that has learned from its teacher, resuming, licenses, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from kills import kill_at
from transformers import AutoModel, AutoModelForPreTraining
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.encoders import open_encoder
from mert_hf.hub.licenses import check_license, student_license
from mert_hf.hub.push import prepare_push
from mert_hf.modeling.feature_extraction_mert import MERTFeatureExtractor
from mert_hf.pretraining import distillation
from mert_hf.pretraining.settings import DistillationSettings
from mert_hf.teachers import load_teacher

FIELDS = ["--max_steps", "4", "--save_steps", "2", "--per_device_train_batch_size", "4", "--crop_length", "24000"]
FIELDS += ["--min_duration", "0.5", "--use_cpu", "true", "--logging_steps", "1"]


def sounds(count: int, seed: int) -> np.ndarray:
    """Tones in noise (count, 96000) whose pitch and level change every 0.8 s."""
    generator = np.random.default_rng(seed)
    pitch = np.repeat(220 * 2 ** (generator.integers(0, 24, (count, 5)) / 12), 19200, axis=1)
    level = np.repeat(generator.uniform(0.0, 0.2, (count, 5)), 19200, axis=1)
    tones = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch, axis=1) / 24000)
    return (tones + level * generator.standard_normal(tones.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """Eight recordings of 4 s."""
    folder = tmp_path_factory.mktemp("music")
    for index, wave in enumerate(sounds(8, seed=0)):
        soundfile.write(folder / f"{index}.wav", wave, 24000, subtype="FLOAT")
    return folder


def settings(music: Path, output: Path, **more) -> DistillationSettings:
    return DistillationSettings(data=(str(music),), output=str(output), progress=False, components=8, **more)


@pytest.mark.parametrize("generation", ["tiny_checkpoint", "tiny_checkpoint2"])
def test_the_student_is_a_plain_encoder(generation, request, music, tmp_path):
    """From the weights of either generation or fresh ones; live targets and targets made ahead of time."""
    model = str(request.getfixturevalue(generation))
    arguments = ["distill", "mfcc=0.5", f"{model}:1", "--into", f"random:{model}", "--data", str(music)]
    arguments += ["--output", str(tmp_path / "student"), "--labels", str(tmp_path / "labels"), "--quiet", *FIELDS]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    student = AutoModel.from_pretrained(tmp_path / "student")
    assert type(student).__name__.endswith("Model") and student.config.cqt_bins == 0
    assert open_encoder(tmp_path / "student").hidden_states([np.zeros(24000, np.float32)], [1])[0].ndim == 3
    recipe = (tmp_path / "student" / "runs" / "recipe.yaml").read_text()
    assert "weight: 0.5" in recipe and (tmp_path / "labels" / "1" / "labels.json").is_file()
    distillation.distill([f"{model}:1"], model, settings(music, tmp_path / "second"), FIELDS)
    assert (tmp_path / "second" / "model.safetensors").is_file()


def errors_of(folder: Path, masked: bool) -> float:
    """Mean squared error of a student's head on crops that it has not heard; predicting the mean costs about 1."""
    model = AutoModelForPreTraining.from_pretrained(folder / "runs").eval()
    teacher = load_teacher(folder / "runs" / "teachers" / "0")
    waves = torch.from_numpy(sounds(6, seed=9))
    targets = teacher(waves)
    mask = torch.zeros(targets.shape[:2], dtype=torch.bool)
    for first in range(8, 96, 20):  # spans of 0.24 s within what does not change
        mask[:, first : first + 6] = True
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)  # of the noise in masked frames
        if masked:
            return model(waves, mask_time_indices=mask, cqt=targets).cqt_loss.item()
        states = model.mert(waves).last_hidden_state
        return (model.cqt_head(states) - targets).square().mean().item()


def test_the_student_has_learned_from_its_teacher(tiny_checkpoint2, music, tmp_path):
    """Better than chance at clips as they are and at masked frames; there better than without masks in training."""
    longer = [*FIELDS, "--max_steps", "60", "--save_steps", "1000", "--learning_rate", "5e-3", "--warmup_steps", "5"]
    for name, clips in (("masks", "0.5"), ("none", "0.0")):
        fields = [*longer, "--mask_clips", clips]
        distillation.distill(["mfcc"], f"random:{tiny_checkpoint2}", settings(music, tmp_path / name), fields)
    heard, hidden = (errors_of(tmp_path / "masks", masked) for masked in (False, True))
    assert heard < 0.8 and hidden < 1.0
    assert hidden < errors_of(tmp_path / "none", True)


def test_a_run_that_was_stopped_resumes(tiny_checkpoint2, music, tmp_path):
    """From what a kill after the second update leaves, the same call gives the weights of a whole run, to the bit."""
    model = str(tiny_checkpoint2)
    for name in ("straight", "stopped"):
        distillation.distill([model], f"random:{model}", settings(music, tmp_path / name), FIELDS)
    run = tmp_path / "stopped" / "runs"
    for path in (*(tmp_path / "stopped").glob("model*"), *run.glob("model*"), *run.glob("checkpoint-4/*")):
        path.unlink()
    distillation.distill([model], f"random:{model}", settings(music, tmp_path / "stopped"), FIELDS)
    one, other = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in ("straight", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="holds a distillation with another musical_teacher"):
        distillation.distill([model, "mfcc"], f"random:{model}", settings(music, tmp_path / "stopped"), FIELDS)


@pytest.mark.slow
def test_a_killed_run_resumes(tiny_checkpoint2, music, tmp_path):
    """SIGKILL while the second checkpoint is written, or later; the same command ends as a run that was not killed."""
    fields = [*FIELDS, "--max_steps", "24", "--save_steps", "2"]
    words = ["mfcc", "--into", f"random:{tiny_checkpoint2}", "--data", str(music), "--components", "8", "--quiet"]

    def command(name: str) -> list[str]:
        return ["distill", *words, "--output", str(tmp_path / name), *fields]

    process = subprocess.Popen([sys.executable, "-m", "mert_hf.cli", *command("killed")])
    kill_at(2, lambda: len(list(tmp_path.glob("killed/runs/checkpoint-*"))), process)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    for name in ("killed", "whole"):  # in processes too: another number of threads would round otherwise
        subprocess.run([sys.executable, "-m", "mert_hf.cli", *command(name)], check=True)
    one, other = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_licenses_of_teachers_bind_the_student(tiny_checkpoint2, music, tmp_path):
    """A teacher for non-commercial use gives its license to the student, whose card and push say nothing else."""
    teacher = tmp_path / "teacher"
    encoder = AutoModel.from_pretrained(tiny_checkpoint2)
    encoder.save_pretrained(teacher)
    for file in Path(tiny_checkpoint2).glob("preprocessor*"):
        (teacher / file.name).write_bytes(file.read_bytes())
    (teacher / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Teacher\n")
    into = "random:mert2-nano"
    with pytest.raises(ValueError, match="cannot have the license apache-2.0"):
        distillation.distill([str(teacher)], into, settings(music, tmp_path / "out", license="apache-2.0"), FIELDS)
    assert not (tmp_path / "out" / "runs").exists()
    into = f"random:{tiny_checkpoint2}"
    output = distillation.distill([str(teacher), "mfcc"], into, settings(music, tmp_path / "out"), FIELDS)
    card = (output / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card and "mfcc (apache-2.0)" in card and "teacher (cc-by-nc-4.0)" in card
    pushed = prepare_push(output, "owner/student", tmp_path / "pushed")
    assert "license: cc-by-nc-4.0" in (pushed / "README.md").read_text() and not (pushed / "runs").exists()
    with pytest.raises(ValueError, match="cannot have the license apache-2.0"):
        prepare_push(output, "owner/student", tmp_path / "again", {"license": "apache-2.0"})
    kept = json.loads((output / "pretraining.json").read_text())["teacher_licenses"]
    assert sorted(kept.values()) == ["apache-2.0", "cc-by-nc-4.0"]


def test_licenses():
    assert student_license({"a": "isc", "b": "apache-2.0"}) == ("apache-2.0", "")
    assert student_license({"a": "mit", "b": ""})[0] is None
    assert student_license({"a": "cc-by-nc-4.0", "b": "cc-by-nc-4.0"})[0] == "cc-by-nc-4.0"
    assert student_license({"a": "cc-by-nc-4.0", "b": "gpl-3.0"})[0] is None
    check_license("cc-by-nc-4.0", {"a": "cc-by-nc-4.0", "b": "mit"})
    check_license("mit", {"a": ""})
    for wanted, source in (("mit", "cc-by-nc-4.0"), ("cc-by-sa-4.0", "cc-by-nc-sa-4.0"), ("apache-2.0", "gpl-3.0")):
        with pytest.raises(ValueError, match="cannot have the license"):
            check_license(wanted, {"a": source})


@pytest.mark.parametrize(
    ("teachers", "message"),
    [([], "at least one teacher"), (["mfcc=two"], "NAME.:LAYER..=WEIGHT"), (["mfcc=0"], "NAME")],
)
def test_refused(teachers, message, tiny_checkpoint2, music, tmp_path):
    with pytest.raises(ValueError, match=message):
        distillation.distill(teachers, str(tiny_checkpoint2), settings(music, tmp_path / "out"), FIELDS)


@pytest.mark.parametrize("normalizes", [True, False])
def test_amplitudes_are_normalized_as_the_checkpoint_does(normalizes, tiny_checkpoint2, tmp_path):
    shutil.copytree(tiny_checkpoint2, model := tmp_path / "model")
    (model / "preprocessor_config.json").unlink()
    MERTFeatureExtractor(do_normalize=normalizes).save_pretrained(model)
    for into in (str(model), f"random:{model}"):
        assert distillation.student_recipe(into)["do_normalize"] is normalizes
