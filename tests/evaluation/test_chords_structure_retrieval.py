"""Chord, boundary and retrieval metrics against mir_eval itself and against definitions written out."""

from __future__ import annotations

import unicodedata

import mir_eval
import numpy as np
import pytest

from mert_hf.evaluation.metrics.by_kind import scores
from mert_hf.evaluation.metrics.frames import chord_segments, find_boundaries, frame_predictions
from mert_hf.evaluation.metrics.retrieval import query_scores
from mert_hf.evaluation.tasks import structure
from mert_hf.recordings.frames import CHORD_LABELS, IGNORED, boundary_classes, chord_class, chord_classes
from mert_hf.recordings.recordings import Segments


def chord_metrics(references, estimates) -> dict[str, float]:
    ids = tuple(map(str, range(len(references))))
    return scores("chords", frame_predictions("chords", ids, references, estimates))


def boundary_metrics(references, estimates) -> dict[str, float]:
    ids = tuple(map(str, range(len(references))))
    return scores("structure", frame_predictions("structure", ids, references, estimates))


SONG = Segments(np.array([[0.0, 2.0], [2.0, 5.0], [5.0, 6.0], [6.0, 8.0]]), ("N", "C:maj7", "G:sus4", "A:min/b3"))


@pytest.mark.parametrize(
    "label, name",
    [
        ("C", "C:maj"),
        ("Db:7", "C#:maj"),
        ("F#:min7/5", "F#:min"),
        ("B:maj/3", "B:maj"),
        ("N", "N"),
        ("A:minmaj7", "A:min"),
    ],
)
def test_chords_become_their_triads(label, name):
    assert CHORD_LABELS[chord_class(label)] == name


@pytest.mark.parametrize("label", ["C:sus2", "D:dim", "E:aug", "F:5", "X"])
def test_other_chords_are_ignored(label):
    assert chord_class(label) == IGNORED


def test_unreadable_chords_are_refused():
    with pytest.raises(ValueError, match="The chord 'H:maj' is not in mir_eval's notation"):
        chord_class("H:maj")


def test_chord_classes_by_hand():
    n, c, a = CHORD_LABELS.index("N"), CHORD_LABELS.index("C:maj"), CHORD_LABELS.index("A:min")
    assert chord_classes(SONG, 9, 1.0).tolist() == [n, n, c, c, c, IGNORED, a, a, n]
    assert chord_classes(SONG, 3, 2.0, start=1.5).tolist() == [n, c, c]


def test_chord_metrics_equal_mir_eval():
    estimate = Segments(np.array([[0.0, 2.5], [2.5, 7.0], [7.0, 7.5]]), ("C:maj", "C:maj", "A:min"))
    expected = mir_eval.chord.evaluate(SONG.intervals, list(SONG.labels), estimate.intervals, list(estimate.labels))
    found = chord_metrics([SONG], [estimate])
    for name in ("majmin", "root", "mirex"):
        assert found[f"chord_{name}"] == pytest.approx(expected[name], abs=1e-12)
    # two songs are weighted by duration: 6 s of 7 are right under "majmin", 2.5 + 0.5 of 7 before
    both = chord_metrics([SONG, SONG], [estimate, SONG])
    assert both["chord_root"] == pytest.approx((found["chord_root"] + 1) / 2)


def test_frames_become_segments():
    classes = np.array([24, 24, 0, 0, 0, 21])
    segments = chord_segments(classes, 2.0)
    assert segments.labels == ("N", "C:maj", "A:min")
    np.testing.assert_allclose(segments.intervals, [[0, 0.75], [0.75, 2.25], [2.25, 2.75]])


def test_frames_of_a_song_score_nearly_one():
    frames = chord_classes(SONG, 800, 100.0)
    frames[frames == IGNORED] = 0
    found = chord_metrics([SONG], [chord_segments(frames, 100.0)])
    assert found["chord_majmin"] == pytest.approx(1.0, abs=0.01)


def test_boundary_frames_by_hand():
    parts = Segments(np.array([[0.0, 4.0], [4.0, 9.0]]), ("a", "b"))
    assert boundary_classes(parts, 10, 1.0).tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0, 1]


def test_boundaries_are_found_and_scored_as_mir_eval_does():
    rate, times = 10.0, [0.0, 21.0, 43.5, 70.0]
    probabilities = np.full(700, 0.02)
    for time in times[1:-1]:
        probabilities[round(time * rate) - 3 : round(time * rate) + 4] = [0.1, 0.3, 0.5, 0.6, 0.5, 0.3, 0.1]
    found = find_boundaries(probabilities, rate)
    np.testing.assert_allclose(found, times)
    parts = Segments(np.array([[0.0, 20.0], [20.0, 43.6], [43.6, 70.0]]), ("a", "b", "c"))
    estimate = np.stack([found[:-1], found[1:]], axis=1)
    for name, window in (("500ms", 0.5), ("3s", 3.0)):
        expected = mir_eval.segment.detection(parts.intervals, estimate, window=window, trim=True)[2]
        assert boundary_metrics([parts], [found])[f"boundary_f1_{name}"] == pytest.approx(expected)
    assert boundary_metrics([parts], [found]) == {"boundary_f1_500ms": 0.5, "boundary_f1_3s": 1.0}
    assert boundary_metrics([parts], [np.array([0.0, 70.0])])["boundary_f1_3s"] == 0.0


def test_retrieval_equals_the_definition():
    generator = np.random.default_rng(0)
    embeddings, works = generator.standard_normal((30, 8)), generator.integers(0, 12, 30)
    precisions, firsts = [], []
    for query in range(30):
        others = [index for index in range(30) if index != query]
        cosines = [
            embeddings[query] @ embeddings[i] / np.linalg.norm(embeddings[query]) / np.linalg.norm(embeddings[i])
            for i in others
        ]
        ranked = [others[position] for position in np.argsort(cosines)[::-1]]
        hits = [position for position, index in enumerate(ranked, 1) if works[index] == works[query]]
        if hits:
            precisions.append(np.mean([count / position for count, position in enumerate(hits, 1)]))
            firsts.append(hits[0] == 1)
    found = query_scores(embeddings, works)
    assert np.nanmean(found["average_precision"]) == pytest.approx(np.mean(precisions))
    assert np.nanmean(found["top1"]) == pytest.approx(np.mean(firsts))


def test_deformed_queries_search_the_recordings_as_they_are():
    generator = np.random.default_rng(1)
    embeddings, works = generator.standard_normal((12, 6)), np.arange(12) // 3
    queries = embeddings + generator.standard_normal((12, 6))
    expected = []
    for query in range(12):
        others = [index for index in range(12) if index != query]
        ranked = sorted(others, key=lambda i: -queries[query] @ embeddings[i] / np.linalg.norm(embeddings[i]))
        hits = [position for position, index in enumerate(ranked, 1) if works[index] == works[query]]
        expected.append(np.mean([count / position for count, position in enumerate(hits, 1)]))
    np.testing.assert_allclose(query_scores(embeddings, works, queries)["average_precision"], expected)


def test_perfect_retrieval_and_nothing_to_retrieve():
    works = np.array([0, 0, 1, 1, 2])
    embeddings = np.eye(3)[works] + 0.01
    assert query_scores(embeddings, works)["average_precision"].tolist()[:4] == [1.0] * 4
    assert np.isnan(query_scores(embeddings, works)["top1"][4])
    with pytest.raises(ValueError, match="nothing to retrieve"):
        query_scores(np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match="do not fit"):
        query_scores(np.eye(3), np.arange(4))
    with pytest.raises(ValueError, match="need the same number"):
        chord_metrics([], [])
    with pytest.raises(ValueError, match="need the same number"):
        boundary_metrics([], [])


def test_annotations_in_another_unicode_normalization(tmp_path):
    listed, stored = (unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD"))
    for folder in ("audio", "annotations"):
        (tmp_path / folder).mkdir()
    for number, split in enumerate(("train", "valid", "test")):
        (tmp_path / "audio" / f"{stored}{number}.wav").touch()
        (tmp_path / "annotations" / f"{listed}{number}.lab").write_text("0.0 1.0 verse\n1.0 2.0 chorus\n")
        (tmp_path / f"{split}.txt").write_text(f"{listed}{number}\n")
    found = structure.read(tmp_path)
    assert [recording.split for recording in found.recordings] == ["train", "valid", "test"] and not found.skipped
