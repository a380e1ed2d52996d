"""Miniature data sets in the official layout of each task, with labels that can be heard."""

from __future__ import annotations

import hashlib
import json
from itertools import count
from pathlib import Path

import numpy as np

from mert_hf.evaluation.tasks.gtzan import GENRES
from mert_hf.evaluation.tasks.musdb18 import STEMS
from mert_hf.evaluation.tasks.vocalset import TEST_SINGERS

from .synthesis import INSTRUMENTS, clicks, note, sequence, tune, write

SPLIT_SIZES = {"train": 6, "valid": 2, "test": 2}


def nsynth(root: Path) -> Path:
    """Notes of three families and four pitches; the octave differs between families and parts."""
    families = {"string": "string", "organ": "organ", "mallet": "mallet"}
    for split, sizes in {"train": 4, "valid": 2, "test": 2}.items():
        folder = root / f"nsynth-{split}"
        examples = {}
        for family, instrument in families.items():
            for pitch in (55, 58, 61, 64):
                for take in range(sizes):
                    name = f"{family}_synthetic_{take:03d}-{pitch:03d}-100"
                    detuned = pitch + 0.05 * np.sin(7 * take + pitch)
                    write(folder / "audio" / f"{name}.wav", note(detuned, 1.2 + 0.1 * take, instrument))
                    examples[name] = {"pitch": pitch, "instrument_family_str": family}
        (folder / "examples.json").write_text(json.dumps(examples))
    return root


def gtzan(root: Path) -> Path:
    """Four genres, distinguished by tempo, register and instrument, with beats as JAMS."""
    rng = np.random.default_rng(0)
    sounds = {"blues": (48, "string"), "disco": (64, "mallet"), "jazz": (56, "organ"), "metal": (72, "flute")}
    numbers = {genre: count() for genre in GENRES}
    for split, size in SPLIT_SIZES.items():
        lines = []
        for genre, (register, instrument) in sounds.items():
            for _ in range(size):
                name = f"{genre}.{next(numbers[genre]):05d}"
                beats = np.arange(0.2 + 0.3 * rng.random(), 5.7, 60 / rng.uniform(90, 150))
                audio = clicks(beats, beats[::4], 6.0)
                line = sequence(register + rng.integers(0, 5, 24), 0.25, instrument)
                write(root / "genres" / genre / f"{name}.wav", 0.7 * audio + 0.2 * line)
                _write_jams(root / "jams" / f"{name}.wav.jams", beats)
                lines.append(f"{genre}/{name}.wav")
        (root / f"{split}_filtered.txt").write_text("\n".join(lines) + "\n")
    return root


def _write_jams(path: Path, beats: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    annotations = [
        {
            "namespace": "beat",
            "sandbox": {"annotation_type": kind},
            "data": [{"time": float(time), "duration": 0.0, "value": 1, "confidence": None} for time in times],
        }
        for kind, times in (("beat", beats), ("downbeat", beats[::4]))
    ]
    path.write_text(json.dumps({"annotations": annotations, "file_metadata": {}}))


def giantsteps(root: Path) -> Path:
    """Tunes in four keys; three tracks an artist, two of them out of use (low confidence, two keys)."""
    rng = np.random.default_rng(1)
    keys = [(0, "major", "C major"), (6, "minor", "F# minor"), (3, "major", "Eb major"), (9, "minor", "A minor")]
    training, test = root / "giantsteps-mtg-key-dataset-master", root / "giantsteps-key-dataset-master"
    rows, metadata = [], []
    for number in range(40):
        tonic, mode, name = keys[number % 4]
        track, artist = f"1{number:04d}", _artist(valid=number >= 32, number=number)
        write(training / "audio" / f"{track}.LOFI.mp3", tune(tonic, mode, rng, 2.0))
        confidence, shown = ("1", name) if number == 4 else ("2", f"{name} / G major" if number == 5 else name)
        rows.append(f"{track}\t{shown}\t{confidence}\t")
        metadata.append(f"{track}\t{artist}\tTrack")
    (training / "annotations").mkdir()
    (training / "annotations" / "annotations.txt").write_text("ID\tMANUAL KEY\tC\tCOMMENT\n" + "\n".join(rows))
    (training / "annotations" / "beatport_metadata.txt").write_text("ID\tARTIST\tTITLE\n" + "\n".join(metadata))
    for number in range(8):
        tonic, mode, name = keys[number % 4]
        write(test / "audio" / f"2{number:04d}.LOFI.mp3", tune(tonic, mode, rng, 2.0))
        path = test / "annotations" / "key" / f"2{number:04d}.LOFI.key"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    return root


def _artist(valid: bool, number: int) -> str:
    """A name whose SHA-1 falls to validation or to training."""
    for attempt in count():
        name = f"Artist {number} {attempt}"
        if (int(hashlib.sha1(name.lower().encode()).hexdigest(), 16) % 116 >= 100) == valid:
            return name


def magnatagatune(root: Path) -> Path:
    """Clips with one or two of four instruments as tags, and a tag that no test clip has."""
    rng = np.random.default_rng(2)
    names = list(INSTRUMENTS)
    lines = ["\t".join(f'"{name}"' for name in ["clip_id", *names, "never in test", "mp3_path"])]
    for number in range(48):
        chosen = rng.choice(4, 1 + number % 2, replace=False)
        digit = "0123456789ab"[number % 12] if number < 28 else "c" if number < 38 else "def"[number % 3]
        path = f"{digit}/artist-album-{number:02d}-title-0-29.mp3"
        audio = sum(note(rng.integers(50, 70), 1.5, names[index]) for index in chosen)
        write(root / "mp3" / path, audio)
        flags = [str(int(index in chosen)) for index in range(4)] + [str(int(number == 0))]
        lines.append("\t".join(f'"{cell}"' for cell in [str(number), *flags, path]))
    (root / "annotations_final.csv").write_text("\n".join(lines) + "\n")
    return root


def mtg_jamendo(root: Path) -> Path:
    """Tracks tagged by instrument and register, in the files of all four subsets."""
    rng = np.random.default_rng(3)
    names, registers = list(INSTRUMENTS), {"low": 45, "high": 70}
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    numbers = count()
    for split, size in {"train": 24, "validation": 8, "test": 8}.items():
        lines = [header]
        for _ in range(size):
            number = next(numbers)
            instrument, register = names[number % 4], list(registers)[number // 4 % 2]
            path = f"{number % 100:02d}/{number}.mp3"
            pitches = registers[register] + rng.integers(0, 8, 12)
            write(root / "audio" / path, sequence(pitches, 0.25, instrument))
            tags = [f"instrument---{instrument}", f"genre---{register}"]
            lines.append("\t".join([f"track_{number}", "artist_1", "album_1", path, "3.0", *tags]))
        for subset in ("instrument", "moodtheme", "genre", "top50tags"):
            table = root / "data/splits/split-0" / f"autotagging_{subset}-{split}.tsv"
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_text("\n".join(lines) + "\n")
    return root


def emomusic(root: Path) -> Path:
    """Clips whose register makes the arousal and whose instrument the valence."""
    rng = np.random.default_rng(4)
    songs = ["song_id,file_name,Artist,Song title,Genre,Mediaeval 2013 set"]
    ratings = ["song_id, mean_arousal, std_arousal, mean_valence, std_valence"]
    for number in range(2, 62):
        arousal, valence = rng.uniform(1, 9), rng.choice([2.0, 8.0]) + rng.normal(0, 0.2)
        instrument = "flute" if valence > 5 else "string"
        pitches = 45 + 4 * arousal + rng.integers(0, 3, 14)
        write(root / "clips_45seconds" / f"{number}.mp3", sequence(pitches, 0.25, instrument))
        split = "evaluation" if number >= 50 else "development"
        artist = "".join("abcdefghij"[int(digit)] for digit in str(number))
        songs.append(f'{number},{number}.mp3,"Singer, {artist}",Title {number},Rock, {split}')
        ratings.append(f"{number}, {arousal:.3f}, 1.0, {valence:.3f}, 1.0")
    (root / "annotations").mkdir()
    (root / "annotations" / "songs_info.csv").write_text("\n".join(songs) + "\n")
    (root / "annotations" / "static_annotations.csv").write_text("\n".join(ratings) + "\n")
    return root


def vocalset(root: Path) -> Path:
    """Singers distinguished by register, techniques by overtones and decay; long recordings make two pieces of 3 s."""
    rng = np.random.default_rng(5)
    singers = ["female1", "female3", TEST_SINGERS[0], "male1", "female4", TEST_SINGERS[2], "male2", "male4"]
    techniques = {"straight": "organ", "vibrato": "flute", "trillo": "mallet", "fast_forte": "string"}
    for index, singer in enumerate(singers):
        for technique, instrument in techniques.items():
            for take in range(3):
                pitches = 48 + 3 * index + rng.integers(0, 2, 18 if index == take else 6)
                name = f"{singer[0]}{singer[-1]}_arpeggios_{technique}_{'aeio'[take]}.wav"
                audio = sequence(pitches, 0.25, instrument)
                write(root / "FULL" / singer / "arpeggios" / technique / name, audio)
    write(root / "FULL" / "female1" / "scales" / "vibrato" / "caro_vibrato.wav", note(60, 1.0))
    (root / "FULL" / "female1" / ".DS_Store").write_text("")
    return root


def musdb18(root: Path) -> Path:
    """Songs of four stems that hardly share frequencies, the official names of two validation songs among them."""
    rng = np.random.default_rng(6)
    names = [f"Band {number} - Song" for number in range(4)] + ["Actions - One Minute Smile", "Young Griffo - Pennies"]
    songs = [("train", name) for name in names] + [("test", f"Test {number} - Song") for number in range(2)]
    for part, name in songs:
        seconds = 3.0
        beats = np.arange(0.1, seconds, rng.uniform(0.4, 0.6))
        stems = {
            "vocals": sequence(72 + rng.integers(0, 8, 6), 0.5, "flute"),
            "drums": clicks(beats, beats[:0], seconds) * 0.8,
            "bass": sequence(36 + rng.integers(0, 5, 3), 1.0, "flute"),
            "other": sequence(57 + rng.integers(0, 5, 6), 0.5, "string") * 0.7,
        }
        for stem in STEMS:
            write(root / part / name / f"{stem}.wav", np.stack([stems[stem]] * 2, axis=1))
        write(root / part / name / "mixture.wav", np.stack([sum(stems.values())] * 2, axis=1))
    return root
