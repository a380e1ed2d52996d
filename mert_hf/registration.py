"""Registers MERT with transformers' Auto classes and pipelines, without importing the models before they are needed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache, partial, wraps
from importlib import import_module
from typing import Any

import transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from .modeling import configuration_mert, configuration_mert2
from .modeling.configuration_mert import MERTConfig
from .modeling.configuration_mert2 import MERT2Config
from .modeling.feature_extraction_mert import MERTFeatureExtractor
from .utils.imports import around_import

AUTO_MAPS = {MERTConfig: configuration_mert.AUTO_MAP, MERT2Config: configuration_mert2.AUTO_MAP}
MODELS = {  # name of a model class -> its configuration, its Auto class and its file
    entry.rpartition(".")[2]: (config_class, getattr(transformers, auto_class), entry.rpartition(".")[0])
    for config_class, auto_map in AUTO_MAPS.items()
    for auto_class, entry in auto_map.items()
    if entry.startswith("modeling_")
}
PIPELINE_TASK = "audio-feature-extraction"  # transformers' own task "feature-extraction" is for text


class Deferred(type):
    """Metaclass of a stand-in for a class, which the stand-in's `load` imports when any attribute is first used.

    transformers' modeling code and pipelines take seconds to import, which `import mert_hf` must not cost.
    """

    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls.load(), name)

    def __call__(cls, *arguments, **options):
        return cls.load()(*arguments, **options)


def register_auto_classes() -> None:
    """Registers configurations, feature extractor and stand-ins for the models; calling it again changes nothing."""
    for config_class in AUTO_MAPS:
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoFeatureExtractor.register(config_class, MERTFeatureExtractor, exist_ok=True)
    for name, (config_class, auto_class, _) in MODELS.items():
        stand_in = Deferred(name, (), {"config_class": config_class, "load": partial(load_model, name)})
        auto_class.register(config_class, stand_in, exist_ok=True)
    auto_classes = {auto_class for _, auto_class, _ in MODELS.values()}
    for kind in (AutoConfig, AutoFeatureExtractor, *auto_classes, *AUTO_MAPS, MERTFeatureExtractor):
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

    for config_class in AUTO_MAPS:
        AutoAudioProcessor.register(config_class, MERTAudioProcessor, exist_ok=True)


def register_processors() -> None:
    """Registers the feature extractor with AutoProcessor, whose import takes seconds and therefore waits.

    Without it, AutoProcessor tries an image processor first and asks whether to run the checkpoint's code.
    """
    from transformers import AutoProcessor

    for config_class in AUTO_MAPS:
        AutoProcessor.register(config_class, MERTFeatureExtractor, exist_ok=True)
    load_bundled_names(AutoProcessor)


def register_pipeline() -> None:
    """Registers the embeddings of recordings as a task of transformers' pipelines, whose import takes seconds too.

    The classification of audio gets a pipeline that reads the recordings of MERT models itself, and `pipeline` takes
    the names of bundled checkpoints, whose task it need not ask the Hub for.
    """
    from transformers.pipelines import PIPELINE_REGISTRY

    if PIPELINE_TASK not in (tasks := PIPELINE_REGISTRY.supported_tasks):
        classify, extract = (
            Deferred(name, (), {"load": partial(load_pipeline, name)})
            for name in ("MERTAudioClassificationPipeline", "MERTFeatureExtractionPipeline")
        )
        tasks["audio-classification"] = {**tasks["audio-classification"], "impl": classify}
        PIPELINE_REGISTRY.register_pipeline(PIPELINE_TASK, extract, pt_model=AutoModel, type="audio")
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
    classes = {}
    for name, (config_class, auto_class, file) in MODELS.items():
        classes[name] = getattr(import_module(f".modeling.{file}", __package__), name)
        auto_class.register(config_class, classes[name], exist_ok=True)
    for name in ("MERTModel", "MERT2Model"):
        load_bundled_names(classes[name].__base__)  # of all models of a generation
    return classes


def load_model(name: str) -> type:
    """A model class, registered with all others."""
    return register_models()[name]


def load_pipeline(name: str) -> type:
    """A pipeline of `mert_hf.embedding`."""
    return getattr(import_module(".embedding.pipeline", __package__), name)


register_auto_classes()
