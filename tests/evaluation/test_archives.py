"""The readers on stubs of the data sets as they are distributed, oddities included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mert_hf.evaluation.tasks import get_task
from mert_hf.evaluation.tasks.gtzan import GENRES, NOTES, clip_names
from mert_hf.recordings.recordings import SPLITS, Recording, TaskData

from . import archives


def counts(data) -> list[int]:
    return [len(data.split(split)) for split in SPLITS]


@pytest.mark.parametrize("name", ["vocalset_technique", "vocalset_singer"])
def test_vocalset_leaves_out_unknown_folders_with_one_warning(name, tmp_path, caplog):
    data = get_task(name).load(archives.vocalset(tmp_path))
    assert data.skipped == ("female2/arpeggios/vibrado/",)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "female2/arpeggios/vibrado/" in warnings[0]
    assert not any("vibrado" in recording.id or "/._" in recording.id for recording in data.recordings)
    assert all(counts(data))


def test_vocalset_has_the_techniques_and_singers_of_its_paper(tmp_path):
    root = archives.vocalset(tmp_path)
    technique, singer = (get_task(f"vocalset_{kind}").load(root) for kind in ("technique", "singer"))
    assert {recording.target for recording in technique.recordings} == set(range(10))
    assert {recording.target for recording in singer.recordings} == set(range(20))
    # 30 folders a singer, of which 7 + 3 + 5 + 6 are ways of singing
    assert len(singer.recordings) == 20 * 30
    assert len(technique.recordings) == 20 * (6 + 3 + 4 + 6)


def test_gtzan_leaves_out_the_broken_clip_of_the_common_copy(tmp_path, caplog):
    data = get_task("gtzan_genre").load(archives.gtzan(tmp_path))
    assert counts(data)[0] == 10 * 4 - 1
    assert "jazz/jazz.00054" not in {recording.id for recording in data.recordings}
    assert "jazz/jazz.00054 (broken in the common copy)" in caplog.text


def test_gtzan_keeps_that_clip_where_it_can_be_read(tmp_path, caplog):
    data = get_task("gtzan_genre").load(archives.gtzan(tmp_path, broken=False))
    assert counts(data)[0] == 10 * 4 and "left out" not in caplog.text


def test_gtzan_without_that_clip_is_read(tmp_path):
    root = archives.gtzan(tmp_path)
    (root / "Data/genres_original/jazz/jazz.00054.wav").unlink()
    assert counts(get_task("gtzan_genre").load(root))[0] == 10 * 4 - 1


def test_the_built_in_split_of_gtzan_is_that_of_the_published_lists():
    """The hash was computed from the lists; with the 443, 197 and 290 clips of the paper."""
    recordings = [
        Recording(name, Path(name), split, GENRES.index(name.split("/")[0]))
        for split in SPLITS
        for name in clip_names(split)
    ]
    data = TaskData(GENRES, tuple(recordings))
    assert counts(data) == [443, 197, 290] == list(NOTES.counts)
    assert data.manifest_hash == NOTES.manifest


@pytest.mark.parametrize("name", ["gtzan_genre", "gtzan_rhythm"])
def test_gtzan_without_lists_has_the_built_in_split(name, tmp_path):
    root = archives.gtzan(tmp_path)
    for path in root.glob("*_filtered.txt"):
        path.unlink()
    for clip in (clip for split in SPLITS for clip in clip_names(split)):
        archives.touch(root / "Data" / "genres_original" / f"{clip}.wav")
        archives.beats(root / "rhythm" / "beats", clip.split("/")[1])
    assert counts(get_task(name).load(root)) == [442, 197, 290]  # jazz.00054 is broken


def test_a_missing_list_of_gtzan_is_an_error(tmp_path):
    root = archives.gtzan(tmp_path)
    (root / "valid_filtered.txt").unlink()
    with pytest.raises(ValueError, match="There are no GTZAN valid list"):
        get_task("gtzan_genre").load(root)


def test_beats_without_positions_have_no_downbeats(tmp_path):
    data = get_task("gtzan_rhythm").load(archives.gtzan(tmp_path, broken=False))
    found = {recording.id.split("/")[1]: recording.target for recording in data.recordings}
    for name in archives.BEATS_WITHOUT_POSITIONS:
        assert len(found[name].beats) == 8 and len(found[name].downbeats) == 0
    np.testing.assert_allclose(found["jazz.00054"].downbeats, [0.29, 0.29 + 4 * 0.77])


@pytest.mark.parametrize("text", ["", "0.5 1\n1.0\n", "0.5 1 1\n"])
def test_other_beat_files_are_refused(text, tmp_path):
    root = archives.gtzan(tmp_path)
    (root / "rhythm/beats/gtzan_blues_00003.beats").write_text(text)
    with pytest.raises(ValueError, match="the lines must all be"):
        get_task("gtzan_rhythm").load(root)


def test_emomusic_in_the_folder_of_its_archive(tmp_path):
    data = get_task("emomusic").load(archives.emomusic(tmp_path))
    assert sum(counts(data)) == 58 and counts(data)[2] == 9
    first = data.recordings[0]
    assert first.id == "0002" and first.target.tolist() == pytest.approx([4.4, 5.1])


def test_giantsteps_tables(tmp_path):
    data = get_task("giantsteps_key").load(archives.giantsteps(tmp_path))
    assert sum(counts(data)) == 140 * 5 // 7 + 4
    targets = {recording.id: data.labels[recording.target] for recording in data.recordings}
    assert targets["mtg/5061"] == "Eb minor" and targets["giantsteps/1002"] == "Ab minor"
    assert "mtg/5065" not in targets  # two keys


@pytest.mark.parametrize("low", [False, True])
def test_mtg_jamendo_with_full_and_low_quality(low, tmp_path):
    data = get_task("mtg_moodtheme").load(archives.mtg_jamendo(tmp_path, low))
    assert counts(data) == [6, 3, 3] and data.labels[0] == "mood/theme---background"
    assert data.recordings[0].path.name.endswith(".low.mp3") == low


def test_magnatagatune_without_its_empty_clips(tmp_path):
    data = get_task("magnatagatune").load(archives.magnatagatune(tmp_path))
    assert data.skipped == ("6/norine_braun-now_and_zen-08-gently-117-146.mp3 (empty file)",)
    assert counts(data) == [24, 2, 6] and len(data.labels) == 50


def test_nsynth_and_musdb18(tmp_path):
    notes = get_task("nsynth_pitch").load(archives.nsynth(tmp_path / "nsynth"))
    assert counts(notes) == [3, 3, 3] and {recording.target for recording in notes.recordings} == {21, 60, 108}
    assert counts(get_task("nsynth_instrument").load(tmp_path / "nsynth")) == [3, 3, 3]
    assert counts(get_task("musdb18").load(archives.musdb18(tmp_path / "musdb"))) == [1, 2, 1]


@pytest.mark.parametrize("allowed", [2, "2", "20%"])
def test_missing_files_count_against_the_tolerance(allowed, tmp_path, caplog):
    root = archives.mtg_jamendo(tmp_path)
    for name in ("48/948.mp3", "96/996.mp3"):
        (root / "raw_30s/audio" / name).unlink()
    task = get_task("mtg_moodtheme")
    with pytest.raises(ValueError, match=r"2 of 12 listed recordings are missing, and --max-bad-files tolerates 1"):
        task.load(root, "8.4%")
    assert len(task.load(root, allowed).recordings) == 10
    assert "2 of 12 listed recordings are missing and left out" in caplog.text
