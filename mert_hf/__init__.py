"""MERT, the self-supervised music understanding model, for the Hugging Face ecosystem.

Importing the package registers MERT with transformers' Auto classes. Public names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .utils.broken_packages import hide_broken_torchaudio
from .utils.moved import keep_old_names

hide_broken_torchaudio()  # before transformers' audio modules are imported

from .registration import MODEL_CLASSES, register_auto_classes, register_models  # noqa: E402

__version__ = "0.1.0"

if TYPE_CHECKING:
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
    from .teachers import CQTTeacher, EncodecTeacher, KMeansTeacher, LogMelTeacher

_HOMES = {
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
}

__all__ = sorted([*MODEL_CLASSES, *_HOMES, "__version__"])


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = register_models()[name] if name in MODEL_CLASSES else getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_auto_classes()
keep_old_names()
