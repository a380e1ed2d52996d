"""MERT, the self-supervised music understanding model, for the Hugging Face ecosystem.

Importing the package registers MERT with transformers' Auto classes. Public names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .registration import register_auto_classes

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .embedding import MERTEmbedder
    from .modeling.configuration_mert import MERTConfig
    from .modeling.feature_extraction_mert import MERTFeatureExtractor
    from .modeling.modeling_mert import (
        MERTForAudioFrameClassification,
        MERTForPreTraining,
        MERTForSequenceClassification,
        MERTModel,
    )
    from .pretraining.collator import DataCollatorForMERTPreTraining
    from .pretraining.masking import SpanMasking
    from .pretraining.mixture import NoiseMixture
    from .teachers import CQTTeacher, EncodecTeacher, KMeansTeacher, LogMelTeacher

_HOMES = {
    "MERTConfig": ".modeling.configuration_mert",
    "MERTModel": ".modeling.modeling_mert",
    "MERTForPreTraining": ".modeling.modeling_mert",
    "MERTForSequenceClassification": ".modeling.modeling_mert",
    "MERTForAudioFrameClassification": ".modeling.modeling_mert",
    "MERTFeatureExtractor": ".modeling.feature_extraction_mert",
    "MERTEmbedder": ".embedding",
    "DataCollatorForMERTPreTraining": ".pretraining.collator",
    "NoiseMixture": ".pretraining.mixture",
    "SpanMasking": ".pretraining.masking",
    "EncodecTeacher": ".teachers",
    "KMeansTeacher": ".teachers",
    "CQTTeacher": ".teachers",
    "LogMelTeacher": ".teachers",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_auto_classes()
