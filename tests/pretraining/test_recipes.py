"""Recipes fit the bundled checkpoints, say which teachers they need, and start from one another."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path

import pytest
import typer
from tiny_pretraining import write_recordings
from transformers import AutoConfig

from mert_hf.cli.app import app
from mert_hf.corpora.sharding import write_shards
from mert_hf.corpora.shards import AudioItem, ShardSettings
from mert_hf.hub.names import resolve_checkpoint
from mert_hf.modeling.configuration_mert2 import MERT2Config
from mert_hf.pretraining import run
from mert_hf.pretraining.arguments import parse_arguments
from mert_hf.teachers.fitting import parse_feature_sets
from mert_hf.utils.parser import read_settings

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
QUIET = ["--report_to", "none", "--use_cpu", "true", "--disable_tqdm", "true", "--dataloader_num_workers", "0"]
SMALL = [*QUIET, "--max_steps", "1", "--per_device_train_batch_size", "2", "--crop_length", "48000"]


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> str:
    """Three recordings of a few seconds at 24 kHz."""
    folder = tmp_path_factory.mktemp("recipes")
    write_recordings(folder, [3.0, 4.0, 5.0], rate=24000)
    return str(folder)


def recipe(name: str, *options: str):
    return parse_arguments([str(CONFIGS / f"{name}.yaml"), "--bf16", "false", *QUIET, *options])


def test_the_recipe_of_mert2_nano_is_that_of_the_checkpoint():
    fields = recipe("mert2-nano")[0].model_config
    bundled = AutoConfig.from_pretrained(resolve_checkpoint("mert2-nano"))
    sizes = {name: getattr(bundled, name) for name in ("codebook_sizes", "cqt_bins")}
    built, expected = MERT2Config(**{**fields, **sizes}).to_dict(), bundled.to_dict()
    names = [name for name in built if name not in ("architectures", "dtype", "transformers_version", "_name_or_path")]
    assert {name: built[name] for name in names} == {name: expected.get(name) for name in names}


@pytest.mark.parametrize("name", ["mert-nano", "mert2-nano"])
def test_the_commands_of_a_recipe_make_the_teachers_of_the_checkpoint(name):
    model = recipe(name)[0]
    for part, teacher in (("acoustic", model.acoustic_teacher), ("musical", model.musical_teacher)):
        saved = json.loads((Path(resolve_checkpoint(name)) / "teachers" / part / "teacher_config.json").read_text())
        assert teacher["type"] == saved["teacher"]
        if "made_by" in teacher:
            words = shlex.split(teacher["made_by"])
            options = dict(zip(words[2::2], words[3::2], strict=True))
            sets = parse_feature_sets([options["--features"]], with_clusters=saved["teacher"] == "kmeans")
            known = ("name", "context", "num_clusters") if saved["teacher"] == "kmeans" else ("name", "context")
            assert [{key: getattr(one, key) for key in known} for one in sets] == [
                {key: one[key] for key in known} for one in saved["feature_sets"]
            ]
            assert int(options["--hop-length"]) == saved["hop_length"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_commands_of_recipes_exist(path):
    for settings in read_settings(path).values():
        if isinstance(settings, dict) and "made_by" in settings:
            program, command, *options = shlex.split(settings["made_by"])
            parameters = typer.main.get_command(app).commands[command].params
            known = {option for parameter in parameters for option in parameter.opts}
            assert program == "mert-hf" and {word for word in options if word.startswith("--")} <= known


@pytest.mark.parametrize("name", ["mert2-nano", "mert-nano"])
def test_a_bundled_model_continues_with_its_own_teachers(name, music, tmp_path, caplog):
    own = (
        []
        if name == "mert2-nano"
        else ["--acoustic_teacher", "{path: mert-nano}", "--musical_teacher={path: mert-nano}"]
    )
    options = [*SMALL, *own, "--model_name_or_path", name, "--train_data", music, "--output_dir", str(tmp_path)]
    trainer = run.main([str(CONFIGS / "continue.yaml"), *options])
    assert trainer.state.global_step == 1 and "New weights" not in caplog.text
    assert trainer.state.log_history[-1]["train_loss"] < 50


def test_two_views_of_a_bundled_model(music, tmp_path):
    trainer = run.main([str(CONFIGS / "views.yaml"), *SMALL, "--train_data", music, "--output_dir", str(tmp_path)])
    assert trainer.state.global_step == 1 and trainer.model.view_consistency_weight == 0.1


def test_a_recipe_of_the_other_generation_is_named():
    for name, other in (("mert-nano", "mert2-nano"), ("mert2-nano", "mert-nano")):
        model = recipe(name, "--model_name_or_path", other)[0]
        with pytest.raises(ValueError, match=f"{other} is of the model type mert.*the recipe of the other generation"):
            run.student_config(model)


def test_fields_that_do_not_fit_a_checkpoint_are_named():
    model = recipe("mert2-nano", "--model_name_or_path", "mert2-nano")[0]
    bundled = AutoConfig.from_pretrained(resolve_checkpoint("mert2-nano"))
    targets = {"codebook_sizes": bundled.codebook_sizes, "cqt_bins": bundled.cqt_bins}
    run.build_model(run.student_config(model, **targets), model)  # the recipe as it is fits
    model.model_config["subsampling_strides"] = [2, 2]
    model.model_config["intermediate_size"] = 400
    with pytest.raises(ValueError, match=r"subsampling_strides \[1, 2\] -> \[2, 2\].*continue.yaml") as caught:
        run.build_model(run.student_config(model, **targets), model)
    assert "intermediate_size 384 -> 400" in str(caught.value) and "hidden_size" not in str(caught.value)


def test_a_teacher_that_is_not_made_yet_is_named_with_its_command(music, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        run.main([str(CONFIGS / "mert2-nano.yaml"), *SMALL, "--train_data", music, "--output_dir", "out"])
    command = f"mert-hf fit-kmeans --hop-length 960 --features chroma_cqt:64.*--data {music} "
    assert caught.match(
        f"no teacher outputs/kmeans-mert2-nano yet. Make it first: {command}--output outputs/kmeans-mert2"
    )
    with pytest.raises(FileNotFoundError, match="Make it first: mert-hf fit-rvq --data .* --output my/rvq"):
        options = ["--acoustic_teacher", "{type: mel_rvq, path: my/rvq}", "--train_data", music, "--output_dir", "out"]
        run.main([str(CONFIGS / "mert-nano.yaml"), *SMALL, *options])


def test_music2vec_takes_rates_and_width_of_the_student(music, tmp_path):
    options = [*SMALL, "--train_data", music, "--output_dir", str(tmp_path)]
    trainer = run.main([str(CONFIGS / "music2vec-nano.yaml"), *options])
    teacher = trainer.data_collator.musical_teacher
    assert (teacher.num_bins, teacher.hop_length, teacher.sampling_rate) == (128, 960, 24000)
    assert trainer.state.global_step == 1 and trainer.model.config.num_codebooks == 0


def test_another_type_replaces_the_mapping_of_the_base(tmp_path):
    base = {"musical_teacher": "{type: cqt, bins_per_octave: 12}", "model_config": "{hidden_size: 8, num_layers: 2}"}
    (tmp_path / "base.yaml").write_text("".join(f"{name}: {value}\n" for name, value in base.items()))
    (tmp_path / "mine.yaml").write_text(
        "base: base.yaml\nmusical_teacher: {type: log_mel}\nmodel_config: {num_layers: 3}\n"
    )
    expected = {"musical_teacher": {"type": "log_mel"}, "model_config": {"hidden_size": 8, "num_layers": 3}}
    assert read_settings(tmp_path / "mine.yaml") == expected
    (tmp_path / "same.yaml").write_text("base: base.yaml\nmusical_teacher: {type: cqt, log: true}\n")
    assert read_settings(tmp_path / "same.yaml")["musical_teacher"] == {
        "type": "cqt",
        "bins_per_octave": 12,
        "log": True,
    }


@pytest.mark.parametrize("equals", [True, False])
def test_mappings_on_the_command_line_are_merged_with_those_of_the_recipe(equals, tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "train_data: [music]\noutput_dir: out\nmodel_config: {hidden_size: 8, num_hidden_layers: 2}\n"
        "musical_teacher: {type: cqt, log: true}\n"
    )

    def parsed(option: str, text: str):
        words = [f"{option}={text}"] if equals else [option, text]
        return parse_arguments([str(tmp_path / "recipe.yaml"), *words, "--use_cpu", "true"])[0]

    assert parsed("--model_config", "{num_hidden_layers: 3}").model_config == {"hidden_size": 8, "num_hidden_layers": 3}
    assert parsed("--model-config", '{"hidden_size": 4}').model_config == {"hidden_size": 4, "num_hidden_layers": 2}
    assert parsed("--musical_teacher", "{type: log_mel}").musical_teacher == {"type": "log_mel"}
    with pytest.raises(ValueError, match="model_config must be a mapping"):
        parsed("--model_config", "3")


def test_mappings_on_the_command_line_are_yaml(tiny_run):
    parsed = parse_arguments(
        [*tiny_run, "--musical_teacher", "{type: cqt, log: true}", "--ema", '{"start_decay": 9e-1}']
    )
    assert parsed[0].musical_teacher == {"type": "cqt", "log": True} and parsed[0].ema == {"start_decay": 0.9}
    with pytest.raises(ValueError, match="musical_teacher must be a mapping in YAML or JSON, got '{type: cqt'"):
        parse_arguments([*tiny_run, "--musical_teacher", "{type: cqt"])


def test_few_shards_train_without_evaluation(tiny_run, recordings, tmp_path, caplog, monkeypatch):
    """A small share holds out none of eight recordings, or none that is long enough: one warning, no error."""
    monkeypatch.setenv("MERT_HF_CACHE", str(tmp_path / "cache"))
    items = [AudioItem(path.name, path=str(path)) for path in sorted(Path(recordings).glob("*.wav"))]
    write_shards(items, tmp_path / "shards", ShardSettings(2000, 40), show_progress_bar=False)
    options = ["--train_data", str(tmp_path / "shards"), "--eval_share", "0.5%", "--eval_strategy", "steps"]
    trainer = run.build_trainer(*parse_arguments([*tiny_run, *options]))
    assert trainer.eval_dataset is None and len(trainer.train_dataset) > 0
    ours = [record.message for record in caplog.records if record.name.startswith("mert_hf")]
    assert len(ours) == 1 and "nothing to evaluate on" in ours[0]


def test_little_evaluation_data_is_reported(tiny_run, caplog):
    with caplog.at_level(logging.INFO):
        run.build_trainer(*parse_arguments([*tiny_run, "--eval_share", "1%"]))
    (record,) = [record for record in caplog.records if "Evaluation on" in record.message]
    assert record.levelno == logging.WARNING and "of 1 recordings. Its results depend on chance" in record.message


def test_a_codec_that_cannot_be_downloaded_is_not_to_be_fitted(music, tmp_path):
    options = ["--acoustic_teacher", "{type: encodec, path: owner/codec}", "--train_data", music]
    with pytest.raises(FileNotFoundError, match="owner/codec.*hf download"):
        run.main([str(CONFIGS / "mert-nano.yaml"), *SMALL, *options, "--output_dir", str(tmp_path)])
