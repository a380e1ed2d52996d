"""Registers MERT with transformers' Auto classes and pipelines, without importing the models before they are needed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from typing import Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
)

from .modeling.configuration_mert import MERTConfig
from .modeling.configuration_mert2 import MERT2Config
from .modeling.feature_extraction_mert import MERTFeatureExtractor
from .utils.imports import around_import

MODEL_CLASSES = {
    "MERTModel": AutoModel,
    "MERTForPreTraining": AutoModelForPreTraining,
    "MERTForSequenceClassification": AutoModelForAudioClassification,
    "MERTForAudioFrameClassification": AutoModelForAudioFrameClassification,
    "MERT2Model": AutoModel,
    "MERT2ForPreTraining": AutoModelForPreTraining,
    "MERT2ForSequenceClassification": AutoModelForAudioClassification,
    "MERT2ForAudioFrameClassification": AutoModelForAudioFrameClassification,
}
CONFIG_CLASSES = (MERTConfig, MERT2Config)
MODEL_FILES = (".modeling.modeling_mert", ".modeling.modeling_mert2")
PIPELINE_TASK = "audio-feature-extraction"  # transformers' own task "feature-extraction" is for text


class DeferredModel(type):
    """Metaclass of a stand-in for a model class: the first use of any attribute imports the class it stands for.

    transformers' modeling code takes seconds to import, which `import mert_hf` must not cost.
    """

    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(register_models()[cls.__name__], name)


class DeferredPipeline(type):
    """Metaclass of a stand-in for the pipeline: it is imported when transformers makes one."""

    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._load(), name)

    def __call__(cls, *arguments, **options):
        return cls._load()(*arguments, **options)

    def _load(cls) -> type:
        return getattr(import_module(".embedding.pipeline", __package__), cls.__name__)


def register_auto_classes() -> None:
    """Registers configurations, feature extractor and stand-ins for the models; calling it again changes nothing."""
    for config_class in CONFIG_CLASSES:
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoFeatureExtractor.register(config_class, MERTFeatureExtractor, exist_ok=True)
    for name, auto_class in MODEL_CLASSES.items():
        stand_in = DeferredModel(name, (), {"config_class": config_class_of(name)})
        auto_class.register(stand_in.config_class, stand_in, exist_ok=True)
    for kind in (AutoConfig, AutoFeatureExtractor, *set(MODEL_CLASSES.values()), *CONFIG_CLASSES, MERTFeatureExtractor):
        load_bundled_names(kind)
    if importlib.util.find_spec("transformers.audio_processing_utils"):  # announced by transformers, see its file
        register_audio_processors()
    around_import("transformers.models.auto.processing_auto", after=register_processors)
    around_import("transformers.pipelines", after=register_pipeline)


def load_bundled_names(kind: type) -> None:
    """Makes `kind.from_pretrained` take the name of a bundled checkpoint, as its folder; all else passes as it is.

    transformers looks a name up on the Hub before it asks a registered class. `__wrapped__` is the original.
    """
    original = kind.from_pretrained.__func__
    kind.from_pretrained = classmethod(with_bundled_folders(original))


def with_bundled_folders(function: Callable) -> Callable:
    """The function, with the folder of a bundled checkpoint for each argument that is its name."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        given = {name: bundled_folder(value) for name, value in options.items()}
        return function(*map(bundled_folder, arguments), **given)

    return call


def bundled_folder(value: Any) -> Any:
    """The folder of a bundled checkpoint for its name; all else, and a name that is also a folder here, as it is."""
    if not isinstance(value, str) or "/" in value or "mert" not in value or os.path.isdir(value):
        return value
    from .hub.names import BUNDLED_CHECKPOINTS, resolve_checkpoint  # takes time, which other models need not spend

    return resolve_checkpoint(value) if value in BUNDLED_CHECKPOINTS else value


def register_audio_processors() -> None:
    """Registers the audio processor with AutoAudioProcessor."""
    from transformers import AutoAudioProcessor

    from .modeling.audio_processing_mert import MERTAudioProcessor

    for config_class in CONFIG_CLASSES:
        AutoAudioProcessor.register(config_class, MERTAudioProcessor, exist_ok=True)


def register_processors() -> None:
    """Registers the feature extractor with AutoProcessor, whose import takes seconds and therefore waits.

    Without it, AutoProcessor tries an image processor first and asks whether to run the checkpoint's code.
    """
    from transformers import AutoProcessor

    for config_class in CONFIG_CLASSES:
        AutoProcessor.register(config_class, MERTFeatureExtractor, exist_ok=True)
    load_bundled_names(AutoProcessor)


def register_pipeline() -> None:
    """Registers the embeddings of recordings as a task of transformers' pipelines, whose import takes seconds too.

    The classification of audio gets a pipeline that reads the recordings of MERT models itself, and `pipeline` takes
    the names of bundled checkpoints, whose task it need not ask the Hub for.
    """
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    if PIPELINE_TASK not in (tasks := PIPELINE_REGISTRY.supported_tasks):
        classify = DeferredPipeline("MERTAudioClassificationPipeline", (), {})
        tasks["audio-classification"] = {**tasks["audio-classification"], "impl": classify}
        stand_in = DeferredPipeline("MERTFeatureExtractionPipeline", (), {})
        PIPELINE_REGISTRY.register_pipeline(PIPELINE_TASK, stand_in, pt_model=AutoModel, type="audio")
        make = with_bundled_folders(transformers.pipelines.pipeline)

        @wraps(make)
        def pipeline(task: str | None = None, model: Any = None, *arguments: Any, **options: Any) -> Any:
            if task is None and bundled_folder(model) is not model:
                task = PIPELINE_TASK
            return make(task, model, *arguments, **options)

        transformers.pipelines.pipeline = transformers.pipeline = pipeline


@cache
def register_models() -> dict[str, type]:
    """Imports the models and registers them in place of their stand-ins; returns them by name."""
    found = {}
    for module in (import_module(file, __package__) for file in MODEL_FILES):
        found |= {name: getattr(module, name) for name in module.__all__}
    for name in ("MERTPreTrainedModel", "MERT2PreTrainedModel"):
        load_bundled_names(found[name])
    classes = {name: found[name] for name in MODEL_CLASSES}
    for name, auto_class in MODEL_CLASSES.items():
        auto_class.register(config_class_of(name), classes[name], exist_ok=True)
    return classes


def config_class_of(name: str) -> type:
    """The configuration of a model class, by the generation in its name."""
    return next(kind for kind in reversed(CONFIG_CLASSES) if name.startswith(kind.__name__.removesuffix("Config")))


register_auto_classes()
