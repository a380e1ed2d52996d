"""`mert-hf doctor`: every fault is reported with its remedy, and nothing of a checkpoint is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny_sizes import SIZES
from typer.testing import CliRunner

import mert_hf
from mert_hf.cli.app import app
from mert_hf.doctor import data as data_checks
from mert_hf.doctor import installation
from mert_hf.doctor.data import check_data
from mert_hf.doctor.findings import Finding, has_problem
from mert_hf.doctor.installation import check_fragile_packages, check_packages
from mert_hf.doctor.model import check_model


def texts_of(findings: list[Finding], level: str) -> str:
    return "\n".join(str(finding) for finding in findings if finding.level == level)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sound checkpoint."""
    path = tmp_path / "model"
    mert_hf.MERTModel(mert_hf.MERTConfig(**SIZES)).save_pretrained(path)
    mert_hf.MERTFeatureExtractor().save_pretrained(path)
    return path


def change(path: Path, **changes) -> None:
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))


def rewrite(folder: Path, edit) -> None:
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors")


def test_a_sound_checkpoint_has_no_complaint(folder):
    findings, rate = check_model(folder)
    assert rate == 24000
    assert {finding.level for finding in findings} == {"ok"}
    assert "weights, all of config.json's names and shapes" in texts_of(findings, "ok")
    assert "24000 Hz, do_normalize true" in texts_of(findings, "ok")


FAULTS = [
    (lambda s: s.pop("encoder.layer_norm.bias"), "problem", "1 weights are missing: encoder.layer_norm.bias"),
    (lambda s: s.update(surplus=torch.zeros(1)), "problem", "1 weights are unknown: surplus"),
    (lambda s: s.update(masked_spec_embed=torch.zeros(3)), "problem", "of another shape: masked_spec_embed (3,), by"),
    (
        lambda s: s["masked_spec_embed"].fill_(float("nan")),
        "problem",
        "1 weights hold NaN or infinity: masked_spec_embed",
    ),
    (
        lambda s: s.update({f"{NEW}.original{i}": s.pop(f"{CONV}.weight_{x}") for i, x in enumerate("gv")}),
        "warning",
        "torch's new names (parametrizations.weight.original0), which the authors' code leaves random",
    ),
    (lambda s: s.pop(f"{CONV}.weight_g"), "problem", "1 weights are missing: encoder.pos_conv_embed.conv.weight_g"),
]
CONV = "encoder.pos_conv_embed.conv"
NEW = f"{CONV}.parametrizations.weight"


@pytest.mark.parametrize(("edit", "level", "message"), FAULTS)
def test_wrong_weights_are_named(edit, level, message, folder):
    rewrite(folder, edit)
    findings, _ = check_model(folder)
    assert message in texts_of(findings, level)
    assert all(finding.remedy for finding in findings if finding.level != "ok")


def test_pickled_weights_and_old_code_have_a_command(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    change(folder / "config.json", auto_map={"AutoModel": "modeling_MERT.MERTModel"})
    findings, _ = check_model(folder)
    assert not has_problem(findings)
    warnings = texts_of(findings, "warning")
    assert "pytorch_model.bin is a pickle" in warnings and "an auto_map of other code" in warnings
    assert f"mert-hf convert hub {folder} OUT" in warnings


def test_hostile_pickle_is_refused_and_not_run(folder, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'touched'}",)

    torch.save({"weight": Hostile()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    findings, _ = check_model(folder)
    assert "refers to posix.system (os.system)" in texts_of(findings, "problem")
    findings, _ = check_model(folder / "pytorch_model.bin")
    assert "delete the file" in texts_of(findings, "problem")
    assert not (tmp_path / "touched").exists()


EXTRACTORS = [
    ({"sampling_rate": 16000}, "problem", "works at 16000 Hz, the model at 24000 Hz"),
    ({"padding_value": 1.0}, "warning", "pads with 1.0"),
]


@pytest.mark.parametrize(("changes", "level", "message"), EXTRACTORS)
def test_feature_extractor_against_the_model(changes, level, message, folder):
    change(folder / "preprocessor_config.json", **changes)
    findings, _ = check_model(folder)
    assert message in texts_of(findings, level)


def test_normalization_against_the_checkpoint(folder):
    (folder / "fairseq_config.json").write_text(json.dumps({"cfg": {"task": {"normalize": False}}}))
    findings, _ = check_model(folder)
    assert "do_normalize is True, but the model was trained with False" in texts_of(findings, "problem")
    change(folder / "preprocessor_config.json", do_normalize=False)
    assert not has_problem(check_model(folder)[0])
    (folder / "fairseq_config.json").unlink()
    config = mert_hf.MERTConfig(**SIZES, feat_extract_norm="layer")
    mert_hf.MERTModel(config).save_pretrained(folder)
    assert "trained on normalized audio" in texts_of(check_model(folder)[0], "warning")


def test_missing_feature_extractor_has_a_command_that_works(folder, tmp_path):
    (folder / "preprocessor_config.json").unlink()
    finding = next(f for f in check_model(folder)[0] if "preprocessor_config.json is missing" in f.what)
    code = finding.remedy.removeprefix('python -c "').removesuffix('"')
    exec(code, {})
    assert not has_problem(check_model(folder)[0])


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


BROKEN = [
    (lambda f: cut(f / "model.safetensors"), "model.safetensors is truncated or damaged"),
    (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    (lambda f: (f / "config.json").write_text("[]"), "config.json must hold a JSON object"),
    (
        lambda f: change(f / "config.json", num_attention_heads=3),
        "must be a positive multiple of num_attention_heads=3",
    ),
    (lambda f: change(f / "config.json", model_type="bert"), "has model_type 'bert'"),
    (lambda f: (f / "preprocessor_config.json").write_text("{"), "preprocessor_config.json is not valid JSON"),
]


@pytest.mark.parametrize(("spoil", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_broken_folders_are_findings(spoil, message, folder):
    spoil(folder)
    findings, _ = check_model(folder)
    assert message in texts_of(findings, "problem")


def test_names_that_lead_nowhere():
    assert "neither a folder nor a downloaded Hub model" in texts_of(check_model("nobody/nothing")[0], "problem")
    assert "neither a folder nor the id" in texts_of(check_model("no/such/thing/here")[0], "problem")


def test_checkpoint_of_the_package_goes_by_its_name():
    findings, rate = check_model("mert-nano")
    assert rate == 24000 and "mert-nano: MERTForPreTraining" in texts_of(findings, "ok")


def test_music2vec_needs_nothing(folder):
    change(folder / "config.json", model_type="data2vec-audio")
    findings, rate = check_model(folder)
    assert rate == 16000 and "is used as it is" in texts_of(findings, "ok")


def test_other_files_are_named(tmp_path):
    torch.save({"model": {}, "cfg": {"model": {"_name": "mert"}}}, tmp_path / "fairseq.pt")
    findings, _ = check_model(tmp_path / "fairseq.pt")
    assert f"mert-hf convert fairseq {tmp_path / 'fairseq.pt'} OUT" in texts_of(findings, "problem")
    (tmp_path / "text.pt").write_text("text")
    assert "not a file of torch.save" in texts_of(check_model(tmp_path / "text.pt")[0], "problem")


@pytest.fixture
def recordings(tmp_path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    tone = 0.5 * np.sin(np.arange(44100) / 20)
    for name, rate in (("a.wav", 44100), ("b.wav", 24000)):
        soundfile.write(path / name, tone, rate)
    return path


def metadata_csv(folder: Path, text: str) -> None:
    (folder / "metadata.csv").write_text(text)


def test_sound_recordings(recordings):
    metadata_csv(recordings, "file_name,genre,split\na.wav,rock,train\nb.wav,jazz,test\n")
    findings = check_data(recordings, 24000)
    assert {finding.level for finding in findings} == {"ok"}
    assert "2 of 2 recordings can be read" in texts_of(findings, "ok") and "1 at 24000 Hz, 1 at 44100 Hz" in texts_of(
        findings, "ok"
    )
    assert "splits: train 1, test 1" in texts_of(findings, "ok")


def test_faults_of_recordings(recordings):
    (recordings / "bad.mp3").write_text("no audio")
    soundfile.write(recordings / "silent.wav", np.zeros(40000), 8000)
    left = 0.3 * np.random.default_rng(0).standard_normal(30000)
    soundfile.write(recordings / "opposed.wav", np.stack([left, -left], axis=1), 24000)
    soundfile.write(recordings / "short.wav", np.ones(400) / 2, 24000)
    soundfile.write(recordings / "nan.wav", np.full(24000, np.nan, dtype=np.float32), 24000, subtype="FLOAT")
    findings = check_data(recordings, 24000)
    assert "bad.mp3: not audio" in texts_of(findings, "problem") and "nan.wav: NaN" in texts_of(findings, "problem")
    warnings = texts_of(findings, "warning")
    assert "1 recordings are silent: " in warnings and "silent.wav" in warnings
    assert "1 recordings are of channels out of phase: " in warnings and "opposed.wav" in warnings
    assert "1 recordings are shorter than 1 s" in warnings and "1 recordings are below the model's 24000 Hz" in warnings


def test_long_recordings_are_decoded_at_both_ends(recordings, monkeypatch):
    monkeypatch.setattr(data_checks, "WHOLE_SECONDS", 0.5)
    monkeypatch.setattr(data_checks, "END_SECONDS", 0.2)
    samples = np.full(24000, 0.5, dtype=np.float32)
    samples[-10] = np.inf
    soundfile.write(recordings / "end.wav", samples, 24000, subtype="FLOAT")
    assert "end.wav: NaN or infinite" in texts_of(check_data(recordings), "problem")


TABLES = [
    ("file_name,genre\na.wav,rock\nc.wav,jazz\n", "problem", "1 of 2 recordings are missing"),
    ("name,genre\na.wav,rock\n", "problem", "it needs 'file_name'"),
    ("file_name,genre\na.wav,rock\n", "warning", "1 recordings are not in metadata.csv"),
    ("file_name,genre\na.wav,rock\nb.wav,\n", "warning", "1 recordings are without a value in the column 'genre'"),
]


@pytest.mark.parametrize(("text", "level", "message"), TABLES)
def test_metadata_against_the_files(text, level, message, recordings):
    metadata_csv(recordings, text)
    assert message in texts_of(check_data(recordings), level)


@pytest.mark.parametrize(
    ("names", "columns", "found"),
    [
        (["blue_1", "blue_2", "red 1", "red 2", "green"], "genre", 4),
        (["blue_1", "blue_2", "red 1", "red 2"], "genre,group", 0),
        (["track01", "track02", "track03"], "genre", 0),
        (["rock.0001", "rock.0002", "jazz.0001", "jazz.0002"], "genre", 0),  # names of classes
    ],
)
def test_names_of_pieces_without_a_group(names, columns, found, tmp_path):
    group = ",x" if "group" in columns else ""
    for name in names:
        soundfile.write(tmp_path / f"{name}.wav", np.full(24000, 0.1), 24000)
    rows = [f"{name}.wav,{name.split('.')[0]}{group}" for name in names]
    metadata_csv(tmp_path, "\n".join([f"file_name,{columns}", *rows]))
    warnings = texts_of(check_data(tmp_path), "warning")
    assert (f"{found} recordings are named like pieces of others" in warnings) == bool(found)


def test_folders_without_recordings(tmp_path):
    assert "is not a folder" in texts_of(check_data(tmp_path / "nowhere"), "problem")
    assert has_problem(check_data(tmp_path))


def test_requirements_are_compared_with_what_is_installed(monkeypatch):
    assert not has_problem(check_packages())
    requirements = ["torch>=99", "no-such-package>=1", "typer>=0.1", 'absent; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    problems = texts_of(list(check_packages()), "problem")
    assert "does not satisfy >=99" in problems and 'pip install --upgrade "torch>=99"' in problems
    assert "no-such-package is not installed" in problems and "absent" not in problems
    monkeypatch.setattr(installation, "NEWEST_TRANSFORMERS", 1)
    monkeypatch.setattr(metadata, "requires", lambda name: ["transformers"])
    assert "newer than the versions" in texts_of(list(check_packages()), "warning")


@pytest.fixture
def broken_torchaudio(tmp_path, monkeypatch) -> Path:
    """A torchaudio for another torch, as the package index installs it."""
    place = tmp_path / "site"
    (place / "torchaudio").mkdir(parents=True)
    (place / "torchaudio" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    (place / "torchaudio-2.11.0.dist-info").mkdir()
    (place / "torchaudio-2.11.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.11.0\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{place}{os.pathsep}{Path(__file__).parent.parent}")
    return place


def test_torchaudio_that_cannot_load(broken_torchaudio, monkeypatch):
    monkeypatch.syspath_prepend(broken_torchaudio)
    problems = texts_of(list(check_fragile_packages()), "problem")
    assert "torchaudio 2.11.0 is installed but cannot load: OSError: libcudart.so.13" in problems
    assert "pip uninstall torchaudio" in problems


def test_broken_torchaudio_takes_nothing_down(broken_torchaudio):
    code = (
        "import transformers, mert_hf, mert_hf.cli\n"
        "print(mert_hf.MERTModel.__name__, mert_hf.MERTFeatureExtractor.__name__)\n"
        "mert_hf.cli.app(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("MERTModel MERTFeatureExtractor"), done.stderr
    assert "torchaudio is installed but cannot load (libcudart" in done.stderr
    assert done.returncode == 1 and "[problem] torchaudio 2.11.0" in done.stdout


def test_command_line(folder, recordings):
    result = CliRunner().invoke(app, ["doctor", "--model", str(folder), "--data", str(recordings)])
    assert result.exit_code == 0 and "[ok] torch " in result.stdout and "2 of 2 recordings" in result.stdout
    shutil.rmtree(folder)
    result = CliRunner().invoke(app, ["doctor", "--model", str(folder)])
    assert result.exit_code == 1 and "[problem]" in result.stdout and "    -> " in result.stdout
