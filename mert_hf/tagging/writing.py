"""Values into the tags of a file by mutagen: ID3 (MP3, WAV, AIFF), Vorbis comments (FLAC, Ogg, Opus), MP4; and a log
that restores each file to the byte.

A file is changed as a copy next to it that replaces it when it is complete and its audio is unchanged. Before that, a
line of JSON is written: its path, the SHA-256 of its content before and after, the former tags and the new ones for
people, and the difference. Tags lie before or after the audio, so that the two files are equal when their ends or
their beginnings are put together: the exclusive or of the bytes is almost only zeros, which zlib packs to a thousandth.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from ..utils.files import staged_file
from ..utils.optional import needs_extra
from ..utils.text import printable, unprintable

BLOCK = 1 << 20  # bytes
FREE_FORM = "----:com.apple.iTunes:"
# Tag -> frame of ID3, Vorbis comment, atom of MP4, as MusicBrainz Picard and beets name them.
NAMES = {
    "genre": ("TCON", "genre", "\xa9gen"),
    "mood": ("TMOO", "mood", f"{FREE_FORM}MOOD"),
    "instruments": ("TXXX:INSTRUMENT", "instrument", f"{FREE_FORM}INSTRUMENT"),
    "key": ("TKEY", "initialkey", f"{FREE_FORM}initialkey"),
    "tempo": ("TBPM", "bpm", "tmpo"),
}

Values = Mapping[str, list[str]]
"""Tag -> its texts: several for instruments and moods; a short key such as "Am"; a whole number of beats a minute."""


class TagError(ValueError):
    """A file whose tags cannot be read or written."""


def write_tags(path: str | os.PathLike, values: Values, log: UndoLog, overwrite: bool = False) -> dict[str, list[str]]:
    """Writes tags into a file, or the one that a link leads to, after the log has what restores it.

    Tags that the file has are kept unless `overwrite` is set. What was written is returned, nothing where it has them
    all. Raises TagError where mutagen knows no tags of this format, or the file is damaged.
    """
    place = Path(os.path.realpath(path))
    file = _open(place)
    former = {name: _read(file.tags, name) for name in values}
    wanted = {name: texts for name, texts in values.items() if texts and texts != former[name]}
    wanted = {name: texts for name, texts in wanted.items() if overwrite or not former[name]}
    if not wanted:
        return {}
    with staged_file(place, keep_mode=True) as part:
        shutil.copy2(place, part)
        _save(type(file), part, wanted)
        if audio_digest(part) != audio_digest(place):
            raise TagError(f"{place}: its audio would change with its tags. Nothing was written.")
        log.add(place, part, {name: former[name] for name in wanted}, wanted)
    return wanted


def audio_digest(path: Path) -> str:
    """SHA-256 of the packets of the first audio stream, as the container holds them. Raises TagError without one."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file, av.open(file, metadata_errors="replace") as container:
            for packet in container.demux(container.streams.audio[0]):
                digest.update(packet)
    except (av.FFmpegError, IndexError) as error:
        raise TagError(f"{path}: the audio cannot be read ({error}). It must be readable to be tagged.") from error
    return digest.hexdigest()


def _open(path: Path) -> Any:
    """The file as mutagen has it, with tags of one of the three kinds."""
    with needs_extra("search"):
        import mutagen
    try:
        file = mutagen.File(path)
        if file is not None and file.tags is None:
            file.add_tags()
    except Exception as error:  # mutagen wraps most faults of a file, not all
        raise TagError(f"{path}: its tags cannot be read ({error}). Repair the file, or leave it out.") from error
    if file is None or _kind(file.tags) is None:
        raise TagError(f"{path}: this format has none of the tags that can be written: ID3, Vorbis comments, MP4.")
    return file


def _kind(tags: Any) -> int | None:
    """Which of the names in `NAMES` the tags take."""
    from mutagen._vorbis import VCommentDict
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

    return next((place for place, kind in enumerate((ID3, VCommentDict, MP4Tags)) if isinstance(tags, kind)), None)


def _read(tags: Any, name: str) -> list[str]:
    """The texts of a tag; none where the file does not have it."""
    try:
        value = tags[NAMES[name][_kind(tags)]]
    except KeyError:
        return []
    value = getattr(value, "text", value)
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in value]


def _save(kind: type, path: Path, values: Values) -> None:
    """Writes tags into the file itself; `kind` is mutagen's type of the file, since the name says nothing."""
    from mutagen import id3

    file = kind(path)
    if file.tags is None:
        file.add_tags()
    number = _kind(file.tags)
    for name, texts in values.items():
        key = NAMES[name][number]
        if number == 0:
            frame, _, description = key.partition(":")
            options = {"desc": description} if description else {}
            file.tags.setall(key, [getattr(id3, frame)(encoding=3, text=texts, **options)])
        elif key.startswith(FREE_FORM):
            file.tags[key] = [text.encode() for text in texts]
        else:
            file.tags[key] = [int(text) for text in texts] if key == "tmpo" else texts
    file.save()


class UndoLog:
    """A log of files whose tags were written; what is there stays. The file is made with the first entry."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def add(self, old: Path, new: Path, former: Mapping[str, list[str]], written: Mapping[str, list[str]]) -> None:
        """Adds what makes `old` of `new`, which is about to replace it, and waits until it is on the disk."""
        status = old.stat()
        entry = {
            "path": printable(old),
            "before": file_digest(old),
            "after": file_digest(new),
            "size": status.st_size,
            "changed_ns": status.st_mtime_ns,
            "former": dict(former),
            "written": dict(written),
            **difference(old, new),
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[dict[str, Any]]:
        """The entries, oldest first; a last line that a killed run left unfinished is not one.

        Raises FileNotFoundError where there is no log, and ValueError where it is something else or only a cut line.
        """
        found = []
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
                if "before" not in entry:
                    raise ValueError
                found.append(entry)
            except (ValueError, TypeError):
                if number < len(lines) - 1 or (line and not found):
                    raise ValueError(
                        f"{self.path}, line {number + 1}: not a log of mert-hf tag, or cut off there. Check the name."
                    ) from None
        return found


@dataclass(frozen=True)
class UndoSummary:
    """The outcome of an undo."""

    restored: tuple[str, ...]  # files that have their former bytes again
    unchanged: tuple[str, ...]  # files that had them already
    refused: tuple[str, ...]  # files that are gone or were changed by something else since, and are left as they are

    def text(self) -> str:
        """The summary in a few lines."""
        lines = [f"{len(self.restored)} files restored, {len(self.unchanged)} had their former content"]
        lines += [f"left as it is, since it has changed or is gone: {path}" for path in self.refused]
        return "\n".join(lines)


def undo_tags(log: str | os.PathLike) -> UndoSummary:
    """Restores the files of a log of `mert-hf tag --write` to the bytes that they had, latest entry first.

    Raises:
        FileNotFoundError, ValueError: it is not such a file.
        OSError: a file cannot be written.
    """
    states: dict[str, str] = {}
    for entry in reversed(UndoLog(log).entries()):
        path = Path(unprintable(entry["path"]))
        digest = file_digest(path) if path.is_file() else None
        if digest == entry["after"]:
            with staged_file(path, keep_mode=True) as part:
                restore(path, part, entry)
            os.utime(path, ns=(path.stat().st_atime_ns, entry["changed_ns"]))
            states[entry["path"]] = "restored"
        elif digest == entry["before"]:  # written by no run, or restored by an earlier undo
            states.setdefault(entry["path"], "unchanged")
        else:
            states[entry["path"]] = "refused"
    groups = {state: tuple(path for path, found in states.items() if found == state) for state in states.values()}
    return UndoSummary(*(groups.get(state, ()) for state in ("restored", "unchanged", "refused")))


def restore(new: Path, output: Path, entry: Mapping[str, Any]) -> None:
    """Writes the former content of a file. Raises ValueError where the entry is damaged; nothing is replaced then."""
    delta = zlib.decompress(base64.b64decode(entry["delta"]))
    with open(output, "wb") as target:
        for start, block in _aligned(new, len(delta), entry["aligned"]):
            target.write(_either(block, delta[start : start + len(block)]))
    if file_digest(output) != entry["before"]:
        raise ValueError(f"{new}: its entry in the log is damaged. The file was left as it is.")


def difference(old: Path, new: Path) -> dict[str, str]:
    """`aligned`, where the files are put together, "start" or "end"; `delta`, their exclusive or, packed, in base64."""
    packed = {name: _pack(old, new, name) for name in ("end", "start")}
    shorter = min(packed, key=lambda name: len(packed[name]))
    return {"aligned": shorter, "delta": base64.b64encode(packed[shorter]).decode()}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _pack(old: Path, new: Path, aligned: str) -> bytes:
    packer, parts = zlib.compressobj(1), []
    with open(old, "rb") as file:
        for _, block in _aligned(new, old.stat().st_size, aligned):
            parts.append(packer.compress(_either(file.read(len(block)), block)))
    return b"".join([*parts, packer.flush()])


def _aligned(path: Path, size: int, aligned: str) -> Iterator[tuple[int, bytes]]:
    """Blocks of a file as next to one of `size` bytes: (place there, bytes), zeros where it has none.

    Blocks, since a recording of hours in WAV does not fit the memory several times.
    """
    length = path.stat().st_size
    shift = length - size if aligned == "end" else 0
    with open(path, "rb") as file:
        for start in range(0, size, BLOCK):
            end = min(start + BLOCK, size)
            begin, last = (min(max(place + shift, 0), length) for place in (start, end))
            file.seek(begin)
            block = file.read(last - begin)
            missing = bytes(end - start - len(block))
            yield start, missing + block if aligned == "end" else block + missing


def _either(one: bytes, other: bytes) -> bytes:
    """The exclusive or of bytes of the same number."""
    return (np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)).tobytes()
