"""Both generations of models: their configurations and classes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import modeling
from ..modeling.configuration_mert import MERTConfig
from ..modeling.configuration_mert2 import MERT2Config
from ..utils.text import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG_CLASSES = {config_class.model_type: config_class for config_class in (MERTConfig, MERT2Config)}


def is_known(config: Any) -> bool:
    return isinstance(config, tuple(CONFIG_CLASSES.values()))


def config_from_fields(fields: Mapping[str, Any], origin: str | Path) -> MERTConfig | MERT2Config:
    """The configuration of either generation, from the fields of the config.json `origin`; ValueError for others."""
    kind = fields.get("model_type")
    if kind not in CONFIG_CLASSES:
        known = " and ".join(map(repr, CONFIG_CLASSES))
        raise ValueError(f"{origin} has model_type {kind!r}; mert_hf knows the types {known}.")
    try:
        config = CONFIG_CLASSES[kind].from_dict(dict(fields))
        config.check_width()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{origin} is not a valid configuration: {one_line(error)}") from error
    return config


def class_name(config: MERTConfig | MERT2Config) -> str:
    """The model class that a configuration names, the encoder's where it names none."""
    return (config.architectures or [config.auto_map["AutoModel"].rpartition(".")[2]])[0]


def auto_class_name(config: MERTConfig | MERT2Config, model_class: str) -> str:
    """The Auto class of transformers that opens a model class, `AutoModel` for an unknown one."""
    names = {entry.rpartition(".")[2]: auto_class for auto_class, entry in config.auto_map.items()}
    return names.get(model_class, "AutoModel")


def model_class(config: MERTConfig | MERT2Config) -> type[PreTrainedModel]:
    """The model class that a configuration names. Raises ValueError where this package has no such class."""
    name = class_name(config)
    homes = {entry.rpartition(".")[2]: entry.rpartition(".")[0] for entry in config.auto_map.values()}
    if not homes.get(name, "").startswith("modeling_"):
        raise ValueError(f"config.json names the class {name!r}, which mert_hf does not have.")
    return getattr(import_module(f"{modeling.__name__}.{homes[name]}"), name)
