"""Probes during training: logged next to the loss, without an effect on the run."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import soundfile
from tiny_pretraining import RATE, losses_of, make_collator, make_trainer

from mert_hf.pretraining.probing import ProbeCallback, parse_probe_tasks


@pytest.fixture(scope="module")
def pitches(tmp_path_factory):
    """A folder of low and high tones with metadata.csv."""
    folder = tmp_path_factory.mktemp("pitches")
    rows = []
    for index in range(12):
        label = ("low", "high")[index % 2]
        time = np.arange(2 * RATE) / RATE
        frequency = (80 if label == "low" else 400) + 5 * index
        soundfile.write(folder / f"{index}.wav", 0.4 * np.sin(2 * np.pi * frequency * time), RATE)
        rows.append([f"{index}.wav", label, ("train", "train", "valid", "test")[index // 2 % 4]])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "register", "split"], *rows])
    return folder


def test_probes_are_logged_and_change_nothing(recordings, pitches, tmp_path):
    plain = make_trainer(recordings, tmp_path / "plain", max_steps=4)
    plain.train()
    trainer = make_trainer(recordings, tmp_path / "probed", max_steps=4)
    tasks = parse_probe_tasks([f"audiofolder:register={pitches}"])
    trainer.add_callback(ProbeCallback(tasks, make_collator().feature_extractor, trainer.log, steps=2))
    trainer.train()
    probes = [entry for entry in trainer.state.log_history if any(name.startswith("probe_") for name in entry)]
    assert [entry["step"] for entry in probes] == [2, 4]
    for entry in probes:
        metrics = {name: value for name, value in entry.items() if name.startswith("probe_")}
        assert any(name.endswith("accuracy") for name in metrics) and all(0 <= value <= 1 for value in metrics.values())
    assert losses_of(trainer) == losses_of(plain)


def test_texts_of_probe_tasks():
    assert parse_probe_tasks(["gtzan_genre=a/b=c"]) == {"gtzan_genre": "a/b=c"}
    with pytest.raises(ValueError, match="written TASK=FOLDER"):
        parse_probe_tasks(["gtzan_genre"])
    with pytest.raises(ValueError, match="Unknown task 'pop'"):
        ProbeCallback({"pop": "x"}, None, print)
