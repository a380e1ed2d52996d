"""Model cards: a template filled from configuration, trainer state and results by huggingface_hub's card classes."""

from .card import completed_card, create_card, create_card_from_config
from .facts import CardFacts, Measurement
from .training import kept_update, pretraining_facts, trainer_measurements, training_facts

__all__ = [
    "CardFacts",
    "Measurement",
    "completed_card",
    "create_card",
    "create_card_from_config",
    "kept_update",
    "pretraining_facts",
    "trainer_measurements",
    "training_facts",
]
