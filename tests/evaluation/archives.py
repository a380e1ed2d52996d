"""Stubs of the data sets as they are distributed: real folder names, table headers and oddities, empty recordings.

The layouts follow the published archives and repositories: VocalSet 1.1 (Zenodo 1193957), the GTZAN lists of Kereliuk
et al. and the GTZAN-Rhythm annotations, EmoMusic's `songs_info.csv`, GiantSteps' tab-separated tables, MTG-Jamendo's
split files, MagnaTagATune's `annotations_final.csv`, NSynth's `examples.json` and MUSDB18-HQ. Songs and artists are
made up.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from mert_hf.evaluation.tasks.gtzan import GENRES
from mert_hf.evaluation.tasks.vocalset import SINGERS

VOCALSET_CONTEXTS = {
    "arpeggios": "belt breathy fast_forte fast_piano lip_trill slow_forte slow_piano straight vibrato vocal_fry",
    "excerpts": "spoken straight vibrato",
    "long_tones": "forte inhaled messa pp straight trill trillo",
    "scales": "belt breathy fast_forte fast_piano lip_trill slow_forte slow_piano straight vibrato vocal_fry",
}
BEATS_WITHOUT_POSITIONS = ("jazz.00003", "jazz.00009", "jazz.00010", "jazz.00014", "jazz.00018", "jazz.00020")


def touch(path: Path) -> Path:
    """An empty file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def vocalset(root: Path) -> Path:
    """`VocalSet.zip` unpacked: FULL/SINGER/CONTEXT/TECHNIQUE, with its misspelled folder and macOS files."""
    base = root / "FULL"
    for singer in SINGERS:
        short = f"{singer[0]}{singer.removeprefix('female').removeprefix('male')}"
        for context, techniques in VOCALSET_CONTEXTS.items():
            for technique in techniques.split():
                touch(base / singer / context / technique / f"{short}_{context}_{technique}_a.wav")
    touch(base / "female2" / "arpeggios" / "vibrado" / "f2_arpeggios_vibrado_u.wav")
    touch(base / "female2" / "scales" / "vibrato" / "f2_scales_vibrato_a(1).wav")
    touch(base / "male1" / "excerpts" / "vibrato" / "caro_vibrato.wav")
    touch(base / "female1" / "scales" / "belt" / "._f1_scales_belt_a.wav")
    touch(base / ".DS_Store")
    touch(root / "__MACOSX" / "FULL" / "female1" / "scales" / "belt" / "._f1_scales_belt_a.wav")
    for name in (
        "train_singers_technique.txt",
        "test_singers_technique.txt",
        "readme-anon.txt",
        "DataSet_Vocalises.pdf",
    ):
        touch(root / name)
    return root


def gtzan(root: Path, broken: bool = True) -> Path:
    """The common copy of GTZAN (`genres_original`), the filtered lists, and `.beats` files of GTZAN-Rhythm."""
    for split, numbers in {"train": (3, 9, 18, 54), "valid": (1, 10, 20), "test": (2, 14)}.items():
        names = [f"{genre}/{genre}.{number:05d}.wav" for genre in GENRES for number in numbers]
        for name in names:
            touch(root / "Data" / "genres_original" / name)
            beats(root / "rhythm" / "beats", name.split("/")[1].removesuffix(".wav"))
        (root / f"{split}_filtered.txt").write_text("\n".join(names) + "\n")
    doubtful = root / "Data/genres_original/jazz/jazz.00054.wav"  # not a RIFF file in the common copy
    if broken:
        doubtful.write_bytes(b"\x00\x05\x16\x07" * 64)
    else:
        soundfile.write(doubtful, np.zeros(2205, dtype=np.float32), 22050)
    return root


def beats(folder: Path, name: str) -> None:
    """The `.beats` file of a clip."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{0.29 + 0.77 * beat:.3f}" for beat in range(8)]
    if name not in BEATS_WITHOUT_POSITIONS:
        lines = [f"{time}\t{beat % 4 + 1}" for beat, time in enumerate(lines)]
    (folder / f"gtzan_{name.replace('.', '_')}.beats").write_text("\n".join(lines) + "\n")


def emomusic(root: Path) -> Path:
    """`annotations.tar.gz` and `clips_45sec.tar.gz` unpacked, with the padded cells of the real tables."""
    header = "song_id,file_name,Artist,Song title,start of the segment (min.sec),end of the segment (min.sec),Genre,"
    songs, ratings = [f"{header}Mediaeval 2013 set "], ["song_id,mean_arousal,std_arousal,mean_valence,std_valence"]
    for number in range(2, 60):
        kind = "evaluation" if number % 6 == 0 else "development"
        artist = f'"The Sound, of {chr(97 + number % 26)}"\t'
        songs.append(f"{number},{number}.mp3\t,{artist},Song {number}\t,0.15,1.0,Rock\t,{kind}\t")
        ratings.append(f"{number},{3 + number % 5}.1,1.2,{2 + number % 7}.4,0.9")
        touch(root / "clips_45sec" / "clips_45seconds" / f"{number}.mp3")
    (root / "annotations").mkdir()
    (root / "annotations" / "songs_info.csv").write_text("\n".join(songs) + "\n")
    (root / "annotations" / "static_annotations.csv").write_text("\n".join(ratings) + "\n")
    return root


def giantsteps(root: Path) -> Path:
    """Both repositories after `audio_dl.sh`: all columns, rows without a confident key, two spellings of a key."""
    training, test = root / "giantsteps-mtg-key-dataset", root / "giantsteps-key-dataset"
    keys = ["D# minor", "A major", "F minor", "Bb major", "C# minor / E major", "-", "Db minor"]
    rows, artists = ["ID\tMANUAL KEY\tC\tCOMMENT"], ["ID\tARTIST\tSONG TITLE\tMIX\tLABEL\tBP GENRE\tBP BPM\tBP KEY"]
    for number in range(140):
        track, key = 5061 + number, keys[number % 7]
        rows.append(f"{track}\t{key}\t{'0' if key == '-' else '2'}{chr(9) + 'modulates' if number % 9 == 0 else ''}")
        artists.append(
            f"{track}\tArtist {number}, Guest {number % 40}\tTitle\tOriginal Mix\tLabel\tTrance\t132\tD# major"
        )
        touch(training / "audio" / f"{track}.LOFI.mp3")
    (training / "annotations").mkdir()
    (training / "annotations" / "annotations.txt").write_text("\n".join(rows) + "\n")
    (training / "annotations" / "beatport_metadata.txt").write_text("\n".join(artists) + "\n")
    for number, key in enumerate(["E minor", "Ab major", "G# minor", "D major"]):
        touch(test / "audio" / f"100{number}.LOFI.mp3")
        path = touch(test / "annotations" / "key" / f"100{number}.LOFI.key")
        path.write_text(f"{key}\t\n" if number % 2 else key)
    return root


def mtg_jamendo(root: Path, low: bool = False) -> Path:
    """The repository's split-0 files for the mood and theme tags, and the audio folders of its download script."""
    number = 940
    for split, size in {"train": 6, "validation": 3, "test": 3}.items():
        lines = ["TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"]
        for position in range(size):
            number += 8
            path = f"{number % 100:02d}/{number}.mp3"
            tags = ["mood/theme---background"] + ["mood/theme---film", "mood/theme---melodic"] * (position % 2)
            lines.append("\t".join([f"track_{number:07d}", "artist_000087", "album_000149", path, "212.7", *tags]))
            touch(
                root
                / "raw_30s"
                / ("audio-low" if low else "audio")
                / (path.replace(".mp3", ".low.mp3") if low else path)
            )
        table = root / "mtg-jamendo-dataset" / "data" / "splits" / "split-0" / f"autotagging_moodtheme-{split}.tsv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("\n".join(lines) + "\n")
    return root


def magnatagatune(root: Path) -> Path:
    """`annotations_final.csv` with quoted cells, the three empty clips, and the 16 folders of `mp3.zip`."""
    tags = [f"tag {index}" for index in range(60)]
    lines = ["\t".join(f'"{cell}"' for cell in ("clip_id", *tags, "mp3_path"))]
    names = [
        f"{digit}/artist-album-0{digit}-title-{start}-{start + 29}.mp3"
        for digit in "0123456789abcdef"
        for start in (0, 29)
    ]
    for number, name in enumerate([*names, "6/norine_braun-now_and_zen-08-gently-117-146.mp3"]):
        flags = [str(int((number + index) % (index + 2) == 0)) for index in range(60)]
        lines.append("\t".join(f'"{cell}"' for cell in (str(number), *flags, name)))
        touch(root / name)
    (root / "annotations_final.csv").write_text("\n".join(lines) + "\n")
    return root


def nsynth(root: Path) -> Path:
    """The three `.jsonwav` archives unpacked, with every field of a note."""
    for split in ("train", "valid", "test"):
        notes = {}
        for pitch in (21, 60, 108):
            name = f"keyboard_acoustic_00{pitch % 7}-{pitch:03d}-075"
            notes[name] = {
                "note": 278915,
                "sample_rate": 16000,
                "instrument_family": 4,
                "qualities": [0] * 10,
                "instrument_source_str": "acoustic",
                "note_str": name,
                "instrument_family_str": "keyboard",
                "instrument_str": name.split("-")[0],
                "pitch": pitch,
                "instrument": 327,
                "velocity": 75,
                "instrument_source": 0,
                "qualities_str": [],
            }
            touch(root / f"nsynth-{split}" / "audio" / f"{name}.wav")
        (root / f"nsynth-{split}" / "examples.json").write_text(json.dumps(notes))
    return root


def musdb18(root: Path) -> Path:
    """`musdb18hq.zip` unpacked, with two of the validation songs."""
    songs = {
        "train": ["A Classic Education - NightOwl", "ANiMAL - Rockshow", "Leaf - Summerghost"],
        "test": ["AM Contra - Heart Peripheral"],
    }
    for part, names in songs.items():
        for name in names:
            for stem in ("mixture", "vocals", "drums", "bass", "other"):
                touch(root / part / name / f"{stem}.wav")
    return root
