"""Resuming: which checkpoint a run continues from, also on another number of processes."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)


class ProcessCountCallback(TrainerCallback, ExportableState):
    """Stores in each checkpoint's `trainer_state.json` how many processes saved it, and their clips in an update."""

    def __init__(self, clips_per_update: int = 0):
        self.clips_per_update = clips_per_update

    def state(self) -> dict:
        facts = {"num_processes": PartialState().num_processes, "clips_per_update": self.clips_per_update}
        return {"args": {}, "attributes": facts}


def checkpoint_to_resume(output_dir: str | Path, overwrite: bool = False) -> str | None:
    """The last complete checkpoint in `output_dir`, from which a run continues; None where there is no checkpoint.

    With `overwrite`, checkpoints are removed; ValueError where none of them is complete. Rank 0 decides. Collective.
    """
    state = PartialState()
    decision = [_decide(Path(output_dir), overwrite) if state.is_main_process else None]
    (checkpoint,) = broadcast_object_list(decision)
    if isinstance(checkpoint, ValueError):
        raise checkpoint
    if checkpoint is not None:
        _log_resuming(checkpoint, state.num_processes)
    return checkpoint


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint that was saved completely; None where there is none.

    Trainer writes `trainer_state.json` last (rank 0), and each rank writes its own random state. A process that was
    killed while saving leaves a folder without one of them, which is skipped with a warning.
    """
    for path in _checkpoints(Path(output_dir)):
        if checkpoint_is_complete(path):
            return str(path)
        logger.warning("%s is incomplete and is skipped.", path)
    return None


def checkpoint_is_complete(path: Path) -> bool:
    """Whether a checkpoint holds the trainer's state and the random state of each process that saved it."""
    if (facts := saved_facts(path)) is None:
        return False
    processes = facts["num_processes"]
    names = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    return all((path / name).is_file() for name in names)


def saved_facts(path: Path) -> dict[str, int] | None:
    """`num_processes` that saved a checkpoint and their `clips_per_update`; None without a readable trainer's state."""
    try:
        stored = TrainerState.load_from_json(str(path / "trainer_state.json")).stateful_callbacks
    except (OSError, ValueError, TypeError):
        return None
    # A checkpoint of the stock Trainer has as many processes as random states.
    facts = {"num_processes": max(len(list(path.glob("rng_state_*.pth"))), 1), "clips_per_update": 0}
    return facts | (stored or {}).get(ProcessCountCallback.__name__, {}).get("attributes", {})


def _decide(output_dir: Path, overwrite: bool) -> str | ValueError | None:
    """The checkpoint to continue from, or the error by which a run must not start."""
    checkpoints = _checkpoints(output_dir)
    if overwrite:
        for path in checkpoints:
            logger.warning("Removing %s: overwrite was requested.", path)
            shutil.rmtree(path)
        return None
    checkpoint = last_complete_checkpoint(output_dir)
    if checkpoint is None and checkpoints:
        return ValueError(
            f"{output_dir} holds {len(checkpoints)} checkpoints, such as {checkpoints[0].name}, and none of them is "
            "complete, so the run cannot continue there. Choose another --output_dir, or give --overwrite true to "
            "remove them and start from zero."
        )
    return checkpoint


def _checkpoints(output_dir: Path) -> list[Path]:
    """Folders of checkpoints, the newest first."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    found = [(int(match[1]), path) for path in output_dir.glob("*") if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _log_resuming(checkpoint: str, processes: int) -> None:
    logger.info("Resuming from %s.", checkpoint)
    facts = saved_facts(Path(checkpoint))
    if facts["num_processes"] != processes:
        logger.warning(
            "%s was saved by %d processes and is resumed by %d: the run continues, but not bit-exactly. Random states "
            "differ, and so does the number of clips per update unless the batch size or the accumulation is adapted "
            "(%d clips when it was saved).",
            checkpoint,
            facts["num_processes"],
            processes,
            facts["clips_per_update"],
        )
