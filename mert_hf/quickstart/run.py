"""The full pipeline in minutes, offline, on 2 CPU cores: scores, teachers, pre-training, probes, a checkpoint, a page.

    mert-hf quickstart --output outputs/quickstart

Each step is a function that calls the library as a user would: render scores (`mert_hf.quickstart.excerpts`), fit the
k-means teacher, label, pre-train (`mert_hf.pretraining`), probe (`mert_hf.evaluation`), save (`mert_hf.hub`), reload
with `AutoModel`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig

from ..corpora.dataset import AudioCropDataset, open_recordings
from ..corpora.labels import label_files
from ..evaluation import EvaluationSettings, evaluate
from ..hub.cards import CardFacts, Measurement, create_card, training_facts
from ..hub.checkpoint import CARD_FILE, save_checkpoint
from ..hub.names import DEFAULT_CHECKPOINT, RANDOM_PREFIX, resolve_checkpoint
from ..modeling.configuration_mert2 import MERT2Config
from ..pretraining.arguments import MERTTrainingArguments, PretrainingDataArguments, PretrainingModelArguments
from ..pretraining.resuming import last_complete_checkpoint
from ..pretraining.run import build_trainer
from ..pretraining.trainer import MERTTrainer
from ..teachers import FeatureSet, FeatureTeacher, KMeansTeacher
from ..utils.files import check_nothing_is_replaced, check_output_folder
from .excerpts import PRETRAINING_SECONDS, ScoreSets, render_sets
from .report import PAGE, SUMMARY, ProbeResult, Probes, QuickstartReport, embed_library, write_report
from .settings import QuickstartSettings

logger = logging.getLogger(__name__)

TEACHERS_OF_CHECKPOINT = "teachers"
# The second generation's design in small: 25 frames/s, about 3 million parameters. A mel bin spans two semitones in the
# bass, so a constant-Q spectrum with 24 bins an octave is a second input.
STUDENT = {
    "model_type": "mert2",
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hop_length": 480,  # half as many Fourier transforms as at the published 240
    "subsampling_channels": [128, 192],
    "subsampling_depths": [1, 2],
    "subsampling_strides": [1, 2],
    "conv_depthwise_kernel_size": 15,
    "cqt_input_bins": 168,
    "cqt_loss_weight": 10.0,
    "unmasked_loss_weight": 0.5,
    "variant": "nano",
    "context_seconds": 6.0,
}
# Few clusters are learned in minutes; contexts of seconds make codes of key and timbre.
FEATURE_SETS = (
    FeatureSet("chroma_cqt", 64),
    FeatureSet("mfcc", 64),
    FeatureSet("log_cqt", 64),
    FeatureSet("chroma_cqt", 48, context=3.0),
    FeatureSet("mfcc", 48, context=2.0),
    FeatureSet("chroma_cqt", 48, context=10.0),
    FeatureSet("log_mel", 64),
)
# What the musical teacher gives for regression. A spectrum alone leaves timbre to the codes, and tempo to chance.
REGRESSED_SETS = (
    FeatureSet("log_cqt"),
    FeatureSet("mfcc"),
    FeatureSet("mfcc", context=2.0),
    FeatureSet("chroma_cqt"),
    FeatureSet("chroma_cqt", context=3.0),
    FeatureSet("tempogram"),
)
RANDOM_RATE = 1.5e-3  # peak learning rate from random weights
BUNDLED_RATE = 3e-4  # a high one would undo in minutes what the bundled weights learned in hours
SCORES = "scores"  # folder, the first thing that is written
LOG_EVERY = 10
SAVE_EVERY = 500


def run_quickstart(settings: QuickstartSettings) -> Path:
    """Runs all steps and returns the path of the results page.

    Raises:
        ImportError: the extra `quickstart` is not installed.
        ValueError: settings that leave nothing to train on or to probe.
        OSError: nothing can be written to the folder, or files of something else would be replaced there.
    """
    check_output_folder(settings.output)
    check_nothing_is_replaced(settings.output, SCORES, (SUMMARY, PAGE))
    torch.set_flush_denormal(True)
    folders = render_scores(settings)
    config = student_config(settings)
    teachers = prepare_teachers(settings, config, folders["pretraining"])
    labels = label_recordings(settings, folders["pretraining"], teachers)
    trainer = make_trainer(settings, config, folders["pretraining"], teachers, labels)
    constant = constant_predictions(trainer)
    before = trainer.evaluate()
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(trainer.args.output_dir))
    after = trainer.evaluate()
    objective = [
        (name.replace("_", " "), before[f"eval_{name}"], after[f"eval_{name}"], value)
        for name, value in sorted(constant.items())
    ]
    checkpoint = save_checkpoint(trainer.model, trainer.processing_class, settings.output / "model")
    probes = probe_everything(settings, checkpoint, folders["probes"])
    describe_checkpoint(settings, trainer, probes, checkpoint)
    library = embed_library(checkpoint, folders["probes"])
    facts = describe_run(settings, trainer, checkpoint)
    report = QuickstartReport("MERT in minutes", facts, objective, probes, trainer.state.log_history, library)
    return write_report(report, settings.output)


def render_scores(settings: QuickstartSettings) -> dict[str, Path]:
    """Step 1: scores to audio, the folders "pretraining" (train, valid) and "probes" (train, valid, test)."""
    sets = ScoreSets(
        settings.num_scores, settings.pretraining_excerpts, settings.probe_excerpts, notes=0, seed=settings.seed
    )
    return render_sets(sets, settings.output / SCORES, settings.workers, settings.progress)


def student_config(settings: QuickstartSettings) -> PretrainedConfig:
    """Configuration of the student: `STUDENT` from scratch, else that of the bundled checkpoint."""
    if settings.from_scratch:
        return MERT2Config(**{name: value for name, value in STUDENT.items() if name != "model_type"})
    return AutoConfig.from_pretrained(resolve_checkpoint(DEFAULT_CHECKPOINT))


def prepare_teachers(settings: QuickstartSettings, config: PretrainedConfig, data: Path) -> Path:
    """Step 2: the folder of the k-means teacher `acoustic` and the teacher of standardized features `musical`.

    A run that continues from the bundled checkpoint takes the teachers that it was trained with: clusters fitted anew
    have other numbers, and its heads would have to learn them from the start.
    """
    if not settings.from_scratch:
        return Path(resolve_checkpoint(DEFAULT_CHECKPOINT)) / TEACHERS_OF_CHECKPOINT
    folder = settings.output / TEACHERS_OF_CHECKPOINT
    if (folder / "musical").is_dir():  # saved last, by a run that was killed later
        return folder
    rates = {"sampling_rate": config.sampling_rate, "hop_length": config.samples_per_frame}
    length = round(PRETRAINING_SECONDS * config.sampling_rate)
    crops = AudioCropDataset(
        [str(path) for path in (data, *settings.train_data)], length, seed=settings.seed, split="train", **rates
    )
    chosen = np.random.default_rng(settings.seed).permutation(len(crops))[: settings.teacher_clips]
    clips = [crops[int(index)].waveform for index in chosen]
    acoustic = KMeansTeacher.fit(clips, FEATURE_SETS, seed=settings.seed, show_progress_bar=settings.progress, **rates)
    acoustic.save_pretrained(folder / "acoustic")
    FeatureTeacher.fit(clips, REGRESSED_SETS, **rates).save_pretrained(folder / "musical")
    return folder


def label_recordings(settings: QuickstartSettings, data: Path, teachers: Path) -> Path:
    """Step 3: the acoustic teacher's codes of all recordings, made once; crops are read many times."""
    folders = [str(folder) for folder in settings.train_data]
    files = [*open_recordings([str(data)]).names, *(open_recordings(folders, "train").names if folders else ())]
    teacher = KMeansTeacher.from_pretrained(teachers / "acoustic")
    label_files(files, teacher, settings.output / "labels", show_progress_bar=settings.progress)
    return settings.output / "labels"


def make_trainer(
    settings: QuickstartSettings, config: PretrainedConfig, data: Path, teachers: Path, labels: Path
) -> MERTTrainer:
    """Step 4: student, teachers, collator and data in a Trainer, as `mert-hf pretrain` builds them."""
    model = PretrainingModelArguments(
        model_name_or_path=None if settings.from_scratch else resolve_checkpoint(DEFAULT_CHECKPOINT),
        model_config=STUDENT if settings.from_scratch else {},
        acoustic_teacher={"type": "kmeans", "path": str(teachers / "acoustic")},
        musical_teacher={"type": "features", "path": str(teachers / "musical")},
        label_cache=str(labels),
    )
    crop = round(settings.crop_seconds * config.sampling_rate)
    recordings = PretrainingDataArguments(
        train_data=[str(folder) for folder in (data, *settings.train_data)],
        train_split="train",
        eval_data=[str(data)],
        eval_split="valid",
        crop_length=crop,
        min_duration=min(settings.crop_seconds, 3.0),
        mask_probability=0.45,
        mask_seconds=0.32,
    )
    return build_trainer(model, recordings, training_arguments(settings))


def training_arguments(settings: QuickstartSettings) -> MERTTrainingArguments:
    """Trainer's arguments: AdamW as in the paper's recipe, everything on the CPU."""
    usual_rate = RANDOM_RATE if settings.from_scratch else BUNDLED_RATE
    return MERTTrainingArguments(
        output_dir=str(settings.output / "training"),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        max_steps=settings.steps,
        max_minutes=settings.minutes,
        learning_rate=usual_rate if settings.learning_rate is None else settings.learning_rate,
        warmup_steps=50,
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        weight_decay=0.01,
        max_grad_norm=5.0,
        seed=settings.seed,
        bf16=settings.dtype == "bfloat16",
        use_cpu=True,
        logging_steps=LOG_EVERY,
        save_steps=SAVE_EVERY,
        save_total_limit=1,
        ignore_data_skip=True,  # crops are random: a resumed run need not read the earlier ones
        report_to="none",
        disable_tqdm=not settings.progress,
        dataloader_num_workers=min(settings.workers - 1, 1),
    )


def constant_predictions(trainer: MERTTrainer) -> dict[str, float]:
    """Losses and accuracies that the best constant reaches on the masked frames of the held-out excerpts.

    Returns:
        For codebook k `codebook_k_loss`, the entropy of its codes in nats, and `codebook_k_accuracy`, the share of the
        commonest code; `cqt_loss`, the mean squared error of the mean spectrum.
    """
    codes, spectra = [], []
    for batch in trainer.get_eval_dataloader():
        mask = batch["mask_time_indices"]
        frames = mask.shape[1]
        codes.append(batch["codes"][..., :frames].transpose(0, 1)[:, mask])
        spectra.append(batch["cqt"][:, :frames][mask])
    result = {"cqt_loss": float(torch.cat(spectra).var(dim=0, correction=0).mean())}
    for index, book in enumerate(torch.cat(codes, dim=1)):
        share = torch.bincount(book).float() / len(book)
        result[f"codebook_{index}_loss"] = float(-(share * share.clamp(min=1e-12).log()).sum())
        result[f"codebook_{index}_accuracy"] = float(share.max())
    return result


def probe_everything(settings: QuickstartSettings, checkpoint: Path, data: Path) -> Probes:
    """Step 5: this run's network, the bundled one, the same network untrained, MFCC and chroma before one probe."""
    models = {"this run": str(checkpoint)}
    if not settings.from_scratch:
        models[f"{DEFAULT_CHECKPOINT} as bundled"] = DEFAULT_CHECKPOINT
    models |= {"untrained": f"{RANDOM_PREFIX}{checkpoint}", "mfcc": "mfcc", "chroma": "chroma"}
    tasks = {"key": "key", "instrument": "family"}
    return probe_encoders(models, data, tasks, settings.output / "probes", settings.seeds, settings.progress)


def describe_checkpoint(settings: QuickstartSettings, trainer: MERTTrainer, probes: Probes, checkpoint: Path) -> None:
    """Step 6: the checkpoint's card, now with what was measured, and the training log."""
    measurements = tuple(
        Measurement(
            task=f"rendered scores, {task}",
            metric="accuracy",
            value=result.mean,
            spread=result.spread,
            runs=result.seeds,
            dataset="rendered-scores",
            dataset_name="music21 scores, rendered with General MIDI instruments",
            protocol="mert-hf evaluate, protocol strict, one learning rate",
        )
        for task, result in probes["this run"].items()
    )
    facts = CardFacts(
        model_name="mert-nano-quickstart",
        base_model=None if settings.from_scratch else DEFAULT_CHECKPOINT,
        data="Bach chorales and fiddle tunes of the music21 corpus, rendered with General MIDI instruments",
        teachers=("k-means codes", "log constant-Q spectrum"),
        training=training_facts(trainer.state, trainer.args),
        measurements=measurements,
    )
    (checkpoint / CARD_FILE).write_text(str(create_card(trainer.model, facts)), encoding="utf-8")
    log = json.dumps(trainer.state.log_history, indent=1)
    (checkpoint / "training_log.json").write_text(log + "\n", encoding="utf-8")


def describe_run(settings: QuickstartSettings, trainer: MERTTrainer, checkpoint: Path) -> list[str]:
    """Facts for the top of the page; reloads the checkpoint with `AutoModel` and states whether it is the same."""
    reloaded = AutoModel.from_pretrained(checkpoint).float().eval()
    waveform = torch.randn(
        1, trainer.model.config.sampling_rate, generator=torch.Generator().manual_seed(settings.seed)
    )
    with torch.no_grad():
        trained = trainer.model.mert.eval().float()
        same = torch.equal(trained(waveform).last_hidden_state, reloaded(waveform).last_hidden_state)
    start = "random weights" if settings.from_scratch else f"the bundled {DEFAULT_CHECKPOINT}"
    return [
        f"{trainer.model.mert.num_parameters():,} parameters, started from {start}",
        f"{trainer.state.global_step} updates of {settings.batch_size} x {settings.crop_seconds:g} s in at most "
        f"{settings.minutes:g} minutes",
        f"saved to `{checkpoint.name}`, reloaded with `AutoModel`: "
        + ("identical output" if same else "the output differs"),
    ]


LEARNING_RATES = (1e-3,)
MAX_EPOCHS = 40
SECONDS = 30.0  # chunks longer than the excerpts: each is described as a whole


def probe_encoders(
    models: Mapping[str, str],
    folder: Path,
    tasks: Mapping[str, str],
    output: Path,
    seeds: Sequence[int] = (0, 1, 2),
    progress: bool = True,
) -> Probes:
    """Evaluates models on tasks by the default protocol, with one learning rate.

    Args:
        models: name -> what `mert-hf evaluate --model` takes.
        folder: an audiofolder. All tasks share its features.
        tasks: name -> the column that is recognized.
        output: folder for features, probes and results (`results/TASK-NAME.json`).
        seeds: seeds of the probes.
        progress: show progress bars.
    """
    settings = EvaluationSettings(
        learning_rates=LEARNING_RATES, seeds=seeds, window=SECONDS, max_epochs=MAX_EPOCHS, progress=progress
    )

    def probe(name: str, model: str, task: str, column: str) -> ProbeResult:
        file = output / "results" / f"{task}-{name}.json".replace(" ", "-")
        options = {"device": "cpu", "name": name, "target": column}
        results = evaluate("audiofolder", folder, model, file, settings, output / "cache", **options)
        found, chance = results["metrics"]["accuracy"], 1 / len(results["data"]["labels"])
        return ProbeResult(found["mean"], found["std"] or 0.0, chance, len(found["values"]))

    return {
        name: {task: probe(name, model, task, column) for task, column in tasks.items()}
        for name, model in models.items()
    }
