"""Encoders of users, models with their own code, precomputed features, and whole runs over a folder of data sets."""

from __future__ import annotations

import csv
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mert_hf.cli.app import app
from mert_hf.embedding.windows import embed_windows, recording_windows
from mert_hf.encoders import open_encoder
from mert_hf.encoders.handmade import HandmadeEncoder
from mert_hf.encoders.own import OwnEncoder, RemoteModel, StoredFeatures
from mert_hf.evaluation import evaluate
from mert_hf.evaluation.probing import runner
from mert_hf.evaluation.probing.features import FeatureRequest, chosen_encoder
from mert_hf.evaluation.probing.runner import _is_finished, evaluate_all, find_tasks, plan_lines, plan_tasks

from .synthesis import note, write


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Path:
    """32 notes of two pitches with metadata.csv."""
    folder = tmp_path_factory.mktemp("tones")
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "pitch", "split"])
        for index in range(32):
            pitch, split = 60 + 6 * (index % 2), ("train", "train", "valid", "test")[index // 2 % 4]
            write(folder / f"{index}.wav", note(pitch + 0.01 * index, 1.2))
            table.writerow([f"{index}.wav", pitch, split])
    return folder


class Chroma:
    """The chroma baseline as somebody's encoder."""

    sampling_rate = 24000
    fingerprint = "chroma as a custom encoder"

    def __init__(self) -> None:
        self.baseline = HandmadeEncoder("chroma", "cpu")

    def encode(self, clips):
        return [self.baseline.features(clip) for clip in clips]


def test_an_encoder_of_your_own_gives_what_the_same_baseline_gives(tones, fast, tmp_path):
    results = [
        evaluate(
            "audiofolder", tones, model, settings=fast(), cache_dir=tmp_path, device="cpu", target="pitch", name="x"
        )
        for model in (Chroma(), "chroma")
    ]
    assert results[0]["grid"] == results[1]["grid"] and results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["model_fingerprint"] != results[1]["model_fingerprint"] and results[0]["model"] == "x"


def test_layers_and_rate_are_found_out():
    class TwoLayers(Chroma):
        def encode(self, clips):
            return [torch.stack([torch.from_numpy(values)] * 2) for values in super().encode(clips)]

    encoder = OwnEncoder(TwoLayers())
    assert (encoder.layers, encoder.hidden_size, encoder.hop_length) == ((0, 1), 12, 320)
    (values,) = encoder.hidden_states([note(60, 1.0)], [1])
    assert values.shape == (1 + len(note(60, 1.0)) // 320, 1, 12)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fingerprint": None}, "has no fingerprint"),
        ({"encode": lambda self, clips: [np.zeros(3)]}, r"gave 1 arrays \(\(3,\)\) for 2 clips"),
    ],
)
def test_unfit_encoders_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        OwnEncoder(type("Unfit", (Chroma,), change)())


REMOTE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class BandsConfig(PretrainedConfig):
    model_type = "bands_of_a_test"
    sampling_rate = 16000

class BandsModel(PreTrainedModel):
    config_class = BandsConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(3, 1))
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, waveforms, output_hidden_states=False):
        frames = waveforms.unfold(1, 320, 320)
        spectra = torch.fft.rfft(frames).abs()[..., :64]
        return BaseModelOutput(hidden_states=tuple(spectra * scale for scale in self.scale))
"""


def test_a_hub_model_with_its_own_code(tones, fast, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modeling_bands.py").write_text(REMOTE)
    module = runpy.run_path(str(tmp_path / "model" / "modeling_bands.py"))
    config = module["BandsConfig"](auto_map={
        "AutoConfig": "modeling_bands.BandsConfig", "AutoModel": "modeling_bands.BandsModel"
    })  # fmt: skip
    module["BandsModel"](config).save_pretrained(tmp_path / "model")
    encoder = OwnEncoder(RemoteModel(str(tmp_path / "model"), "cpu"))
    assert (encoder.sampling_rate, encoder.layers, encoder.hidden_size, encoder.hop_length) == (
        16000,
        (0, 1, 2),
        64,
        320,
    )
    results = evaluate(
        "audiofolder", tones, str(tmp_path / "model"), settings=fast(layers=(0,)), cache_dir=tmp_path / "cache",
        device="cpu", target="pitch", trust_remote_code=True,
    )  # fmt: skip
    assert results["metrics"]["accuracy"]["mean"] > 0.9 and results["model"] == "model"


def test_precomputed_features(tones, fast, tmp_path):
    encoder = HandmadeEncoder("chroma", "cpu")
    for path in tones.glob("*.wav"):
        windows = ((0, window) for window in recording_windows(encoder, path, 30.0))
        values = [row for _, _, row in embed_windows(encoder, windows, [0], "mean_std")]
        np.save(tmp_path / f"{path.stem}.npy", np.stack(values))
    settings = {"settings": fast(store_dtype="float32"), "cache_dir": tmp_path / "cache", "device": "cpu"}
    given = evaluate("audiofolder", tones, features=tmp_path, target="pitch", **settings)
    computed = evaluate("audiofolder", tones, "chroma", target="pitch", **settings)
    assert given["grid"] == computed["grid"]
    (tmp_path / "7.npy").unlink()
    with pytest.raises(ValueError, match=r"no features of .*7\.wav; looked for .*7\.npy"):
        evaluate("audiofolder", tones, features=tmp_path, target="pitch", **settings)
    with pytest.raises(ValueError, match="not frame by frame"):
        assert FeatureRequest(StoredFeatures(tmp_path, tones), 5.0, "frames", (0,)).shape


def test_exactly_one_source_is_given(tmp_path):
    with pytest.raises(ValueError, match="given are both"):
        chosen_encoder("mel", tmp_path, tmp_path)
    with pytest.raises(ValueError, match="given are none"):
        chosen_encoder(None, None, tmp_path)


def test_the_example_runs(tones, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("mert_hf.evaluation.probing.runner.default_cache_dir", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["example", str(tones), "pitch", str(tmp_path / "results.json")])
    script = Path(__file__).parents[2] / "examples" / "evaluate_your_encoder.py"
    runpy.run_path(str(script), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out and (tmp_path / "results.predictions.parquet").is_file()


@pytest.fixture(scope="module")
def archive(tmp_path_factory, miniature):
    """GTZAN and NSynth below one folder, and a folder that is no data set."""
    root = tmp_path_factory.mktemp("root")
    for name, task in (("GTZAN", "gtzan_genre"), ("nsynth", "nsynth_pitch")):
        (root / name).symlink_to(miniature(task), target_is_directory=True)
    (root / "holidays").mkdir()
    return root


def test_a_plan_counts_shared_recordings_once(archive, fast):
    plans = plan_tasks(find_tasks(archive), HandmadeEncoder("chroma", "cpu"), fast(), torch.device("cpu"))
    by_task = {plan.task: plan for plan in plans}
    assert list(by_task) == ["gtzan_genre", "gtzan_rhythm", "nsynth_instrument", "nsynth_pitch"]
    assert by_task["nsynth_instrument"].hours > 0 and by_task["nsynth_pitch"].hours == 0
    assert by_task["nsynth_pitch"].recordings == 96 and by_task["nsynth_pitch"].time > 0
    assert by_task["gtzan_genre"].gigabytes == pytest.approx(40 * 2 * 24 / 1e9)
    assert len(plan_lines(plans)) == 6


def test_a_whole_run_resumes(archive, fast, tmp_path, monkeypatch):
    settings, done, opened = fast(max_epochs=2), [], []

    def counted(*arguments):
        opened.append(arguments)
        return open_encoder(*arguments)

    monkeypatch.setattr(runner, "open_encoder", counted)
    options = {"cache_dir": tmp_path / "cache", "device": "cpu"}
    first = evaluate_all(archive, "chroma", tmp_path / "one", settings, (1, 2), done.append, **options)
    assert [path.name for path in first] == ["nsynth_instrument.json", "nsynth_pitch.json"] and len(done) == 2
    written = evaluate_all(archive, "chroma", tmp_path / "one", settings, (0, 1), done.append, **options)
    assert len(written) == 4 and [result["task"] for result in done[2:]] == ["gtzan_genre", "gtzan_rhythm"]
    assert len(opened) == 2 and {result["model"] for result in done} == {"chroma"}  # once a run, not once a task
    assert not _is_finished(written[0], replace(settings, deformations=["gain:-6"]))
    assert not _is_finished(written[0], replace(settings, pooling="mean"))
    assert not _is_finished(written[0], replace(settings, window=2.0))
    assert _is_finished(written[0], settings)


def test_tasks_that_cannot_run_fail_the_command_at_its_end(archive, tmp_path, monkeypatch):
    """The other tasks are evaluated and printed; the exit status and the last line report what is missing."""
    result = {"title": "a task", "model": "chroma", "selected": {"layer": 0, "learning_rate": 1e-3}, "metrics": {}}

    def evaluate(task, *arguments, **options):
        if task == "nsynth_pitch":
            raise ValueError("half of the notes are missing")
        return {**result, "title": task, "protocol": {"name": "strict"}}

    monkeypatch.setattr("mert_hf.evaluation.probing.runner.evaluate", evaluate)
    words = ["evaluate", "all", "--data", str(archive), "--model", "chroma", "--output", str(tmp_path / "results")]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 1
    for task in ("gtzan_genre", "gtzan_rhythm", "nsynth_instrument"):
        assert f"{task}, chroma" in outcome.output
    assert "1 of 4 tasks could not run, for the reasons above: nsynth_pitch." in " ".join(outcome.output.split())


def test_a_folder_without_data_sets_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No data set is in"):
        find_tasks(tmp_path)


def test_the_command_prints_a_plan(archive):
    words = ["evaluate", "all", "--data", str(archive), "--model", "chroma", "--dry-run", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1].startswith("total") and "nsynth_pitch" in done.output


def test_a_plan_without_data_says_what_the_protocol_chooses():
    done = CliRunner().invoke(app, ["evaluate", "gtzan_genre", "--dry-run", "--model", "mert2-nano", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    for text in ("chunks of 6 s", "6 learning rates x 3 seeds", "each of 6 layers", "443 training", "--where shows"):
        assert text in " ".join(done.output.split())
    every = CliRunner().invoke(app, ["evaluate", "all", "--dry-run"])
    assert every.exit_code == 0 and "versions" in every.output and "magnatagatune" in every.output


def test_a_plan_of_one_task(archive):
    words = ["evaluate", "nsynth_pitch", "--data", str(archive / "nsynth"), "--model", "chroma", "--dry-run"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()] == ["task", "nsynth_pitch", "total"]


@pytest.mark.parametrize("protocol", ["strict", "marble-v1", "marble-v2"])
def test_an_encoder_of_your_own_does_beats(protocol, miniature, fast, tmp_path):
    settings = fast(max_epochs=1, protocol=protocol, resamples=0)
    results = evaluate(
        "gtzan_rhythm", miniature("gtzan_rhythm"), Chroma(), settings=settings, cache_dir=tmp_path,
        device="cpu", name="x",
    )  # fmt: skip
    assert 0 <= results["metrics"]["beat_f1_70ms"]["mean"] <= 1
