"""Ogg files (RFC 3533): the streams that follow one another in them, found by the headers of their pages."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

CAPTURE = b"OggS"
HEADER = struct.Struct("<4sBBqIIIB")  # capture, version, flags, granule position, serial, sequence, checksum, segments
FIRST, LAST = 2, 4  # flags
SEARCHED = 65536  # bytes read at a time where a page is searched


@dataclass
class OggLink:
    """A part of an Ogg file that can be decoded by itself: a chained file has several.

    Attributes:
        begin, end: its bytes in the file.
        opus: whether it holds Opus.
        incomplete: whether the file ends within a page.
        missing: whether pages are missing between others.
        late: whether pages are missing after the headers, as in a recorded broadcast.
        marked: whether the last page is marked as the end.
    """

    begin: int
    end: int = 0
    opus: bool = False
    incomplete: bool = False
    missing: bool = False
    late: bool = False
    marked: bool = False
    last: dict[int, tuple[int, int]] = field(default_factory=dict)  # serial number: sequence number, granule position

    def add(self, flags: int, granule: int, serial: int, sequence: int) -> None:
        """Notes what the header of the next page states."""
        before, granule_before = self.last.get(serial, (sequence - 1, 0))
        if sequence != before + 1:
            self.late |= granule_before == 0  # after the headers
            self.missing |= granule_before != 0
        self.last[serial] = sequence, granule
        self.marked = bool(flags & LAST)


def ogg_links(file: BinaryIO) -> list[OggLink]:
    """The links of an Ogg file, from the headers of all its pages; the position of `file` is not changed."""
    position, size = file.tell(), file.seek(0, os.SEEK_END)
    links: list[OggLink] = []
    offset, beginning = 0, False
    while (offset := _next_page(file, offset)) < size:
        file.seek(offset)
        header = file.read(HEADER.size)
        if len(header) == HEADER.size:
            _, _, flags, granule, serial, sequence, _, count = HEADER.unpack(header)
            segments = file.read(count)
            end = offset + HEADER.size + count + sum(segments)
            if not links or (flags & FIRST and not beginning):
                links.append(OggLink(offset))
            beginning = bool(flags & FIRST)
            links[-1].opus |= beginning and file.read(8) == b"OpusHead"
            links[-1].add(flags, granule, serial, sequence)
        else:
            end = size + 1
        if links:
            links[-1].end, links[-1].incomplete = min(end, size), end > size
        offset = end
    if links and links[-1].end < size and not links[-1].marked:
        links[-1].incomplete = True  # cut within the four bytes that begin a page, or something else follows
    file.seek(position)
    return links


def _next_page(file: BinaryIO, offset: int) -> int:
    """Place of the first page from `offset`, where it usually begins; the size of the file if there is none."""
    file.seek(offset)
    data = file.read(len(CAPTURE))
    while data != CAPTURE:
        data += file.read(SEARCHED)
        if (found := data.find(CAPTURE)) >= 0:
            return offset + found
        if len(data) <= len(CAPTURE):
            return offset + len(data)
        offset, data = offset + len(data) - 3, data[-3:]
    return offset


class FilePart(io.RawIOBase):
    """Bytes [begin, end) of a file as a file for reading."""

    def __init__(self, file: BinaryIO, begin: int, end: int):
        self.file, self._begin, self._size, self._position = file, begin, end - begin, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer) -> int:
        self.file.seek(self._begin + self._position)
        part = self.file.read(max(min(len(buffer), self._size - self._position), 0))
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)
