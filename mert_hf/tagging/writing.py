"""Values into the tags of a file by mutagen: ID3 (MP3, WAV, AIFF), Vorbis comments (FLAC, Ogg, Opus), MP4.

A file is changed as a copy next to it that replaces it when it is complete and its audio is unchanged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from ..utils.files import staged_file
from ..utils.optional import needs_extra
from .undo import UndoLog

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
    all.

    Raises:
        TagError: mutagen knows no tags of this format, or the file is damaged.
        OSError: the file or the log cannot be written.
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
