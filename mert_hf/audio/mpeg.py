"""MP3 files that do not state their length.

libsndfile reads an MP3 up to the length that it takes it to have. Without a frame count in the first MPEG frame it
estimates that length from the size of the file and the bit rate of the first frame, and where the bit rate varies, most
of the music can be lost without a warning. Such a file is read after a frame that counts more frames than it can have.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")
SEARCHED = 65536  # bytes after the ID3 tag in which the first frame is searched
FRAMES = 2**26  # three weeks of frames: more than any file has
# ISO/IEC 11172-3, 2.4.2.3, and 13818-3, layer III, in kbit/s and Hz, by the indices of a frame's header
BIT_RATES = {1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
BIT_RATES[2] = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
SAMPLING_RATES = (44100, 48000, 32000)


def length_frame(file: BinaryIO) -> bytes | None:
    """A frame to put before an MP3 that does not state its length; None where it does, or has no frame.

    Args:
        file: the MP3 file; its position is not changed.
    """
    position = file.tell()
    file.seek(0)
    head = file.read(10)
    offset = 0
    if head[:3] == b"ID3":  # the tag's size: four bytes of seven bits (id3.org, ID3v2.3.0, section 3.1)
        offset = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    file.seek(offset)
    data = file.read(SEARCHED)
    file.seek(position)
    for start in range(len(data) - 4):
        if data[start] == 0xFF and (size := _frame_size(data[start : start + 4])):
            frame = data[start : start + size]
            return None if any(tag in frame for tag in LENGTH_TAGS) else _counting_frame(frame[:4], size)
    return None


def _frame_size(header: bytes) -> int:
    """Bytes of the frame that a header of four bytes begins, 0 if it is not a header of layer III."""
    (bits,) = struct.unpack(">I", header)
    version, layer = (bits >> 19) & 3, (bits >> 17) & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    bit_rate, rate, padding = (bits >> 12) & 15, (bits >> 10) & 3, (bits >> 9) & 1
    if bits >> 21 != 0x7FF or version == 1 or layer != 1 or bit_rate in (0, 15) or rate == 3:
        return 0
    first = version == 3
    sampling_rate = SAMPLING_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    kilobits = BIT_RATES[1 if first else 2][bit_rate - 1]
    return (144 if first else 72) * kilobits * 1000 // sampling_rate + padding


def _counting_frame(header: bytes, size: int) -> bytes:
    """A frame of silence with `FRAMES` as its Xing count, after the side information of the header's kind of frame."""
    first, mono = (header[1] >> 3) & 3 == 3, header[3] >> 6 == 3
    side_information = (17 if mono else 32) if first else (9 if mono else 17)
    without_checksum = bytes([header[0], header[1] | 1, header[2], header[3]])
    tag = b"Xing" + struct.pack(">II", 1, FRAMES)  # flag 1: a count of frames follows
    return (without_checksum + bytes(side_information) + tag).ljust(size, b"\0")
