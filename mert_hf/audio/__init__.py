"""Recordings -> mono float32 at the model's rate, whole, in part or in windows, in bounded memory."""

from .decoding import AudioInfo, AudioReadError, audio_info
from .files import AUDIO_EXTENSIONS, find_audio_files
from .windows import Window, cut_windows, read_audio, stream_audio, stream_windows

__all__ = [
    "AUDIO_EXTENSIONS",
    "AudioInfo",
    "AudioReadError",
    "Window",
    "audio_info",
    "cut_windows",
    "find_audio_files",
    "read_audio",
    "stream_audio",
    "stream_windows",
]
