"""A run from its arguments: YAML files, the example, resuming from the last complete checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from tiny_pretraining import RATE, TINY_TEACHERS, BandTeacher, losses_of, make_trainer, write_recordings
from tiny_sizes import STUDENT_SIZES
from transformers import TrainingArguments
from typer.testing import CliRunner

import mert_hf.utils.parser as settings_module
from mert_hf.audio import find_audio_files
from mert_hf.cli.app import app
from mert_hf.corpora.labels import label_files
from mert_hf.finetuning.run import FineTuningTrainingArguments
from mert_hf.modeling.configuration_mert import MERTConfig
from mert_hf.modeling.modeling_mert import MERTForPreTraining
from mert_hf.pretraining import run
from mert_hf.pretraining.arguments import parse_arguments
from mert_hf.pretraining.resuming import checkpoint_is_complete, last_complete_checkpoint
from mert_hf.teachers import TEACHERS, AcousticTeacher, CQTTeacher, FeatureSet, KMeansTeacher, MusicalTeacher

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
CHECKPOINT = CONFIGS.parents[1] / "mert_hf" / "hub" / "checkpoints" / "mert-nano"


def test_a_run_trains_saves_and_goes_on(tiny_run, tmp_path):
    straight = run.main([*tiny_run, "--output_dir", str(tmp_path / "straight")])
    assert len(losses_of(straight)) == 6
    run.main([*tiny_run, "--max_steps", "3"])
    resumed = run.main(tiny_run)
    assert losses_of(resumed)[3:] != losses_of(straight)[3:], "another schedule went before"
    shutil.rmtree(tmp_path / "out")
    shutil.copytree(tmp_path / "straight" / "checkpoint-3", tmp_path / "out" / "checkpoint-3")
    assert losses_of(run.main(tiny_run)) == losses_of(straight)


def test_a_run_leaves_a_model_that_loads(tiny_run, tmp_path):
    trainer = run.main(tiny_run)
    model = MERTForPreTraining.from_pretrained(tmp_path / "out")
    assert model.config.num_codebooks == 2 and model.config.codebook_size == 8 and model.config.cqt_bins == 4
    for name, weight in model.state_dict().items():
        assert weight.equal(trainer.model.state_dict()[name]), name
    settings = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert settings["model"]["acoustic_teacher"] == {"type": "loudness"} and settings["data"]["crop_length"] == RATE
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["do_normalize"] is False


def test_a_run_writes_the_projects_card(tiny_run, tmp_path):
    """The card that the Trainer pushes says what the student learned from."""
    trainer = run.main(tiny_run)
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- mert_hf" in card and "loudness" in card.lower()


def test_a_run_goes_on_from_another_checkpoint(tiny_run, tmp_path):
    first = run.main(tiny_run)
    second = run.main(
        [*tiny_run, "--model_name_or_path", str(tmp_path / "out"), "--output_dir", str(tmp_path / "second")]
    )
    assert losses_of(second)[0] < losses_of(first)[0]
    assert second.state.global_step == 6


class TwoBandTeacher(BandTeacher):
    """Half of the bands."""

    kind = "two_bands"
    num_bins = 2

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return super().forward(waveforms)[..., :2]


def test_a_run_goes_on_with_teachers_of_other_sizes(tiny_run, tmp_path, caplog, monkeypatch):
    """The encoder stays, the heads of the new teachers start anew, and the log says so."""
    monkeypatch.setitem(TINY_TEACHERS, TwoBandTeacher.kind, TwoBandTeacher)
    first = run.main(tiny_run)
    again = [*tiny_run, "--model_name_or_path", str(tmp_path / "out"), "--output_dir", str(tmp_path / "second")]
    arguments = parse_arguments([*again, "--musical_teacher", '{"type": "two_bands"}'])
    with caplog.at_level("WARNING"):
        second = run.build_trainer(*arguments)
    assert second.model.config.cqt_bins == 2 and "cqt_head.weight" in caplog.text
    for name, values in first.model.mert.state_dict().items():
        assert torch.equal(second.model.mert.state_dict()[name], values), name


def test_another_encoder_is_refused_for_a_checkpoint(tiny_run, tmp_path):
    run.main(tiny_run)
    again = [*tiny_run, "--model_name_or_path", str(tmp_path / "out"), "--output_dir", str(tmp_path / "second")]
    with pytest.raises(ValueError, match="have other shapes in this configuration"):
        run.main([*again, "--model_config", json.dumps({"intermediate_size": 40})])


def test_validation_recordings_are_evaluated(tiny_run, recordings):
    trainer = run.main([*tiny_run, "--eval_data", str(recordings), "--eval_strategy", "steps", "--eval_steps", "3"])
    assert [entry["step"] for entry in trainer.state.log_history if "eval_cqt_loss" in entry] == [3, 6]


def test_the_command_line_is_a_thin_front(tiny_run, tmp_path):
    result = CliRunner().invoke(app, ["pretrain", *tiny_run, "--max_steps", "2"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert "--acoustic_teacher" in CliRunner().invoke(app, ["pretrain", "--help"]).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--acoustic_teacher", '{"type": "oracle"}'],
            "needs a 'type', one of loudness; got 'oracle'",
        ),
        (
            ["--acoustic_teacher", "loudness"],
            "acoustic_teacher must be a mapping or a list of mappings in YAML or JSON",
        ),
        (["--train_data"], "Argument .*train_data.*: expected at least one argument."),
        (["--no_such_argument", "1"], "There is no setting --no_such_argument. --help"),
        (["--mask_probabilty", "1"], "no setting --mask_probabilty. Did you mean --mask_probability?"),
        (["--model_config", '{"sample_rate": 4000}'], "LoudnessTeacher works at 2000 Hz"),
    ],
)
def test_wrong_arguments_are_refused(tiny_run, arguments, message):
    with pytest.raises(ValueError, match=message):
        run.main([*tiny_run, *arguments])


def test_settings_files_are_read_safely(tmp_path):
    evil = tmp_path / "evil.yaml"
    evil.write_text("output_dir: !!python/object/apply:os.system ['touch " + str(tmp_path / "touched") + "']")
    with pytest.raises(ValueError, match="evil.yaml is not a YAML file: could not determine a constructor"):
        parse_arguments([str(evil)])
    assert not (tmp_path / "touched").exists()
    with pytest.raises(ValueError, match="no settings file missing.yaml"):
        parse_arguments(["missing.yaml"])
    for content in (b"seed: [1\n", b"fLaC\xff\xf8"):
        (tmp_path / "broken.yaml").write_bytes(content)
        with pytest.raises(ValueError, match="broken.yaml is not a YAML file"):
            parse_arguments([str(tmp_path / "broken.yaml")])
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="must hold `name: value` lines, got list"):
        parse_arguments([str(tmp_path / "list.yaml")])


def test_options_go_before_the_file(tiny_run):
    model, data, training = parse_arguments(
        [*tiny_run, "--learning_rate", "2e-3", "--mixture_count", "2", "4", "--model_config", '{"hidden_size": 8}']
    )
    assert training.learning_rate == 2e-3 and data.mixture_count == [2, 4]
    assert model.model_config == {**STUDENT_SIZES, "hidden_size": 8} and data.crop_length == RATE


RECIPES = {  # METHOD, section 4
    "mert-95m": {
        "training": {
            "learning_rate": 5e-4,
            "max_grad_norm": 10.0,
            "per_device_train_batch_size": 16,
            "gradient_accumulation_steps": 1,
        },
        "data": {"crop_length": 120000, "mixture_length": [12000, 24000]},
        "student": {
            "num_hidden_layers": 12,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "do_stable_layer_norm": False,
            "hidden_dropout": 0.1,
            "attention_dropout": 0.1,
            "layerdrop": 0.05,
            "codebook_dim": 64,
            "feature_grad_mult": 0.1,
            "attention_relax": -1.0,
        },
    },
    "mert-330m": {
        "training": {
            "learning_rate": 1.5e-3,
            "max_grad_norm": 1.0,
            "per_device_train_batch_size": 7,
            "gradient_accumulation_steps": 8,
        },
        "data": {"crop_length": 122880, "mixture_length": [12000, 36000]},
        "student": {
            "num_hidden_layers": 24,
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "do_stable_layer_norm": True,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "layerdrop": 0.0,
            "codebook_dim": 128,
            "feature_grad_mult": 1.0,
            "attention_relax": 32.0,
        },
    },
}
COMMON = {
    "adam_beta1": 0.9,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-6,
    "weight_decay": 0.01,
    "max_steps": 400000,
    "warmup_steps": 32000,
    "lr_scheduler_type": "polynomial",
    "lr_scheduler_kwargs": {"lr_end": 0.0, "power": 1.0},
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_recipes_hold_the_published_numbers(name):
    model, data, training = parse_arguments([str(CONFIGS / f"{name}.yaml"), "--bf16", "false", "--report_to", "none"])
    recipe = RECIPES[name]
    for field, value in {**COMMON, **recipe["training"]}.items():
        assert getattr(training, field) == value, field
    for field, value in recipe["data"].items():
        assert getattr(data, field) == value, field
    student = MERTConfig(**model.model_config)
    for field, value in recipe["student"].items():
        assert getattr(student, field) == value, field
    assert (
        student.cqt_loss_weight == 1.0 and student.feature_penalty_weight == 10.0 and student.logit_temperature == 0.1
    )
    assert (data.mask_probability, data.mask_length, data.mask_min_masks) == (0.8, 5, 2)
    assert (data.mixture_probability, data.mixture_count, data.mixture_volume) == (0.5, [1, 3], 1.0)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("mert-*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_parses(path):
    model, data, training = parse_arguments([str(path), "--bf16", "false", "--report_to", "none"])
    student = MERTConfig(**model.model_config)
    assert student.num_frames(data.crop_length) > 0 and training.max_steps > 0
    assert issubclass(TEACHERS[model.acoustic_teacher["type"]], AcousticTeacher)
    assert issubclass(TEACHERS[model.musical_teacher["type"]], MusicalTeacher)


@pytest.fixture
def machine(monkeypatch):
    """Whose GPU computes in bfloat16, or not, or that has none."""

    def pretend(gpu: str | None, bf16: bool) -> None:
        monkeypatch.setattr(settings_module, "is_torch_bf16_gpu_available", lambda: bf16)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: gpu)

    def refuse(self):
        raise ValueError("Your setup doesn't support bf16/gpu.")

    monkeypatch.setattr(TrainingArguments, "__post_init__", refuse)
    return pretend


BF16 = ["--bf16", "true", "--report_to", "none"]


@pytest.mark.parametrize("arguments", [[str(CONFIGS / "mert-small.yaml")], BF16, ["--bf16_full_eval", "true"]])
def test_bf16_without_a_gpu_is_told_with_its_remedy(machine, arguments):
    machine(None, False)
    with pytest.raises(ValueError, match="bfloat16; torch finds no GPU. Give --bf16 false .* or --use_cpu true"):
        parse_arguments(arguments)
    with pytest.raises(ValueError, match="torch finds no GPU. Give --bf16 false"):
        FineTuningTrainingArguments(output_dir="out", bf16=True)


def test_bf16_on_a_gpu_without_it_is_told_with_its_remedy(machine):
    machine("Tesla T4", False)
    with pytest.raises(ValueError, match="torch finds Tesla T4. Give --bf16 false --fp16 true, or"):
        parse_arguments(BF16)


@pytest.mark.parametrize("arguments", [["--bf16", "false"], [*BF16, "--use_cpu", "true"]])
def test_other_refusals_stay_as_they_are(machine, arguments):
    machine(None, False)
    with pytest.raises(ValueError, match="^Your setup"):
        parse_arguments(arguments)


@pytest.mark.parametrize("remedy", ["--bf16 true --use_cpu true", "--bf16 false --use_cpu false"])
def test_the_remedies_for_bf16_train(tiny_run, remedy):
    assert run.main([*tiny_run, *remedy.split(), "--max_steps", "1"]).state.global_step == 1


@pytest.fixture(scope="module")
def nano_run(tmp_path_factory) -> list[str]:
    """Arguments of mert-nano on a few seconds of audio, with its own kinds of teachers, for three steps."""
    folder = tmp_path_factory.mktemp("nano")
    paths = write_recordings(folder / "music", [4.0, 5.0, 6.0], rate=24000)
    settings = parse_arguments([str(CONFIGS / "mert-nano.yaml"), "--report_to", "none"])[0].model_config
    hop = MERTConfig(**settings).hop_length
    clips = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths]
    sets = [FeatureSet("log_cqt", num_clusters=8)]
    KMeansTeacher.fit(clips, sets, hop_length=hop, show_progress_bar=False).save_pretrained(folder / "kmeans")
    CQTTeacher(hop_length=hop, num_bins=84, bins_per_octave=12, log=True).standardized(clips).save_pretrained(
        folder / "cqt"
    )
    teachers = {"acoustic": {"type": "kmeans", "path": str(folder / "kmeans")}}
    teachers["musical"] = {"type": "cqt", "path": str(folder / "cqt")}
    options = [f"--{kind}_teacher={json.dumps(teacher)}" for kind, teacher in teachers.items()]
    steps = ["--max_steps", "3", "--per_device_train_batch_size", "2", "--logging_steps", "1", "--report_to", "none"]
    data = ["--train_data", str(folder / "music"), "--dataloader_num_workers", "0", "--use_cpu", "True"]
    return [str(CONFIGS / "mert-nano.yaml"), *options, *steps, *data]


def test_the_nano_recipe_builds_the_bundled_student():
    bundled = MERTConfig.from_pretrained(CHECKPOINT)
    sizes = {name: getattr(bundled, name) for name in ("num_codebooks", "codebook_size", "cqt_bins")}
    fields = parse_arguments([str(CONFIGS / "mert-nano.yaml"), "--report_to", "none"])[0].model_config
    built, expected = MERTConfig(**fields, **sizes).to_dict(), bundled.to_dict()
    # The bundled model's musical teacher is standardized, the recipe's gives about twice the variance.
    assert built.pop("cqt_loss_weight") == expected.pop("cqt_loss_weight") / 2
    names = [name for name in built if name not in ("architectures", "dtype", "transformers_version")]
    assert {name: built.get(name) for name in names} == {name: expected.get(name) for name in names}


def test_mert_nano_runs_with_its_teachers(nano_run, tmp_path):
    trainer = run.main([*nano_run, "--output_dir", str(tmp_path), "--disable_tqdm", "True"])
    assert len(losses_of(trainer)) == 3
    assert trainer.model.config.codebook_size == 8 and trainer.model.config.cqt_bins == 84
    assert sum(parameter.numel() for parameter in trainer.model.parameters()) < 4e6, "8 MB in fp16"


def test_labels_made_ahead_take_the_teachers_place(nano_run, tmp_path):
    options = parse_arguments(nano_run)
    kmeans, music = options[0].acoustic_teacher["path"], options[1].train_data
    teacher = KMeansTeacher.from_pretrained(kmeans)
    label_files(find_audio_files(music), teacher, tmp_path / "labels", show_progress_bar=False)
    extra = ["--label_cache", str(tmp_path / "labels"), "--output_dir", str(tmp_path / "out"), "--disable_tqdm", "True"]
    trainer = run.main([*nano_run, *extra])
    entry = trainer.state.log_history[0]
    assert "codebook_0_loss" in entry and "acoustic_teacher_x_real_time" not in entry
    crop = trainer.train_dataset[0]
    hop, frames = trainer.model.config.hop_length, trainer.model.config.num_frames(len(crop.waveform))
    whole = KMeansTeacher.from_pretrained(kmeans)(
        torch.from_numpy(soundfile.read(crop.source, dtype="float32")[0][None])
    )
    cached = trainer.data_collator([crop])["codes"][0]
    assert torch.equal(cached, whole[0, :, crop.offset // hop : crop.offset // hop + frames])
    other = KMeansTeacher.from_pretrained(kmeans)
    other.centres_0 += 0.1
    other.save_pretrained(tmp_path / "other")
    settings = json.dumps({"type": "kmeans", "path": str(tmp_path / "other")})
    with pytest.raises(ValueError, match="made by another teacher"):
        run.main([*nano_run, *extra, "--acoustic_teacher", settings])


def test_labels_of_recordings_that_moved(nano_run, tmp_path):
    """As where labels are made on one machine and used on another, which finds the recordings elsewhere."""
    options = parse_arguments(nano_run)
    kmeans, music = options[0].acoustic_teacher["path"], Path(options[1].train_data[0])
    shutil.copytree(music, tmp_path / "there")
    teacher = KMeansTeacher.from_pretrained(kmeans)
    label_files(find_audio_files(tmp_path / "there"), teacher, tmp_path / "labels", show_progress_bar=False)
    shutil.move(tmp_path / "there", tmp_path / "here")
    extra = ["--train_data", str(tmp_path / "here"), "--label_cache", str(tmp_path / "labels"), "--max_steps", "1"]
    arguments = [*nano_run, *extra, "--output_dir", str(tmp_path / "out"), "--disable_tqdm", "True"]
    with pytest.raises(ValueError, match=f"2 of 2 recordings .*--label_root .*which was {tmp_path / 'there'}"):
        run.main(arguments)
    trainer = run.main([*arguments, "--label_root", str(tmp_path / "here")])
    assert trainer.state.global_step == 1


@pytest.mark.slow
def test_trackio_keeps_the_curves_on_this_machine(nano_run, tmp_path):
    pytest.importorskip("trackio", reason="the optional tracker is not installed: mert_hf[trackio]")
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "OMP_NUM_THREADS": "1"}

    def work(*command: str) -> str:
        done = subprocess.run([sys.executable, "-m", *command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tracked = ["--report_to", "trackio", "--project", "mert", "--run_name", "first"]
    work("mert_hf.cli", "pretrain", *nano_run, "--output_dir", str(tmp_path / "out"), *tracked)
    query = ["--project", "mert", "--run", "first", "--metric", "train/loss", "--json"]
    kept = json.loads(work("trackio.cli", "get", "metric", *query))
    logged = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert [entry["value"] for entry in kept["values"]] == [entry["loss"] for entry in logged if "loss" in entry]


@pytest.mark.slow
def test_the_example_runs_under_accelerate_launch(nano_run, tmp_path):
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    script = [str(CONFIGS.parent / "run_pretraining.py"), *nano_run, "--output_dir", str(tmp_path)]
    result = subprocess.run([*launch, *script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["global_step"] == 3 and (tmp_path / "model.safetensors").is_file()
    again = subprocess.run([*launch, *script, "--max_steps", "5"], capture_output=True, text=True)
    assert again.returncode == 0 and "Resuming from" in again.stderr


def test_checkpoints_cut_off_while_saving_are_passed_over(recordings, tmp_path, caplog):
    make_trainer(recordings, tmp_path, max_steps=6, save_strategy="steps", save_steps=2).train()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")
    state = tmp_path / "checkpoint-6" / "trainer_state.json"
    state.write_text(state.read_text()[:100])
    (tmp_path / "checkpoint-4" / "rng_state.pth").unlink()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert "checkpoint-6 is incomplete and is skipped" in caplog.text
    assert checkpoint_is_complete(tmp_path / "checkpoint-2")
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert last_complete_checkpoint(tmp_path) is None
    assert last_complete_checkpoint(tmp_path / "nothing") is None


def test_a_list_of_acoustic_teachers_with_weights(nano_run, tmp_path):
    """Their codebooks follow one another, and each loss counts by its teacher's weight."""
    model, *_ = parse_arguments(nano_run)
    projection = {"type": "random_projection", "hop_length": 960, "codebook_size": 32, "num_bins": 40, "weight": 0.25}
    student = {**model.model_config, "unmasked_loss_weight": 0.0}
    options = ["--acoustic_teacher", json.dumps([model.acoustic_teacher, projection]), "--disable_tqdm", "True"]
    trainer = run.main([*nano_run, *options, "--model_config", json.dumps(student), "--output_dir", str(tmp_path)])
    config = trainer.model.config
    assert config.codebook_sizes == [8, 32] and trainer.model.codebook_loss_weights == (1.0, 0.25)
    settings = json.loads((tmp_path / "pretraining.json").read_text())["model"]["acoustic_teacher"]
    assert [teacher["type"] for teacher in settings] == ["kmeans", "random_projection"]
    outputs = trainer.model.eval()(**trainer.data_collator([trainer.train_dataset[0]]))
    codes = outputs.codebook_losses[0] + 0.25 * outputs.codebook_losses[1]
    others = config.cqt_loss_weight * outputs.cqt_loss + config.feature_penalty_weight * outputs.feature_penalty
    assert outputs.loss.item() == pytest.approx((codes + others).item(), rel=1e-5)


AUTHORS_CHOICES = ("mert-95m", "mert-330m", "mert-95m-kmeans")


@pytest.mark.parametrize("name", AUTHORS_CHOICES)
def test_recipes_named_after_the_authors_make_their_choices(name):
    """METHOD.md, section 2: fairseq's masks, embeddings and sampling."""
    model, data, training = parse_arguments([str(CONFIGS / f"{name}.yaml"), "--bf16", "false", "--report_to", "none"])
    assert data.require_same_masks and data.weighting == "file"
    assert model.model_config["codebook_init"] == "uniform" and model.model_config["num_special_codes"] == 4
    assert (data.eval_share, training.eval_strategy) == ("0.5%", "steps")


@pytest.mark.parametrize("name", ["mert-95m", "mert-330m"])
def test_tuned_recipes_differ_in_our_choices_only(name):
    arguments = ["--bf16", "false", "--report_to", "none"]
    base, tuned = (parse_arguments([str(CONFIGS / f"{name}{suffix}.yaml"), *arguments]) for suffix in ("", "-tuned"))
    assert not tuned[1].require_same_masks and tuned[1].weighting == "duration"
    changed = {"codebook_init": "normal", "num_special_codes": 0}
    assert tuned[0].model_config == {**base[0].model_config, **changed}
    assert tuned[2].learning_rate == base[2].learning_rate and tuned[1].mixture_length == base[1].mixture_length


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("mert-*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_evaluates(path):
    _, data, training = parse_arguments([str(path), "--bf16", "false", "--report_to", "none"])
    assert data.eval_share.endswith("%") and training.eval_strategy == "steps" and training.eval_steps > 0
