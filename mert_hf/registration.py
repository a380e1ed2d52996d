"""Makes transformers' Auto classes and pipelines know MERT, without importing the models before they are needed."""

from __future__ import annotations

from importlib import import_module

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

MODEL_CLASSES = {
    "MERTModel": AutoModel,
    "MERTForPreTraining": AutoModelForPreTraining,
    "MERTForSequenceClassification": AutoModelForAudioClassification,
    "MERTForAudioFrameClassification": AutoModelForAudioFrameClassification,
}


class DeferredModel(type):
    """Metaclass of a stand-in for a model class: the first use of any attribute imports the class it stands for.

    transformers' modelling code takes seconds to import, which `import mert_hf` must not cost.
    """

    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(register_models()[cls.__name__], name)


def register_auto_classes() -> None:
    """Registers configuration, feature extractor and stand-ins for the models; calling it again changes nothing."""
    AutoConfig.register(MERTConfig.model_type, MERTConfig, exist_ok=True)
    AutoFeatureExtractor.register(MERTConfig, MERTFeatureExtractor, exist_ok=True)
    for name, auto_class in MODEL_CLASSES.items():
        auto_class.register(MERTConfig, DeferredModel(name, (), {"config_class": MERTConfig}), exist_ok=True)


def register_models() -> dict[str, type]:
    """Imports the models and registers them in place of their stand-ins; returns them by name."""
    modeling = import_module(".modeling.modeling_mert", __package__)
    classes = {name: getattr(modeling, name) for name in MODEL_CLASSES}
    for name, auto_class in MODEL_CLASSES.items():
        auto_class.register(MERTConfig, classes[name], exist_ok=True)
    return classes
