"""transformers' pipelines for embeddings and classes of recordings, which are read as everywhere in the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import AudioClassificationPipeline, BatchFeature, Pipeline

from ..audio import read_audio
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from .embedder import MERTEmbedder
from .windows import is_file, opened

ENCODE_OPTIONS = ("layers", "pooling", "window", "hop", "sampling_rate", "min_window")


@dataclass(frozen=True)
class _Wrapped:
    """A value that transformers' batching neither pads nor gives an axis."""

    value: Any


class MERTFeatureExtractionPipeline(Pipeline):
    """The task "audio-feature-extraction": embeddings of recordings. transformers' "feature-extraction" is for text.

    Calls take what `MERTEmbedder.encode` takes, and its options `layers`, `pooling`, `window`, `hop`, `sampling_rate`
    and `min_window`. The result for a recording is `Embedding.embeddings`, float32 (windows, layers, hidden) with the
    defaults.

    Example:
        >>> import mert_hf  # registers the task
        >>> from transformers import pipeline
        >>> embed = pipeline("audio-feature-extraction", "m-a-p/MERT-v1-95M")
        >>> embed("song.wav", layers=7).shape
        (6, 768)
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    def _sanitize_parameters(self, **options: Any) -> tuple[dict, dict, dict]:
        unknown = sorted(set(options) - set(ENCODE_OPTIONS))
        if unknown:
            raise ValueError(f"The options are {', '.join(ENCODE_OPTIONS)}; got {', '.join(unknown)}.")
        return {}, options, {}

    def preprocess(self, input_: Any) -> dict[str, Any]:
        """The recording, unchanged: the embedder reads it window by window."""
        return {"recording": _Wrapped(input_)}

    def _forward(self, input_tensors: dict[str, Any], **options: Any) -> dict[str, Any]:
        # One recording, or with batch_size=N a list of them, which transformers takes apart again by position.
        given = input_tensors["recording"]
        several = isinstance(given, list)
        recordings = [item.value for item in (given if several else [given])]
        embedder = MERTEmbedder(self.model, self.feature_extractor)
        found = [_Wrapped(item.embeddings) for item in embedder.encode(recordings, show_progress_bar=False, **options)]
        return {"embeddings": found if several else found[0]}

    def postprocess(self, model_outputs: dict[str, Any]) -> np.ndarray:
        return model_outputs["embeddings"].value

    def _ensure_tensor_on_device(self, inputs: Any, device: Any) -> Any:
        return inputs  # numpy arrays and paths


class MERTAudioClassificationPipeline(AudioClassificationPipeline):
    """The task "audio-classification" of transformers; for MERT it reads recordings as training and embedding do.

    transformers' own pipeline decodes files with ffmpeg, whose mono mix of equal channels is 3 dB louder than the mean,
    resamples with another filter, and needs torchaudio for arrays at another rate. Models of other kinds keep it.

    Calls take a path, a file object, the bytes of a file, a row of `datasets.Audio`, {"array", "sampling_rate"} at any
    rate, or an array (samples,) or (channels, samples) at the model's rate.

    Example:
        >>> import mert_hf  # registers the pipeline
        >>> from transformers import pipeline
        >>> pipeline("audio-classification", "genre-model")("song.m4a", top_k=2)
    """

    def preprocess(self, inputs: Any) -> BatchFeature:
        """The input of the model for one recording, which is heard as a whole."""
        if not isinstance(self.feature_extractor, MERTFeatureExtractor):
            return super().preprocess(inputs)
        rate = self.feature_extractor.sampling_rate
        recording = opened(inputs)
        samples = read_audio(recording, rate) if is_file(recording) else recording
        return self.feature_extractor([samples], sampling_rate=rate, return_tensors="pt")
