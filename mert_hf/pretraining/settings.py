"""The options of `mert-hf pretrain` and `mert-hf distill`, which override the fields of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..utils.settings import SHARED, TrainerSettings, described, shared


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
        own = {"train_data": list(self.data), "model_name_or_path": self.model}
        return own | super().fields() | {"max_bad_files": self.max_bad_files}


@dataclass(frozen=True, kw_only=True)
class DistillationSettings(TrainerSettings):
    """How encoders are distilled into a student."""

    data: tuple[str, ...] = described("File or folder of recordings to train on; repeatable.")
    output: str = described("Folder of the student; an interrupted run is resumed there.")
    max_minutes: float | None = described(
        "Minutes of training, over which the learning rate falls to zero; by default 3 passes over the recordings.",
        None,
    )
    loss: str = described("Error of the student: squared or cosine.", "squared")
    components: int = described("Principal components of a teacher's layer that the student predicts.", 64)
    fit_minutes: float = described("Minutes of audio to which a teacher's projection is fitted.", 30.0)
    labels: str | None = described(
        "Folder for the teachers' targets of all recordings, which are then made before training; by default they are "
        "computed during training.",
        None,
    )
    license: str | None = described("License of the student; by default the one that its teachers allow.", None)
    batch_size: int | None = described("Crops per device and step.", None, min=1)
    max_bad_files: str = shared("max_bad_files", "1%")

    def fields(self) -> dict[str, Any]:
        own = {"train_data": list(self.data), "max_minutes": self.max_minutes, "max_bad_files": self.max_bad_files}
        return super().fields() | own
