"""Features that were computed elsewhere, in place of an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...encoders import Encoder, open_encoder
from ...encoders.own import ClipEncoder
from ...encoders.stored import StoredFeatures
from ...recordings.recordings import Recording


class PrecomputedFeatures(StoredFeatures):
    """`StoredFeatures` of the recordings of an evaluation; they are used as they are, without pooling."""

    def rows(self, recording: Recording) -> np.ndarray:
        """Features of a recording, (chunks, layers, values) float32.

        Raises:
            ValueError: the recording is not a file, or has no features.
        """
        place = recording.open()
        if not isinstance(place, (str, Path)):
            raise ValueError("Precomputed features belong to files: they serve neither --deform nor data sets of rows.")
        return super().rows(place)


def chosen_encoder(
    model: str | Encoder | ClipEncoder | None,
    features: str | Path | None,
    data_dir: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Encoder | PrecomputedFeatures:
    """The encoder of an evaluation, by its name or its features; arguments as `open_encoder`.

    Raises:
        ValueError: none or both are given, or the model cannot be opened.
    """
    if (model is None) == (features is None):
        raise ValueError(f"Give one of model and features; given are {'none' if model is None else 'both'}.")
    if features is not None:
        return PrecomputedFeatures(features, data_dir)
    return open_encoder(model, device, dtype, trust_remote_code)
