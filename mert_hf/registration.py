"""Makes transformers' Auto classes and pipelines know MERT."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
)

from .modeling.configuration_mert import MERTConfig
from .modeling.feature_extraction_mert import MERTFeatureExtractor
from .modeling.modeling_mert import (
    MERTForAudioFrameClassification,
    MERTForPreTraining,
    MERTForSequenceClassification,
    MERTModel,
)

MODEL_CLASSES = {
    AutoModel: MERTModel,
    AutoModelForPreTraining: MERTForPreTraining,
    AutoModelForAudioClassification: MERTForSequenceClassification,
    AutoModelForAudioFrameClassification: MERTForAudioFrameClassification,
}


def register_auto_classes() -> None:
    """Registers configuration, models and feature extractor; calling it again changes nothing."""
    AutoConfig.register(MERTConfig.model_type, MERTConfig, exist_ok=True)
    AutoFeatureExtractor.register(MERTConfig, MERTFeatureExtractor, exist_ok=True)
    for auto_class, model_class in MODEL_CLASSES.items():
        auto_class.register(MERTConfig, model_class, exist_ok=True)
