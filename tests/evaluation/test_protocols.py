"""Each choice of marble-v1 against a plain reimplementation: cutting, batches, patience, average of layers, scores."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mert_hf.audio import read_audio
from mert_hf.encoders import open_encoder
from mert_hf.encoders.handmade import HandmadeEncoder
from mert_hf.evaluation import EvaluationSettings, evaluate
from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.metrics.frames import frame_predictions
from mert_hf.evaluation.probing.chunks import ChunkData
from mert_hf.evaluation.probing.evaluation import Evaluation
from mert_hf.evaluation.probing.features import FeatureRequest, recording_rows
from mert_hf.evaluation.probing.frames import FrameClassData
from mert_hf.evaluation.probing.probes import WEIGHTED, grid, train_grid
from mert_hf.evaluation.probing.store import FeatureTable
from mert_hf.evaluation.tasks import get_task
from mert_hf.evaluation.tasks.protocols import MARBLE_V1, MARBLE_V2, PROTOCOLS, STRICT, get_protocol
from mert_hf.recordings.recordings import BeatTimes, Recording, TaskData

from .synthesis import note, write

LAYERS, DIM, CLASSES = 3, 6, 3


@pytest.fixture(scope="module")
def song(tmp_path_factory) -> Recording:
    """A recording of 33.4 s that gets louder, at 24 kHz."""
    samples = np.concatenate([note(60 + i % 7, 1.67, "string", 24000) for i in range(20)])
    path = write(tmp_path_factory.mktemp("song") / "a.wav", samples * np.linspace(0.1, 1, len(samples)), 24000)
    return Recording("a", path, "train", 0)


@pytest.fixture(scope="module")
def normalizing_checkpoint(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint with a feature extractor that normalizes amplitudes, as the published ones do."""
    encoder = open_encoder(str(tiny_checkpoint), "cpu")
    folder = tmp_path_factory.mktemp("normalizing")
    encoder.model.save_pretrained(folder)
    encoder.feature_extractor.do_normalize = True
    encoder.feature_extractor.save_pretrained(folder)
    return folder


def plain_chunks(samples: np.ndarray, window: float) -> list[np.ndarray]:
    """MARBLE v1: normalize what was loaded, cut it, drop a last chunk under a second."""
    samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    size = round(24000 * window)
    chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [chunk for chunk in chunks if len(chunk) >= 24000]


def plain_features(model, chunks: list[np.ndarray]) -> np.ndarray:
    """Mean over time of all hidden states, (chunks, layers, values)."""
    with torch.no_grad():
        states = [model(torch.from_numpy(c)[None].float(), output_hidden_states=True).hidden_states for c in chunks]
    return np.stack([torch.stack([layer[0].mean(dim=0) for layer in chunk]).numpy() for chunk in states])


@pytest.mark.parametrize("task, seconds", [("mtg_genre", None), ("emomusic", 30.0), ("vocalset_singer", None)])
def test_chunks_of_marble_v1(song, normalizing_checkpoint, task, seconds):
    encoder = open_encoder(str(normalizing_checkpoint), "cpu")
    request = FeatureRequest.of(get_task(task), MARBLE_V1, encoder)
    assert request.window == {"mtg_genre": 30.0, "emomusic": 5.0, "vocalset_singer": 3.0}[task]
    samples = read_audio(song.path, 24000)
    if seconds:  # MARBLE crops when it loads the file, and normalizes what it has loaded
        samples = samples[: round(24000 * seconds)]
    expected = plain_chunks(samples, request.window)
    windows = list(request.windows(song))
    assert len(windows) == len(expected) and request.clip_normalization == "none"
    for window, chunk in zip(windows, expected, strict=True):
        np.testing.assert_allclose(window.samples, chunk, atol=1e-4)
    ((_, rows),) = recording_rows(request, [song], EvaluationSettings(), {})
    np.testing.assert_allclose(rows, plain_features(encoder.model, expected), atol=2e-4)


def test_windows_are_normalized_by_themselves_in_other_protocols(song, normalizing_checkpoint):
    encoder = open_encoder(str(normalizing_checkpoint), "cpu")
    request = FeatureRequest.of(get_task("vocalset_singer"), STRICT, encoder)
    windows = list(request.windows(song))
    samples = np.concatenate([window.samples for window in windows])
    np.testing.assert_array_equal(samples, read_audio(song.path, 24000)[: len(samples)])
    assert encoder.normalizes and request.clip_normalization == "clip"


def test_chunks_fit_the_context_of_the_model_under_strict_only():
    """mert2-nano was trained on 6 s, and warned of chunks of 30 s that its evaluation had chosen by default."""
    encoder, task = open_encoder("mert2-nano", "cpu"), get_task("gtzan_genre")
    assert FeatureRequest.of(task, STRICT, encoder).window == encoder.context_seconds == 6.0
    assert FeatureRequest.of(task, STRICT, encoder, window=10.0).window == 10.0  # what the user gives
    assert FeatureRequest.of(task, MARBLE_V2, encoder).window == 30.2
    assert FeatureRequest.of(get_task("nsynth_pitch"), STRICT, encoder).window == 4.0
    assert FeatureRequest.of(task, STRICT, open_encoder("mert-nano", "cpu")).window == 30.0  # states no context


def toy_data(seed: int = 0) -> tuple[TaskData, FeatureTable]:
    """90 training and 30 validation recordings of one to four chunks."""
    rng = np.random.default_rng(seed)
    centers, recordings, rows, spans = rng.normal(size=(CLASSES, DIM)), [], [], {}
    for index in range(130):
        target, count = int(rng.integers(CLASSES)), int(rng.integers(1, 5))
        split = "train" if index < 90 else "valid" if index < 120 else "test"
        recordings.append(Recording(f"{index:03d}", None, split, target))
        spans[f"{index:03d}"] = (sum(len(part) for part in rows), count)
        strength = np.array([0.0, 0.7, 0.4])[:, None]
        rows.append(rng.normal(size=(count, LAYERS, DIM)) + strength * centers[target])
    data = TaskData(tuple("abc"), tuple(recordings))
    return data, FeatureTable(np.concatenate(rows).astype(np.float32), spans)


class PlainProbe(nn.Module):
    """MARBLE's prober: softmax of layer weights, Linear, ReLU, dropout, Linear."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.aggregator = nn.Parameter(torch.zeros(layers))  # drawn with a generator below
        self.hidden, self.output = nn.Linear(DIM, hidden), nn.Linear(hidden, CLASSES)

    def forward(self, chunks, mask=None):
        mixed = (chunks * self.aggregator.softmax(0)[None, :, None]).sum(dim=1)
        hidden = self.hidden(mixed).relu()
        return self.output(hidden if mask is None else hidden * mask)


def train_like_marble(data: TaskData, table: FeatureTable, settings, rate: float, seed: int, epochs: int):
    """One probe of v1: 64 recordings a batch, torch's own plateau scheduler, Lightning's early stopping."""
    generator = torch.Generator().manual_seed(seed)
    net = PlainProbe(LAYERS - 1, settings.hidden_size)
    with torch.no_grad():
        for linear in (net.hidden, net.output):
            bound = linear.in_features**-0.5
            linear.weight.copy_(torch.empty(linear.weight.T.shape).uniform_(-1, 1, generator=generator).T * bound)
            linear.bias.copy_(torch.empty(linear.bias.shape).uniform_(-1, 1, generator=generator) * bound)
    with torch.no_grad():
        net.aggregator.normal_(generator=torch.Generator().manual_seed(seed))
    chunks = {name: torch.from_numpy(table.rows[start : start + n][:, 1:]) for name, (start, n) in table.spans.items()}
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=5)
    best, best_net, waited, training = -1.0, None, 0, data.split("train")
    epoch = 0
    while epoch < epochs and waited < 20:
        epoch += 1
        for batch in torch.randperm(len(training), generator=generator).split(64):
            chosen = [training[i] for i in batch.tolist()]
            inputs = torch.cat([chunks[r.id] for r in chosen])
            targets = torch.tensor([r.target for r in chosen for _ in chunks[r.id]])
            keep = 1 - settings.dropout
            mask = torch.empty(len(inputs), settings.hidden_size).bernoulli_(keep, generator=generator) / keep
            optimizer.zero_grad()
            F.cross_entropy(net(inputs, mask), targets).backward()
            optimizer.step()
        with torch.no_grad():
            right = [net(chunks[r.id]).mean(dim=0).argmax().item() == r.target for r in data.split("valid")]
        score = float(np.mean(right))
        scheduler.step(score)
        if score > best:
            best, best_net, waited = score, copy.deepcopy(net), 0
        else:
            waited += 1
    return best, best_net, epoch


@pytest.mark.parametrize("rate", [3e-3, 3e-2])
def test_training_of_marble_v1(rate):
    """Batches of recordings, halved rates, early stopping and the average without the input, all at once."""
    data, table = toy_data()
    settings = EvaluationSettings(protocol="marble-v1").probe_settings(get_task("giantsteps_key"))
    settings = replace(settings, hidden_size=16)
    score, net, epochs = train_like_marble(data, table, settings, rate, 0, settings.max_epochs)
    held = table.held([1, 2])
    chunks = ChunkData("classification", data, held, "cpu", MARBLE_V1)
    (mine,) = train_grid(chunks, grid([WEIGHTED], [rate], [0]), settings)
    assert (mine.score, mine.epochs) == (pytest.approx(score), epochs)
    assert epochs < settings.max_epochs
    start, count = table.spans["125"]
    with torch.no_grad():
        expected = net(torch.from_numpy(table.rows[start : start + count][:, 1:]))
    start, count = held.spans["125"]
    torch.testing.assert_close(
        mine.outputs(held.gather(np.arange(start, start + count))), expected, rtol=1e-2, atol=1e-2
    )


def test_the_average_of_layers_leaves_out_the_input_in_marble_v1_only():
    def positions(protocol: str, layers: int = 5) -> list[int]:
        settings = EvaluationSettings(protocol=protocol)
        encoder = SimpleNamespace(context_seconds=None, layers=tuple(range(layers)))
        evaluation = Evaluation(get_task("gtzan_genre"), None, encoder, settings, None, None, torch.device("cpu"))
        return evaluation.positions([WEIGHTED])

    assert positions("marble-v1") == [1, 2, 3, 4]
    assert positions("strict") == positions("marble-v2") == [0, 1, 2, 3, 4]
    assert positions("marble-v1", 1) == [0]  # a hand-made feature


# (plateau, early stopping) of MARBLE's configurations
PATIENCE = {
    "magnatagatune": (3, 10),
    "giantsteps_key": (5, 20),
    "gtzan_genre": (6, 20),
    "gtzan_rhythm": (6, 20),
    "emomusic": (5, 20),
    "nsynth_instrument": (3, 10),
    "nsynth_pitch": (3, 10),
    "vocalset_technique": (5, 10),
    "vocalset_singer": (5, 20),
    "mtg_instrument": (3, 10),
    "mtg_moodtheme": (3, 10),
    "mtg_genre": (3, 10),
    "mtg_top50": (3, 10),
}


@pytest.mark.parametrize("task", PATIENCE)
def test_patience_and_epochs_of_marble_v1(task):
    settings = EvaluationSettings(protocol="marble-v1").probe_settings(get_task(task))
    assert (settings.plateau_patience, settings.patience + 1) == PATIENCE[task]
    assert settings.max_epochs == (50 if task.startswith("nsynth") else 100)
    assert (settings.hidden_size, settings.dropout, settings.plateau_factor) == (512, 0.2, 0.5)


def test_recordings_are_scored_by_the_mean_of_their_logits_and_vocalset_by_pieces():
    data, table = toy_data()
    outputs = np.random.default_rng(1).normal(size=(len(table.rows), CLASSES)).astype(np.float32)
    table = replace(table, rows=outputs[:, None])  # the probe passes its input on
    probe = SimpleNamespace(outputs=lambda features: features[0])
    test, flat = data.split("test"), []
    for recording in test:
        start, count = table.spans[recording.id]
        flat += [(outputs[start + i], recording.target) for i in range(count)]
    means = [outputs[start : start + n].mean(axis=0) for start, n in (table.spans[r.id] for r in test)]
    by_recording = np.mean([mean.argmax() == r.target for mean, r in zip(means, test, strict=True)])
    by_piece = np.mean([logits.argmax() == target for logits, target in flat])
    for pieces, expected in ((False, by_recording), (True, by_piece)):
        protocol = MARBLE_V1.of("vocalset_singer" if pieces else "mtg_genre")
        predictions = ChunkData("classification", data, table, protocol=protocol).predict(probe, "test")
        assert scores("classification", predictions, data.labels)["accuracy"] == pytest.approx(expected)
        assert len(predictions) == (len(flat) if pieces else len(test))
        assert set(predictions.resampled) == {recording.id for recording in test}
    assert STRICT.of("vocalset_singer").scored == "recordings"


@pytest.mark.parametrize("split", ["valid", "test"])
def test_clips_of_one_song_are_scored_by_the_mean_of_all_their_logits(split):
    """The clips of three songs in turn, and one clip by itself; MARBLE's groups of `ori_uid`."""
    data, table = toy_data()
    outputs = np.random.default_rng(2).normal(size=(len(table.rows), CLASSES)).astype(np.float32)
    table = replace(table, rows=outputs[:, None])
    probe = SimpleNamespace(outputs=lambda features: features[0])
    clips = [
        replace(r, ensemble="" if i == 4 else f"song {i % 3}", target=i % 3) for i, r in enumerate(data.split(split))
    ]
    groups: dict[str, list] = {}
    for clip in clips:
        groups.setdefault(clip.ensemble or clip.id, []).append(clip)
    expected = {}
    for name, members in groups.items():
        rows = [outputs[start + i] for start, count in (table.spans[r.id] for r in members) for i in range(count)]
        expected[name] = (np.mean(rows, axis=0), members[0].target)
    others = [r for r in data.recordings if r.split != split]
    chunks = ChunkData("classification", data.with_recordings([*others, *clips]), table)
    predictions = chunks.predict(probe, split)
    assert list(predictions.ids) == list(expected) and len(expected) == 4
    np.testing.assert_allclose(predictions["output"], [mean for mean, _ in expected.values()], rtol=1e-5, atol=1e-6)
    assert predictions["target"].tolist() == [target for _, target in expected.values()]
    if split == "valid":
        score, loss = chunks.validate(lambda features: features)
        means = torch.tensor(np.stack([mean for mean, _ in expected.values()]))
        targets = torch.tensor([target for _, target in expected.values()])
        assert float(score) == pytest.approx(float((means.argmax(1) == targets).double().mean()))
        assert float(loss) == pytest.approx(float(F.cross_entropy(means, targets)), rel=1e-5)


def count_matches(reference: np.ndarray, estimate: np.ndarray, tolerance: float) -> int:
    """Greedy matching in time order, which is a largest one for events on a line."""
    matched = position = 0
    for time in reference:
        while position < len(estimate) and estimate[position] < time - tolerance:
            position += 1
        if position < len(estimate) and estimate[position] <= time + tolerance:
            matched, position = matched + 1, position + 1
    return matched


def test_beats_of_marble_v1_pool_counts_at_70_ms():
    rng = np.random.default_rng(0)
    references = [np.sort(rng.uniform(0, 30, n)) for n in (10, 60, 25)]
    estimates = [np.sort(np.concatenate([r + rng.normal(0, 0.05, len(r)), rng.uniform(0, 30, 7)])) for r in references]
    matched = sum(count_matches(r, e, 0.07) for r, e in zip(references, estimates, strict=True))
    precision, recall = matched / sum(map(len, estimates)), matched / sum(map(len, references))
    times = [[BeatTimes(beats, beats[:0]) for beats in side] for side in (references, estimates)]
    found = frame_predictions("beats", "abc", *times)
    pooled = scores("beats", found, beat_counts="pooled")["beat_f1_70ms"]
    assert pooled == pytest.approx(2 * precision * recall / (precision + recall))
    assert pooled != pytest.approx(scores("beats", found)["beat_f1_70ms"])
    assert MARBLE_V1.beat_counts == "pooled" and STRICT.beat_counts == "recording"


class BeatFeatures:
    """Two "layers" that give away the class of each frame, the second with errors."""

    num_layers, dim = 1, 3

    def __init__(self, recordings: list[Recording], rate: float) -> None:
        self.recordings, self.rate = recordings, rate

    def count(self, recording):
        return 1000

    def frames(self, recording, start, count, device="cpu", alone=False):
        times = (start + torch.arange(count)) / self.rate
        near = (times[:, None] - torch.from_numpy(recording.target.beats)).abs().min(dim=1).values < 0.02
        return F.one_hot(near.long(), 3).float()[None]


def test_the_best_epoch_of_the_beat_task_has_the_highest_f1():
    beats = np.arange(0.5, 19.5, 0.5)
    recordings = [Recording(str(i), None, "valid", BeatTimes(beats + 0.02 * i, beats[:0])) for i in range(2)]
    data = TaskData(("none", "beat", "downbeat"), tuple(recordings))
    features = BeatFeatures(recordings, 50.0)
    beat_data = FrameClassData(data, features, 50, 1, protocol=MARBLE_V1)
    sharp, blind = 8 * torch.eye(3), torch.tensor([[8.0, 0, 0]] * 3)
    predicted, losses = beat_data.validate(lambda x: torch.stack([x[0] @ sharp, x[0] @ blind]))
    assert predicted[0] > 0.95 and predicted[1] < 0.2
    by_loss, _ = FrameClassData(data, features, 50, 1).validate(lambda x: torch.stack([x[0] @ sharp, x[0] @ blind]))
    torch.testing.assert_close(by_loss, -losses)
    assert MARBLE_V1.beat_selection == "f1" and STRICT.beat_selection == "loss"


def test_marble_v2_takes_its_own_windows_and_drops_short_ends():
    encoder = HandmadeEncoder("chroma", "cpu")
    emotion = FeatureRequest.of(get_task("emomusic"), MARBLE_V2, encoder)
    assert (emotion.window, emotion.shortest, emotion.first_seconds) == (15.0, 12.0, None)
    genre = FeatureRequest.of(get_task("gtzan_genre"), MARBLE_V2, encoder)
    assert (genre.window, genre.shortest) == (30.2, pytest.approx(24.16))
    settings = EvaluationSettings(protocol="marble-v2")
    assert settings.probe_settings(get_task("mtg_genre")).max_epochs == 20
    key = settings.probe_settings(get_task("giantsteps_key"))
    assert (key.tested_epoch, key.plateau_factor, key.max_epochs) == ("last", 0.1, 50)


def test_marble_v2_fills_up_the_last_chunk_before_it_is_normalized(normalizing_checkpoint, tmp_path):
    """A clip of GTZAN has 30.013 s, MARBLE v2's chunk 30.2 s."""
    encoder = open_encoder(str(normalizing_checkpoint), "cpu")
    request = FeatureRequest.of(get_task("gtzan_genre"), MARBLE_V2, encoder)
    samples = np.tile(note(60, 3.0013, "string", 24000), 10)
    clip = Recording("a", write(tmp_path / "a.wav", samples, 24000), "train", 0)
    (window,) = request.windows(clip)
    assert len(window.samples) == round(30.2 * 24000) and window.end == pytest.approx(len(samples) / 24000)
    filled = np.pad(read_audio(clip.path, 24000), (0, round(30.2 * 24000) - len(samples)))
    normal = (filled - filled.mean()) / np.sqrt(filled.var() + 1e-7)
    ((_, rows),) = recording_rows(request, [clip], EvaluationSettings(), {})
    np.testing.assert_allclose(rows, plain_features(encoder.model, [normal]), atol=2e-4)


def test_marble_v1_takes_whole_clips_of_gtzan_and_whole_chunks_of_giantsteps(song, normalizing_checkpoint):
    encoder = open_encoder(str(normalizing_checkpoint), "cpu")
    genre, key = (FeatureRequest.of(get_task(name), MARBLE_V1, encoder) for name in ("gtzan_genre", "giantsteps_key"))
    samples = read_audio(song.path, 24000)
    (whole,) = genre.windows(song)
    np.testing.assert_allclose(
        whole.samples, (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7), rtol=0, atol=1e-5
    )
    (window,) = key.windows(song)  # the last 3.4 s are dropped
    np.testing.assert_array_equal(window.samples, samples[: 30 * 24000])
    assert (genre.clip_normalization, key.clip_normalization) == ("none", "clip")


def test_marble_v2_keeps_the_last_epoch():
    data, table = toy_data()
    settings = EvaluationSettings(protocol="marble-v2").probe_settings(get_task("giantsteps_key"))
    settings = replace(settings, hidden_size=16, patience=3)
    chunks = ChunkData("classification", data, table, "cpu", MARBLE_V2)
    (last,) = train_grid(chunks, grid([1], [3e-2], [0]), settings)
    (best,) = train_grid(chunks, grid([1], [3e-2], [0]), replace(settings, tested_epoch="best"))
    (longer,) = train_grid(chunks, grid([1], [3e-2], [0]), replace(settings, max_epochs=last.epochs, patience=99))
    assert last.best_epoch == last.epochs == best.epochs == best.best_epoch + 4
    assert last.score <= best.score
    torch.testing.assert_close(last.weights, longer.weights)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_results_list_every_choice_and_difference(name, miniature, fast, tmp_path):
    settings = replace(fast(max_epochs=2, protocol=name), probe=None, max_epochs=2)
    results = evaluate("emomusic", miniature("emomusic"), "chroma", settings=settings, cache_dir=tmp_path, device="cpu")
    protocol = results["protocol"]
    assert protocol["name"] == name and protocol["differences"] == list(get_protocol(name).differences)
    for choice in ("pooling", "standardize", "normalize", "batch", "input_in_average", "beat_counts", "scored"):
        assert choice in protocol
    assert protocol["first_seconds"] == (30.0 if name == "marble-v1" else None)
    assert protocol["values"] == (24 if name == "strict" else 12)


def test_automatic_precision_is_float32_under_the_marble_protocols(tmp_path, monkeypatch, miniature):
    asked = []

    def noted(*arguments):
        asked.append(arguments[4])
        raise ValueError("enough")

    monkeypatch.setattr("mert_hf.evaluation.probing.runner.chosen_encoder", noted)
    for name in PROTOCOLS:
        for dtype in ("auto", "bfloat16", None):
            with pytest.raises(ValueError, match="enough"):
                settings = EvaluationSettings(protocol=name)
                evaluate("emomusic", miniature("emomusic"), "x", None, settings, cache_dir=tmp_path, dtype=dtype)
    assert asked == ["auto", "bfloat16", None, "float32", "bfloat16", None, "float32", "bfloat16", None]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'marble' is not known. Choose one of strict, marble-v1, marble-v2"):
        EvaluationSettings(protocol="marble")
    with pytest.raises(ValueError, match="pooling='max' must be one of mean, mean_std"):
        EvaluationSettings(pooling="max")


@pytest.mark.parametrize("order", [("marble-v1", "strict"), ("strict", "marble-v1")])
def test_an_encoder_used_twice_gives_what_fresh_ones_give(order, normalizing_checkpoint, fast, tmp_path):
    """Normalization belongs to a call: rows of one protocol never reach the store of another."""
    lines = ["file_name,pitch,split"]
    for index in range(8):
        lines.append(f"{index}.wav,{60 + 6 * (index % 2)},{('train', 'train', 'valid', 'test')[index // 2]}")
        samples = note(60 + 6 * (index % 2), 3.0)
        write(tmp_path / f"{index}.wav", samples * np.linspace(0.1, 1, len(samples), dtype=np.float32))
    (tmp_path / "metadata.csv").write_text("\n".join(lines))

    def rows(encoder, protocol: str, cache) -> dict[str, np.ndarray]:
        settings = fast(protocol=protocol, pooling="mean", store_dtype="float32", layers=(0,), window=1.0, max_epochs=1)
        options = {"settings": settings, "cache_dir": tmp_path / cache, "target": "pitch"}
        evaluate("audiofolder", tmp_path, encoder, device="cpu", name="x", **options)
        stores = (tmp_path / cache).glob("features/*/rows.bin")
        return {path.parent.name: np.fromfile(path, np.float32) for path in stores}

    fresh = [rows(open_encoder(str(normalizing_checkpoint), "cpu"), protocol, protocol) for protocol in order]
    used = open_encoder(str(normalizing_checkpoint), "cpu")
    both = [rows(used, protocol, "both") for protocol in order][-1]
    assert both.keys() == fresh[0].keys() | fresh[1].keys() and len(both) == 2
    for name, expected in (fresh[0] | fresh[1]).items():
        np.testing.assert_array_equal(both[name], expected)
    one, other = both.values()
    assert one.shape == other.shape and np.abs(one - other).max() > 5e-5  # they were equal when the state leaked
