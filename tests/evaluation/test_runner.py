"""Whole evaluations: every task from its layout to test metrics, leakage, shuffled labels, going on after a kill."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mert_hf.evaluation import TASK_NAMES, evaluate
from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.metrics.frames import frame_predictions, sdr_frames, sdr_whole, song_medians
from mert_hf.evaluation.metrics.predictions import Predictions
from mert_hf.evaluation.probing import evaluation, features
from mert_hf.evaluation.probing.frames import SeparationData
from mert_hf.evaluation.probing.probes import WEIGHTED, train_grid
from mert_hf.evaluation.tasks import get_task
from mert_hf.recordings.targets import TONICS

from .synthesis import note, tune, write

# A baseline, and what its primary metric must exceed on the miniature; chance is named next to it.
ABOVE_CHANCE = {
    "magnatagatune": ("mel", 0.7),  # 0.5
    "giantsteps_key": ("mel", 0.6),  # 0.25 to 0.4, four keys
    "gtzan_genre": ("mel", 0.7),  # 0.25
    "gtzan_rhythm": ("mel", 0.6),  # see test_beats_are_found_better_than_by_a_steady_guess
    "emomusic": ("mfcc", 0.3),  # 0.0
    "nsynth_instrument": ("mel", 0.8),  # 0.33
    "nsynth_pitch": ("mel", 0.8),  # 0.25
    "vocalset_technique": ("mfcc", 0.6),  # 0.33
    "vocalset_singer": ("mfcc", 0.5),  # 0.125
    "mtg_instrument": ("mel", 0.8),  # 0.5
    "mtg_moodtheme": ("mel", 0.8),
    "mtg_genre": ("mel", 0.8),
    "mtg_top50": ("mel", 0.8),
    "musdb18": ("mel", 0.0),  # the mixture as estimate: about -7 dB
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Features and probes of the whole test run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def notes(tmp_path_factory) -> Path:
    """An audio folder of notes in four pitch classes, two octaves and three instruments, three takes each."""
    folder = tmp_path_factory.mktemp("notes")
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "pitch", "instrument", "split"])
        for pitch in (0, 3, 6, 9):
            for octave in (4, 5):
                for instrument in ("organ", "string", "flute"):
                    for take, split in enumerate(("train", "train", "valid", "test")):
                        name = f"{pitch}-{octave}-{instrument}-{take}.wav"
                        write(folder / name, note(12 * octave + pitch + 0.04 * take, 1.0 + 0.05 * take, instrument))
                        table.writerow([name, pitch, instrument, split])
    return folder


def linked(folder: Path, output: Path, rows: list[dict[str, str]]) -> Path:
    """The recordings of a folder, by links, with another table."""
    output.mkdir()
    for row in rows:
        (output / row["file_name"]).symlink_to(folder / row["file_name"])
    with (output / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return output


def shuffled(folder: Path, output: Path, split: str, column: str = "pitch") -> Path:
    """The folder again, with a column shuffled within a split, or within "all" recordings."""
    rows = list(csv.DictReader((folder / "metadata.csv").open()))
    chosen = [row for row in rows if split in ("all", row["split"])]
    order = np.random.default_rng(0).permutation(len(chosen))
    for row, value in zip(chosen, [chosen[i][column] for i in order], strict=True):
        row[column] = value
    return linked(folder, output, rows)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_task_runs_to_the_end_and_beats_chance(name, miniature, fast, cache):
    settings = fast(max_epochs=4 if name == "musdb18" else 8 if name == "gtzan_rhythm" else 40)
    model, least = ABOVE_CHANCE[name]
    results = evaluate(name, miniature(name), model, settings=settings, cache_dir=cache)
    assert results["metrics"][results["metric"]]["mean"] > least
    assert set(results["validation"]) == set(results["metrics"])
    assert all(np.isfinite(value["mean"]) for value in results["metrics"].values())
    json.dumps(results, allow_nan=False)


def test_separation_is_better_than_the_mixture_and_adds_up_to_it(miniature, fast, cache, monkeypatch):
    separated = []
    separate = SeparationData.separate

    def noted(self, probe, recording):
        separated.append((self, recording, separate(self, probe, recording)))
        return separated[-1][-1]

    monkeypatch.setattr(SeparationData, "separate", noted)
    results = evaluate("musdb18", miniature("musdb18"), "mel", settings=fast(max_epochs=4, seeds=(1,)), cache_dir=cache)
    frames, wholes = [], []
    for data, recording, estimates in (entry for entry in separated if entry[1].split == "test"):
        mixture = estimates.sum(dim=0).numpy()
        references = data.references(recording, len(mixture))
        np.testing.assert_allclose(mixture, references.sum(axis=0), atol=2e-3)
        guess = np.stack([mixture] * 4)
        frames.append(song_medians(sdr_frames(references, guess, data.sampling_rate)))
        wholes.append(sdr_whole(references, guess))
    columns = {"sdr_median": np.stack(frames), "sdr_mean": np.stack(wholes)}
    worst = scores("separation", Predictions(tuple(range(len(frames))), columns), results["data"]["labels"])
    for name, value in results["metrics"].items():
        assert value["mean"] > worst[name] + 3


def test_beats_are_found_better_than_by_a_steady_guess(miniature, fast, cache):
    from mert_hf.recordings.recordings import BeatTimes

    root = miniature("gtzan_rhythm")
    results = evaluate("gtzan_rhythm", root, "mel", settings=fast(max_epochs=8), cache_dir=cache)
    truth = [recording.target for recording in get_task("gtzan_rhythm").load(root).split("test")]
    guess = BeatTimes(np.arange(0.25, 6, 0.5), np.arange(0.25, 6, 2.0))
    steady = scores("beats", frame_predictions("beats", range(len(truth)), truth, [guess] * len(truth)))
    for name in ("beat_f1_70ms", "beat_f1_20ms"):
        assert results["metrics"][name]["mean"] > steady[name] + 0.2


def test_a_model_is_probed_at_every_layer_and_all(notes, fast, tiny_checkpoint, tmp_path, cache):
    output = tmp_path / "results" / "pitch.json"
    results = evaluate(
        "audiofolder",
        notes,
        str(tiny_checkpoint),
        output,
        fast(seeds=(0, 1), learning_rates=(1e-3, 1e-2)),
        cache,
        device="cpu",
        target="pitch",
    )
    assert json.loads(output.read_text()) == results
    layers = [entry["layer"] for entry in results["layers"]]
    assert layers == [*range(results["protocol"]["num_layers"]), WEIGHTED]
    assert len(results["grid"]) == len(layers) * 4
    assert results["metrics"]["accuracy"]["mean"] > 0.5  # chance 0.25
    assert len(results["metrics"]["accuracy"]["values"]) == 2
    assert sum(results["layers"][-1]["layer_weights"]) == pytest.approx(1.0)
    assert results["model"] == tiny_checkpoint.name and results["data"]["recordings"] == {
        "train": 48,
        "valid": 24,
        "test": 24,
    }


def test_the_best_layer_is_chosen_by_validation(notes, fast, tiny_checkpoint, cache):
    results = evaluate(
        "audiofolder",
        notes,
        str(tiny_checkpoint),
        settings=fast(seeds=(0, 1), learning_rates=(1e-3, 1e-2)),
        cache_dir=cache,
        device="cpu",
        target="pitch",
    )
    best = max(entry["validation"]["accuracy"]["mean"] for entry in results["layers"])
    assert results["validation"]["accuracy"]["mean"] == best
    for entry in results["layers"]:
        own = [probe for probe in results["grid"] if probe["layer"] == entry["layer"]]
        means = {rate: np.mean([p["score"] for p in own if p["learning_rate"] == rate]) for rate in (1e-3, 1e-2)}
        assert means[entry["learning_rate"]] == max(means.values())


def test_test_labels_have_no_part_in_training_and_choice(notes, fast, tmp_path, cache):
    other = shuffled(notes, tmp_path / "shuffled", "test")
    settings = fast(learning_rates=(1e-3, 1e-2))
    one, two = (
        evaluate("audiofolder", folder, "chroma", settings=settings, cache_dir=cache, target="pitch")
        for folder in (notes, other)
    )
    assert one["grid"] == two["grid"] and one["selected"] == two["selected"]
    assert one["metrics"] != two["metrics"]


def test_an_unreadable_recording_is_listed_in_the_result(notes, fast, tmp_path, cache):
    folder = linked(notes, tmp_path / "notes", list(csv.DictReader((notes / "metadata.csv").open())))
    (folder / "0-4-organ-0.wav").unlink()
    (folder / "0-4-organ-0.wav").write_bytes(b"not audio")
    settings = fast(max_epochs=2, max_bad_files="3%")
    results = evaluate("audiofolder", folder, "chroma", settings=settings, cache_dir=cache, target="pitch")
    assert results["data"]["skipped"] == ["0-4-organ-0.wav (unreadable)"]
    assert results["data"]["recordings"]["train"] == 47
    with pytest.raises(ValueError, match="0-4-organ-0"):
        evaluate("audiofolder", folder, "chroma", settings=fast(), cache_dir=cache, target="pitch")


def test_shuffled_labels_give_chance(notes, fast, tmp_path, cache):
    other = shuffled(notes, tmp_path / "shuffled", "all")
    scores = [
        evaluate("audiofolder", folder, "chroma", settings=fast(seeds=(0, 1)), cache_dir=cache, target="pitch")
        for folder in (notes, other)
    ]
    true, chance = (entry["metrics"]["accuracy"]["mean"] for entry in scores)
    assert true > 0.9 and chance < 0.5  # chance 0.25, standard deviation over 24 recordings 0.09


def test_chroma_beats_mfcc_on_the_pitch_class_of_another_octave(notes, fast, tmp_path, cache):
    rows = list(csv.DictReader((notes / "metadata.csv").open()))
    for row in rows:
        if row["file_name"].split("-")[1] == "5":
            row["split"] = "test" if row["split"] == "test" else "valid"
        else:
            row["split"] = "train"
    folder = linked(notes, tmp_path / "octaves", rows)
    scores = {
        model: evaluate("audiofolder", folder, model, settings=fast(), cache_dir=cache, target="pitch")
        for model in ("chroma", "mfcc")
    }
    chroma, mfcc = (scores[model]["metrics"]["accuracy"]["mean"] for model in ("chroma", "mfcc"))
    assert chroma > 0.8 and chroma > mfcc + 0.2


# (weighted score, validation loss) on the keys below of the version before stores were shared, float32 features
EARLIER = {"chroma": (0.92917, 0.46085), "mfcc": (0.79583, 0.85495)}


def test_keys_as_in_earlier_versions_and_chroma_beats_mfcc(fast, tmp_path, cache):
    rng = np.random.default_rng(0)
    rows = [["file_name", "key", "split"]]
    for tonic in range(12):
        for mode in ("major", "minor"):
            for split, take in [("train", 0), ("train", 1), ("train", 2), ("valid", 3), ("test", 4)]:
                rows.append([f"{tonic}-{mode}-{take}.wav", f"{TONICS[tonic]} {mode}", split])
                write(tmp_path / rows[-1][0], tune(tonic, mode, rng, 2.0))
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for model, (score, loss) in EARLIER.items():
        settings = {"store_dtype": "float32", "resamples": 0}
        results = evaluate(
            "audiofolder", tmp_path, model, settings=fast(**settings), cache_dir=cache, target="key", kind="key"
        )
        assert results["metrics"]["weighted_score"]["mean"] == pytest.approx(score, abs=1e-4)
        assert results["grid"][0]["loss"] == pytest.approx(loss, abs=1e-3)
    half = evaluate("audiofolder", tmp_path, "chroma", settings=fast(), cache_dir=cache, target="key", kind="key")
    assert half["grid"][0]["loss"] == pytest.approx(EARLIER["chroma"][1], abs=5e-3)  # float16 features


class Spy:
    """Counts recordings that are read and probes that are trained."""

    def __init__(self, monkeypatch) -> None:
        self.read: list[str] = []
        self.trained: list = []
        windows = features.recording_windows

        def note_read(encoder, source, *arguments, **options):
            self.read.append(Path(source).name)
            return windows(encoder, source, *arguments, **options)

        def note_trained(data, probes, *arguments):
            self.trained += probes
            return train_grid(data, probes, *arguments)

        monkeypatch.setattr(features, "recording_windows", note_read)
        monkeypatch.setattr(evaluation, "train_grid", note_trained)


def test_a_finished_evaluation_is_not_computed_again(notes, fast, tmp_path, monkeypatch):
    spy = Spy(monkeypatch)
    options = {"settings": fast(), "cache_dir": tmp_path, "target": "pitch"}
    first = evaluate("audiofolder", notes, "mfcc", **options)
    assert (len(spy.read), len(spy.trained)) == (96, 1)
    assert evaluate("audiofolder", notes, "mfcc", **options) == first
    assert (len(spy.read), len(spy.trained)) == (96, 1)
    evaluate("audiofolder", notes, "mfcc", **{**options, "target": "instrument"})  # other labels, same features
    assert (len(spy.read), len(spy.trained)) == (96, 2)


@pytest.mark.parametrize(
    "tasks", [("nsynth_instrument", "nsynth_pitch"), ("mtg_instrument", "mtg_moodtheme", "mtg_genre", "mtg_top50")]
)
def test_tasks_on_the_same_recordings_share_their_features(tasks, miniature, fast, tmp_path, monkeypatch):
    spy = Spy(monkeypatch)
    results = {}
    for task in tasks:
        settings = fast(max_epochs=2, resamples=0)
        results[task] = evaluate(task, miniature(task), "mfcc", settings=settings, cache_dir=tmp_path, device="cpu")
    recordings = sum(results[tasks[0]]["data"]["recordings"].values())
    assert len(spy.read) == recordings
    assert len(list((tmp_path / "features").iterdir())) == 1


@pytest.mark.parametrize("protocol", ["strict", "marble-v1"])
def test_beats_with_features_that_are_computed_when_needed(protocol, miniature, fast, tmp_path):
    """The same numbers as with a store, where the protocol allows a store."""
    root, found = miniature("gtzan_rhythm"), {}
    for frame_features in ("store", "compute"):
        settings = fast(max_epochs=2, protocol=protocol, frame_features=frame_features, resamples=0)
        options = {"settings": settings, "cache_dir": tmp_path / frame_features, "device": "cpu"}
        found[frame_features] = evaluate("gtzan_rhythm", root, "chroma", **options)["grid"][0]
    assert not (tmp_path / "compute" / "features").exists()
    if protocol == "strict":
        assert found["compute"]["loss"] == pytest.approx(found["store"]["loss"], abs=1e-4)
    else:  # the encoder sees a crop only; what chroma gives at its edges is other
        assert found["compute"]["loss"] != found["store"]["loss"]


def test_probes_go_on_where_they_stopped(notes, fast, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "GROUP_WEIGHTS", 1)  # one layer at a time
    options = {"settings": fast(max_epochs=3), "cache_dir": tmp_path, "device": "cpu", "target": "pitch"}
    trained = []

    def stop_at_third(data, probes, *arguments):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(probes)
        return train_grid(data, probes, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "train_grid", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            evaluate("audiofolder", notes, str(tiny_checkpoint), **options)
    spy = Spy(monkeypatch)
    results = evaluate("audiofolder", notes, str(tiny_checkpoint), **options)
    assert len(trained) == 2 and len(spy.trained) == len(results["layers"]) - 2
    whole = evaluate("audiofolder", notes, str(tiny_checkpoint), **{**options, "cache_dir": tmp_path / "other"})
    assert results == whole


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"layers": (3,)}, "Layer 3 does not exist: the encoder has 1 layers, from 0"),
        ({"layers": (0, -1)}, "names a layer twice"),
        ({"layers": ()}, "layers is empty"),
        ({"learning_rates": (0.0,)}, "must be positive"),
        ({"learning_rates": ()}, "must be positive"),
        ({"seeds": (0, 0)}, "must be distinct"),
        ({"window": 0.5}, "must be 1 s or more"),
    ],
)
def test_bad_settings_are_told(notes, fast, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        evaluate("audiofolder", notes, "mel", settings=fast(**fields), cache_dir=tmp_path, target="pitch")
