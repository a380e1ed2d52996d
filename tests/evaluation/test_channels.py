"""Recordings whose channels cancel each other in evaluation, fine-tuning and prediction: `--channels left`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from sounds import write
from typer.testing import CliRunner

from mert_hf import MERTEmbedder
from mert_hf.cli.app import app
from mert_hf.evaluation import evaluate
from mert_hf.finetuning import FineTuningArguments, FineTuningTrainingArguments, fine_tune, predict
from mert_hf.recordings.audiofolder import write_metadata

RATE = 24000
SPLITS = ["train"] * 6 + ["validation"] * 4 + ["test"] * 4


@pytest.fixture(scope="module")
def opposed(tmp_path_factory) -> Path:
    """Low and high tones whose right channel is the left one with reversed polarity: their mix is silence."""
    folder, rows = tmp_path_factory.mktemp("opposed"), []
    time = np.arange(RATE) / RATE
    for number, split in enumerate(SPLITS):
        tone = 0.4 * np.sin(2 * np.pi * (200 + 5 * number) * (8 if number % 2 else 1) * time)
        write(folder / f"{number:02d}.wav", np.stack([tone, -tone], axis=1), RATE, subtype="FLOAT")
        rows.append({"file_name": f"{number:02d}.wav", "label": "high" if number % 2 else "low", "split": split})
    write_metadata(folder, rows)
    return folder


def test_evaluate_hears_the_chosen_channel_and_keeps_its_features_apart(opposed, fast, tmp_path):
    pytest.importorskip("mir_eval")

    def accuracy(**settings) -> float:
        found = evaluate(
            "audiofolder", opposed, "mel", settings=fast(**settings), cache_dir=tmp_path, target="label", device="cpu"
        )
        return found["metrics"]["accuracy"]["mean"]

    assert accuracy() == 0.5  # all recordings are the same silence
    assert accuracy(channels="left") == 1.0
    assert accuracy() == 0.5
    assert accuracy(channels="side", deformations=["gain:-6"]) == 1.0


def test_a_fine_tuned_model_is_applied_to_the_channels_of_training(opposed, tiny_checkpoint, tmp_path):
    pytest.importorskip("mir_eval")
    arguments = FineTuningArguments(str(opposed), model_name_or_path=str(tiny_checkpoint), channels="left")
    quick = {"num_train_epochs": 1, "report_to": [], "disable_tqdm": True, "use_cpu": True}
    fine_tune(arguments, FineTuningTrainingArguments(output_dir=str(tmp_path / "model"), **quick))

    def scores(**settings) -> list[float]:
        predict(tmp_path / "model", [opposed], tmp_path / "rows.parquet", show_progress_bar=False, **settings)
        return [row["scores"]["high"] for row in pq.read_table(tmp_path / "rows.parquet").to_pylist()]

    assert scores() == scores(channels="left") and len(set(scores())) > 1
    assert len({round(score, 4) for score in scores(channels="mean")}) == 1
    options = [str(tmp_path / "model"), str(opposed), "--output", str(tmp_path / "cli.parquet"), "--channels", "both"]
    assert "channels='both' must be one of mean, left" in CliRunner().invoke(app, ["predict", *options]).output


def test_encode_hears_the_chosen_channel(opposed, tiny_checkpoint2):
    embedder = MERTEmbedder.from_pretrained(tiny_checkpoint2, device="cpu")
    path = opposed / "00.wav"
    samples = soundfile.read(path, dtype="float32")[0]

    def encoded(recording, **options) -> np.ndarray:
        return embedder.encode(recording, sampling_rate=RATE, show_progress_bar=False, **options).embeddings

    for place, channels in enumerate(("left", "right")):
        np.testing.assert_allclose(encoded(path, channels=channels), encoded(samples[:, place]), atol=1e-6)
    assert np.abs(encoded(path) - encoded(samples[:, 0])).max() > 0.1
    with pytest.raises(ValueError, match="channels='both' must be one of"):
        encoded(path, channels="both")
