"""The options of `mert-hf pretrain`, which override the fields of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..utils.settings import SHARED, TrainerSettings, described


@dataclass(frozen=True)
class RecipeSettings(TrainerSettings):
    """The words that other commands have too, for fields of a recipe; what is None is left to the recipe."""

    data: tuple[str, ...] = described("File or folder of recordings to train on; repeatable (train_data).", ())
    output: str | None = described("Folder of the run; an interrupted run is resumed there (output_dir).", None)
    model: str | None = described("Checkpoint to continue from: Hub id, folder or bundled name.", None)
    batch_size: int | None = described("Crops per device and step.", None, min=1)
    dtype: str | None = described(SHARED["training_dtype"]["help"] + " Default: as in CONFIG.yaml.", None)
    max_bad_files: str | None = described(
        "Unreadable recordings tolerated before the run fails. Default: 1%.", None, metavar="N|P%"
    )

    def fields(self) -> dict[str, Any]:
        """The fields of a recipe that the options set."""
        own = {"train_data": list(self.data), "model_name_or_path": self.model}
        return own | super().fields() | {"max_bad_files": self.max_bad_files}
