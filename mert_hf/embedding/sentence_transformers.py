"""A module for sentence-transformers: recordings to one vector each, equal to `MERTEmbedder`.

    from sentence_transformers import SentenceTransformer
    from mert_hf.embedding.sentence_transformers import MERTTransformer

    model = SentenceTransformer(modules=[MERTTransformer("mert2-nano")])
    model.encode(["a.mp3", "b.flac"])
    model.save_pretrained("my_model")
    model = SentenceTransformer("my_model", trust_remote_code=True)

sentence-transformers requires `trust_remote_code` for every class of another package, also an installed one.
Their own audio module averages padding in, because a model has fewer frames than samples and their mask is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..encoders import open_encoder, resolve_layers
from ..encoders.base import BatchedEncoder, mean_over_frames
from ..encoders.transformers import TransformersEncoder
from ..utils.files import follow_umask
from ..utils.optional import needs_extra
from .windows import recording_windows

with needs_extra("sentence-transformers"):
    from sentence_transformers.base.modules import InputModule


class MERTTransformer(InputModule):
    """Encoder, pooling over time, and average over the windows of a recording, weighted by their lengths.

    Args:
        name_or_path: Hub id, folder, or name of a bundled checkpoint.
        layers: a layer (0 is the encoder's input, -1 the last), or "all" or several, of which the average is learned.
        window: seconds that the encoder sees at a time; None takes each recording whole.
        layer_weights: logits of a learned average, as `save` writes them; equal by default.
        encoder: an encoder that is loaded already, in place of `name_or_path`.
        kwargs: as for `open_encoder`.

    Raises:
        ValueError: a layer that the encoder does not have, or neither a model of transformers nor an exported one.
        OSError: there is no such checkpoint.
    """

    config_file_name = "mert_transformer.json"
    save_in_root = True

    def __init__(
        self,
        name_or_path: str | os.PathLike | None = None,
        layers: str | int | Sequence[int] = -1,
        window: float | None = 5.0,
        layer_weights: Sequence[float] | None = None,
        encoder: BatchedEncoder | None = None,
        **kwargs: Any,
    ):
        super().__init__()
        if (name_or_path is None) == (encoder is None):
            raise ValueError("Give either name_or_path or encoder.")
        self.encoder = encoder or open_encoder(name_or_path, device="cpu", **kwargs)
        if not isinstance(self.encoder, BatchedEncoder):
            raise ValueError(f"{name_or_path} is neither a model of transformers nor exported. Give one of these.")
        self.model, self.window = getattr(self.encoder, "model", None), window
        self.layers = resolve_layers(layers, self.encoder)
        if layer_weights is not None and len(layer_weights) != len(self.layers):
            raise ValueError(f"There are {len(layer_weights)} layer_weights for {len(self.layers)} layers.")
        initial = torch.zeros(len(self.layers)) if layer_weights is None else torch.tensor(list(layer_weights))
        self.layer_weights = nn.Parameter(initial) if len(self.layers) > 1 else None

    @property
    def modalities(self) -> list[str]:
        """The kinds of input that sentence-transformers accepts: audio in memory, and paths.

        It takes text that does not end in .mp3, .wav, .ogg, .flac or .aac for a sentence. Give the paths of other files
        as `pathlib.Path`.
        """
        return ["audio"]

    def get_embedding_dimension(self) -> int:
        return self.encoder.hidden_size

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Reads recordings and cuts them in windows.

        Args:
            inputs: paths, or audio in memory as `MERTEmbedder.encode` takes it, arrays at the encoder's rate; or
                dictionaries with one of these as "audio", the form of sentence-transformers for several modalities.
            prompt: not used.
            kwargs: `sampling_rate` of arrays in Hz; the encoder's if not given.

        Returns:
            `input_values` (windows, samples) float32 with padding, `window_samples` (windows,) int64, the samples of
            each, and `window_owners` (windows,) int64, the number of its recording.
        """
        rate = kwargs.get("sampling_rate", self.encoder.sampling_rate)
        clips, owners = [], []
        for number, item in enumerate(inputs):
            recording = item["audio"] if isinstance(item, dict) and "audio" in item else item
            for piece in recording_windows(self.encoder, recording, self.window, sampling_rate=rate):
                clips.append(piece.samples)
                owners.append(number)
        lengths = torch.tensor([len(clip) for clip in clips])
        values = self.encoder.prepare(clips)
        return {"input_values": values.float(), "window_samples": lengths, "window_owners": torch.tensor(owners)}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds `sentence_embedding` (recordings, hidden) float32."""
        lengths, owners = features["window_samples"], features["window_owners"]
        vectors = torch.zeros(len(lengths), self.encoder.hidden_size, device=lengths.device)
        for chosen in self.encoder.batches(lengths.tolist()):
            rows = torch.tensor(chosen, device=lengths.device)
            states = self.encoder.states(features["input_values"][rows], lengths[rows], self.layers)
            means = mean_over_frames(*states)  # (windows, layers, hidden)
            if self.layer_weights is not None:
                means = torch.einsum("l,wlh->wh", self.layer_weights.softmax(dim=0), means)[:, None]
            vectors = vectors.index_copy(0, rows, means[:, 0])
        count = int(owners.max()) + 1
        weights = lengths.to(vectors.dtype)
        totals = vectors.new_zeros(count, vectors.shape[1]).index_add(0, owners, vectors * weights[:, None])
        seconds = vectors.new_zeros(count).index_add(0, owners, weights)
        return {**features, "sentence_embedding": totals / seconds[:, None]}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes encoder, code, feature extractor and the settings of this module: a folder for `AutoModel` as well.

        Raises ValueError for an exported encoder.
        """
        if not isinstance(self.encoder, TransformersEncoder):
            raise ValueError("An exported encoder cannot be saved as a checkpoint. Use the one that it was made of.")
        self.model.save_pretrained(output_path)
        follow_umask(output_path)
        self.encoder.feature_extractor.save_pretrained(output_path)
        self.save_config(output_path)

    def get_config_dict(self) -> dict[str, Any]:
        weights = None if self.layer_weights is None else self.layer_weights.tolist()
        return {"layers": list(self.layers), "window": self.window, "layer_weights": weights}

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> MERTTransformer:
        """The module that `save` has written to a folder or a Hub repository."""
        cache = kwargs.get("cache_folder")
        places = {name: kwargs.get(name) for name in ("token", "revision")}
        places["local_files_only"] = kwargs.get("local_files_only", False)
        config = cls.load_config(model_name_or_path, subfolder=subfolder, cache_folder=cache, **places)
        given = {name: value for name, value in {**places, "cache_dir": cache}.items() if value}
        return cls(model_name_or_path, **config, **given)
