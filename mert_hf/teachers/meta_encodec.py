"""EnCodec through Meta's own `encodec` package, for users of that package and as the reference of our codec."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

from ..utils.optional import MissingExtraError
from .base import AcousticTeacher, check_sizes

META_MODEL = "encodec_24khz"
BITS_PER_CODE = 10


class MetaEncodecTeacher(AcousticTeacher):
    """Codes of the 24 kHz model of Meta's `encodec` package; `EncodecTeacher.from_meta` opens it.

    Args:
        num_codebooks: number of codebooks, counted from the first.
        weights: the state dict of the model; random without any.

    Raises:
        MissingExtraError: the package `encodec` is not installed.
        ValueError: more codebooks than the model has, or weights that do not fit it.
    """

    kind, made_by = "encodec_meta", "EncodecTeacher.from_meta"
    setting_names = ("num_codebooks",)

    def __init__(self, num_codebooks: int = 8, **weights: torch.Tensor):
        super().__init__()
        check_sizes(num_codebooks=num_codebooks)
        model = meta_encodec().EncodecModel.encodec_model_24khz(pretrained=False)
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
        if weights:
            try:
                model.load_state_dict(weights)
            except RuntimeError as error:
                raise ValueError(f"The weights do not fit Meta's {META_MODEL}: {error}") from error
        if num_codebooks > model.quantizer.n_q:
            raise ValueError(f"num_codebooks={num_codebooks} must be between 1 and {model.quantizer.n_q}.")
        wanted = num_codebooks * model.frame_rate * BITS_PER_CODE / 1000  # kbit/s
        model.set_target_bandwidth(min(rate for rate in model.target_bandwidths if rate >= wanted))
        self.model = model.eval().requires_grad_(False)
        self.sampling_rate, self.hop_length = model.sample_rate, model.encoder.hop_length
        self.codebook_sizes = (model.quantizer.bins,) * num_codebooks

    def targets(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 -> (batch, num_codebooks, ceil(samples / hop_length)) int64."""
        codes = torch.cat([frame for frame, _ in self.model.encode(waveforms[:, None])], dim=-1)
        return codes[:, : self.num_codebooks]

    @classmethod
    def from_meta(cls, source: str | os.PathLike, num_codebooks: int) -> MetaEncodecTeacher:
        """The published model by its name, "encodec_24khz", which the package downloads, or a file of its weights.

        Raises:
            ValueError: there is no such file, or it does not hold weights of the model.
        """
        if str(source) == META_MODEL:
            weights = meta_encodec().EncodecModel.encodec_model_24khz(pretrained=True).state_dict()
        elif os.path.isfile(source):
            weights = torch.load(source, map_location="cpu", weights_only=True)  # noqa: TID251  weights_only
        else:
            raise ValueError(f"{source} is neither {META_MODEL!r} nor a file of its weights, such as {META_MODEL}.th.")
        if not isinstance(weights, dict):
            raise ValueError(f"{source} holds {type(weights).__name__}, not a state dict.")
        return cls(num_codebooks, **weights.get("best_state", weights))


def meta_encodec() -> ModuleType:
    """The package `encodec`.

    Raises:
        MissingExtraError: it is not installed.
    """
    with stub_of_torchaudio():
        try:
            return importlib.import_module("encodec")
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"{error.name} is not installed. Install Meta's package without its dependency torchaudio, which often "
                "does not fit an installed torch: pip install --no-deps encodec einops",
                name=error.name,
            ) from error


@contextmanager
def stub_of_torchaudio() -> Iterator[None]:
    """An empty module in the place of torchaudio while the block runs, where torchaudio is not imported already.

    encodec imports torchaudio when it is imported, and uses it in helpers for files only, which are not used here. The
    build of torchaudio on the package index needs CUDA, and transformers fails where it is installed and cannot load.
    """
    present = sys.modules.get("torchaudio")
    if present is not None or "encodec" in sys.modules:
        yield
        return
    known = "torchaudio" in sys.modules
    stub = ModuleType("torchaudio")
    stub.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = stub
    try:
        yield
    finally:
        if known:
            sys.modules["torchaudio"] = None  # type: ignore[assignment]  # as it was: hidden, see utils.imports
        else:
            del sys.modules["torchaudio"]
