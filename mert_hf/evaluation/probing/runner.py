"""`evaluate`: from the name of a task and a model to results, their curves and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...encoders import Encoder
from ...encoders.own import ClipEncoder
from ...utils.devices import resolve_device
from ...utils.files import check_output_file, check_output_folder, write_json
from ...utils.optional import require_extra
from ..metrics.predictions import predictions_path, write_predictions
from ..tasks import Task, get_task
from .curves import deformed_results, few_shot_results
from .evaluation import Evaluation
from .features import chosen_encoder
from .results import model_name
from .settings import EvaluationSettings

ANSWER_KINDS = ("classification", "multilabel", "regression", "key")  # one answer a recording


def evaluate(
    task: str | Task,
    data_dir: str | Path,
    model: str | Encoder | ClipEncoder | None = None,
    output: str | Path | None = None,
    settings: EvaluationSettings | None = None,
    cache_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    name: str | None = None,
    features: str | Path | None = None,
    trust_remote_code: bool = False,
    **task_options: Any,
) -> dict[str, Any]:
    """Evaluates a model on a task.

    Args:
        task: a name of `mert_hf.evaluation.tasks.TASK_NAMES`, "audiofolder", or a `Task`.
        data_dir: the data set in its official layout.
        model: as of `open_encoder`: Hub id, folder, "random:FOLDER", a baseline such as "mfcc", or an encoder of your
            own, see `mert_hf.encoders.own`.
        output: JSON file for the results; the predictions of the test recordings are written next to it.
        settings: protocol, layers, learning rates, seeds, training.
        cache_dir: folder for features and probes; default: `default_cache_dir()`.
        device: where encoder and probes run; a GPU if there is one.
        dtype: precision of the model; "auto" is the protocol's.
        name: the model's name in reports; default: its Hub id, or the last part of its folder.
        features: folder of precomputed features in place of `model`, see `PrecomputedFeatures`.
        trust_remote_code: run the code that a model of the Hub carries.
        task_options: `target` and `kind` of `get_task`.

    Returns:
        The results as written to `output`: test metrics with mean and standard deviation over seeds and intervals over
        recordings, the chosen layer and learning rate, validation and test by layer, the grid, protocol, versions; with
        deformations or shots their curves, `deformed` and `few_shot`.

    Raises:
        ValueError: wrong layout, missing files, unknown names; the text lists what was looked for.
        OSError: `output` or `cache_dir` cannot be written; raised before any work.
    """
    require_extra("eval", "scipy", "sklearn", "mir_eval")
    settings = settings or EvaluationSettings()
    if output is not None:
        check_output_file(output)
    cache_dir = Path(cache_dir or default_cache_dir())
    check_output_folder(cache_dir)
    task = get_task(task, **task_options) if isinstance(task, str) else task
    _check_kind(task, settings)
    data = task.load(data_dir, settings.tolerance()).with_channels(settings.channels)
    encoder = chosen_encoder(model, features, data_dir, device, settings.encoder_dtype(dtype), trust_remote_code)
    evaluation = Evaluation(task, data, encoder, settings, cache_dir, Path(data_dir), resolve_device(device))
    results, predictions = evaluation.run()
    if settings.deformations:
        results["deformed"] = deformed_results(evaluation, results)
    if settings.shots:
        results["few_shot"] = few_shot_results(evaluation, results)
    results |= {
        "model": name or model_name(encoder if model is None else model),
        "model_fingerprint": encoder.fingerprint,
    }
    if output is not None:
        write_predictions(predictions_path(output), predictions)
        write_json(Path(output), results)
    return results


def _check_kind(task: Task, settings: EvaluationSettings) -> None:
    """Refuses a probe, curves and channels that a task cannot have, before any work."""
    if settings.deformations and task.kind == "separation":
        raise ValueError(f"Deformations change what {task.name} is to find; leave out --deform.")
    if settings.channels != "mean" and task.kind == "separation":
        raise ValueError(f"The stems of {task.name} are those of all channels; leave out --channels.")
    if settings.probe_kind == "knn" and task.kind not in ANSWER_KINDS:
        raise ValueError(
            f"The probe 'knn' answers for whole recordings ({', '.join(ANSWER_KINDS)}), and {task.name} is of the kind "
            f"{task.kind!r}; leave out --probe."
        )
    if settings.shots and task.kind == "retrieval":
        raise ValueError(f"{task.name} trains no probe, so there is no curve of few recordings; leave out --shots.")


def default_cache_dir() -> Path:
    """Features and probes by default: `mert_hf/evaluation` below the Hugging Face home."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "mert_hf" / "evaluation"
