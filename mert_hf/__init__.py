"""MERT, the self-supervised music understanding model, for the Hugging Face ecosystem.

Importing the package registers MERT with transformers' Auto classes: at once where transformers has been imported, else
as soon as it is. Public names are loaded when they are first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

from .utils.imports import around_import, hide_broken_torchaudio, lazy_names

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
    from .pretraining.student_input import NoiseMixture, SpanMasking
    from .search import MusicIndex
    from .teachers import CQTTeacher, EncodecTeacher, KMeansTeacher, LogMelTeacher

__all__, _load = lazy_names(__name__)


def __getattr__(name: str):
    value = globals()[name] = _load(name)
    if value.__module__.startswith(f"{__name__}.modeling.modeling_"):
        import_module(".registration", __name__).register_models()  # in place of their stand-ins
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


around_import(
    "transformers",
    before=hide_broken_torchaudio,  # which transformers would import
    after=lambda: import_module(".registration", __name__),  # which registers
)
