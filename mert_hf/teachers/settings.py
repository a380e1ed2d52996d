"""How teachers are fitted: the options of `mert-hf fit-kmeans`, `fit-features` and `fit-rvq`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..utils.settings import described, shared

FEATURE_NAMES = "mfcc, log_mel, chroma, chroma_cqt, log_cqt or tempogram"


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Rates of a teacher, and the audio to which it is fitted: clips at random places of as many files as possible."""

    sampling_rate: int = described("Sampling rate of the model to pre-train in Hz.", 24000)
    hop_length: int = described("Samples between two frames of the model.", 320)
    max_minutes: float = described("Maximum number of minutes of audio to use.", 120.0)
    split: str | None = shared("split", None)
    max_bad_files: int | str = shared("max_bad_files", "1%")
    seed: int = shared("seed", 0)
    show_progress_bar: bool = shared("progress", True)


@dataclass(frozen=True, kw_only=True)
class KMeansSettings(FitSettings):
    """Settings of a `KMeansTeacher`."""

    features: Sequence[str] = described(
        f"One codebook for each: {FEATURE_NAMES}, number of clusters, and optionally seconds of context and "
        "dimensions. Default: mfcc:300,chroma:200.",
        (),
        metavar="NAME:CLUSTERS[:SECONDS[:DIMENSIONS]],...",
    )


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(FitSettings):
    """The encoders of a teacher, of either kind."""

    encoder: Sequence[str] = described(
        "Frozen encoder and its layer. NAME is what --model takes elsewhere, or features:DIR for features in files of "
        "an encoder in another environment. Repeat the option to fuse several.",
        (),
        metavar="NAME:LAYER",
    )


@dataclass(frozen=True, kw_only=True)
class FeatureSettings(EncoderSettings):
    """Settings of a `FeatureTeacher`, or with encoders of an `EncoderTeacher`."""

    features: Sequence[str] = described(
        f"What the student predicts: {FEATURE_NAMES}, and optionally seconds of context and dimensions.",
        (),
        metavar="NAME[:SECONDS[:DIMENSIONS]],...",
    )
    components: int = described("With encoders: principal components that are predicted.", 64)
    max_minutes: float = described("Maximum number of minutes of audio to use.", 60.0)


@dataclass(frozen=True, kw_only=True)
class RVQSettings(EncoderSettings):
    """Settings of a quantizer. The sizes of a Mel-RVQ are MuQ's (arXiv 2501.01108, section 3.2)."""

    features: Sequence[str] = described(
        "Folder of features of an encoder in another environment (NAME.npy for each recording NAME.wav, as for "
        "mert-hf evaluate), and their layer, 0 by default. Repeatable.",
        (),
        metavar="DIR[:LAYER]",
    )
    kind: str = described(
        "Without encoders: mel_rvq (MuQ's quantizer of log-mel) or random_projection (BEST-RQ's).", "mel_rvq"
    )
    codebooks: int | None = described("Number of codebooks; by default 4 with encoders and 8 without.", None)
    codebook_size: int = described("Codes in each codebook.", 1024)
    components: int = described("With encoders: principal components that are quantized.", 256)
    hop_length: int | None = described(
        "Samples between two frames of the model; by default 960 with encoders and 320 without.", None
    )
    codebook_dim: int = 16  # dimension of the code vectors of log-mel frames
    num_bins: int = 128  # mel bands
    stack: int = 1  # log-mel frames in a frame of the student
    steps: int = 2000  # of the training of a Mel-RVQ
    batch_frames: int = 4096  # frames in a step
    learning_rate: float = 2e-3  # of Adam, falling linearly to zero
    commitment: float = 0.25  # weight of the commitment loss

    @property
    def mel(self) -> dict[str, int]:
        sizes = {name: getattr(self, name) for name in ("sampling_rate", "num_bins", "stack")}
        return {**sizes, "hop_length": self.hop_length or 320}
