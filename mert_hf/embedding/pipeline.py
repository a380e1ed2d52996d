"""transformers' pipeline for embeddings of recordings."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import Pipeline

from .embedder import MERTEmbedder

ENCODE_OPTIONS = ("layers", "pooling", "window", "hop", "sampling_rate", "min_window")


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
        return {"recording": input_}

    def _forward(self, input_tensors: dict[str, Any], **options: Any) -> np.ndarray:
        embedder = MERTEmbedder(self.model, self.feature_extractor)
        return embedder.encode(input_tensors["recording"], show_progress_bar=False, **options).embeddings

    def postprocess(self, model_outputs: np.ndarray) -> np.ndarray:
        """The embeddings, unchanged."""
        return model_outputs

    def _ensure_tensor_on_device(self, inputs: Any, device: Any) -> Any:
        return inputs  # numpy arrays and paths
