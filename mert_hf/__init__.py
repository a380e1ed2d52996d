"""MERT, the self-supervised music understanding model, for the Hugging Face ecosystem.

Importing the package registers MERT with transformers' Auto classes: at once where transformers has been imported, else
as soon as it is. Public names are loaded when they are first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

from .utils.imports import around_import, hide_broken_torchaudio

__version__ = "0.1.0"

if not os.path.isdir(os.path.join(__path__[0], "modeling")):  # a checkout without symlinks: next to the package
    __path__.append(os.path.dirname(__path__[0]))

if TYPE_CHECKING:
    from .audio import AudioReadError, read_audio
    from .embedding.embedder import MERTEmbedder
    from .modeling.configuration_mert import MERTConfig
    from .modeling.configuration_mert2 import MERT2Config
    from .modeling.feature_extraction_mert import MERTFeatureExtractor
    from .modeling.modeling_mert import (
        MERTForAudioFrameClassification,
        MERTForPreTraining,
        MERTForSequenceClassification,
        MERTModel,
    )
    from .modeling.modeling_mert2 import (
        MERT2ForAudioFrameClassification,
        MERT2ForPreTraining,
        MERT2ForSequenceClassification,
        MERT2Model,
    )
    from .pretraining.collator import DataCollatorForMERTPreTraining
    from .pretraining.masking import SpanMasking
    from .pretraining.mixture import NoiseMixture
    from .search import MusicIndex
    from .teachers import CQTTeacher, EncodecTeacher, KMeansTeacher, LogMelTeacher

_MODELS = {
    f"{generation}{kind}": f".modeling.modeling_{generation.lower()}"
    for generation in ("MERT", "MERT2")
    for kind in ("Model", "ForPreTraining", "ForSequenceClassification", "ForAudioFrameClassification")
}
_HOMES = {
    "AudioReadError": ".audio",
    "read_audio": ".audio",
    "MusicIndex": ".search",
    "MERTConfig": ".modeling.configuration_mert",
    "MERT2Config": ".modeling.configuration_mert2",
    "MERTFeatureExtractor": ".modeling.feature_extraction_mert",
    "MERTEmbedder": ".embedding",
    "DataCollatorForMERTPreTraining": ".pretraining.collator",
    "NoiseMixture": ".pretraining.mixture",
    "SpanMasking": ".pretraining.masking",
    "EncodecTeacher": ".teachers",
    "KMeansTeacher": ".teachers",
    "CQTTeacher": ".teachers",
    "LogMelTeacher": ".teachers",
} | _MODELS

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODELS:
        import_module(".registration", __name__).register_models()  # in place of their stand-ins
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


around_import(
    "transformers",
    before=hide_broken_torchaudio,  # which transformers would import
    after=lambda: import_module(".registration", __name__),  # which registers
)
