"""Trainers whose pushes can be loaded at any time and carry the project's card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..utils.files import follow_umask
from .cards import CardFacts, create_card
from .checkpoint import CARD_FILE, run_facts, save_code
from .model_types import is_known


class HubTrainerMixin:
    """For Trainers: what `push_to_hub` sends can be loaded at any time and carries the project's card.

    Put it in front of Trainer in the list of bases; the class gives `card_facts`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_callback(HubFilesCallback())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model with the permissions that the umask leaves."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            follow_umask(output_dir or self.args.output_dir)

    def card_facts(self) -> CardFacts:
        """The facts of the card: the trainer's state and arguments, and the settings that a pre-training run left."""
        repo_id = self.args.hub_model_id
        name = (repo_id or Path(self.args.output_dir).resolve().name).split("/")[-1]
        return replace(run_facts(Path(self.args.output_dir), name, self.state, self.args), repo_id=repo_id)

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """Writes README.md from the template of `mert_hf.hub.cards`; adapters get the card of peft."""
        if not is_known(getattr(self.model, "config", None)) or hasattr(self.model, "peft_config"):
            super().create_model_card(*arguments, **options)
        elif self.is_world_process_zero():
            card = create_card(self.model, self.card_facts())
            Path(self.args.output_dir, CARD_FILE).write_text(str(card), encoding="utf-8")


class HubFilesCallback(TrainerCallback):
    """Keeps what a Trainer pushes during training loadable.

    `Trainer(push_to_hub=True)` copies only weights and configuration from its checkpoints into the pushed folder;
    the code that the configuration's `auto_map` names would be missing until the end of training.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Writes the code files into the output folder, once for all processes."""
        config = getattr(model, "config", None)
        if state.is_world_process_zero and is_known(config):
            Path(args.output_dir).mkdir(parents=True, exist_ok=True)
            save_code(args.output_dir, config)
