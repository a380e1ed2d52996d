"""transformers' pipeline for embeddings of recordings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import Pipeline

from .embedder import MERTEmbedder

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
        """The embeddings of a recording."""
        return model_outputs["embeddings"].value

    def _ensure_tensor_on_device(self, inputs: Any, device: Any) -> Any:
        return inputs  # numpy arrays and paths
