"""The full pipeline in minutes, offline, on 2 CPU cores: scores, teachers, pre-training, probes, a checkpoint, a page.

    mert-hf quickstart --output outputs/quickstart

Each step is a function that calls the library as a user would: render scores (`mert_hf.quickstart.excerpts`), fit the
k-means teacher, label, pre-train a small student from random weights and probe it on the way (`mert_hf.pretraining`),
compare it with the bundled checkpoint and hand-made features (`mert_hf.evaluation`), save (`mert_hf.hub`), reload with
`AutoModel`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

from ..corpora.dataset import AudioCropDataset, open_recordings
from ..corpora.labels import label_files
from ..evaluation import EvaluationSettings, evaluate
from ..hub.cards import CardFacts, Measurement, create_card, training_facts
from ..hub.checkpoint import CARD_FILE, save_checkpoint
from ..hub.names import DEFAULT_CHECKPOINT
from ..modeling.configuration_mert2 import MERT2Config
from ..pretraining.arguments import MERTTrainingArguments, PretrainingDataArguments, PretrainingModelArguments
from ..pretraining.probing import ProbeCallback
from ..pretraining.resuming import last_complete_checkpoint
from ..pretraining.run import build_trainer
from ..pretraining.trainer import MERTTrainer
from ..recordings.targets import TONICS
from ..teachers import FeatureSet, FeatureTeacher, KMeansTeacher, load_teacher
from ..utils.files import check_nothing_is_replaced, check_output_folder
from .excerpts import CHORDS, INTERVALS, PERFORMANCES, PRETRAINING, PRETRAINING_SECONDS, ScoreSets, render_sets
from .report import (
    PAGE,
    REEL,
    SUMMARY,
    Curve,
    QuickstartReport,
    Score,
    Scores,
    embed_library,
    form_of,
    render_score,
    write_report,
)
from .settings import QuickstartSettings

TEACHERS_OF_CHECKPOINT = "teachers"
# The second generation's design in small: 25 frames/s, half a million parameters; that of the bundled mert2-nano is
# six times as large (examples/configs/mert2-nano.yaml). With its smaller weights of the regressed features and of the
# frames that are heard, the student forgets the spectrum in these minutes.
STUDENT = {
    "model_type": "mert2",
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hop_length": 480,  # half as many Fourier transforms as at the published 240
    "subsampling_channels": [64, 96],
    "subsampling_depths": [1, 2],
    "subsampling_strides": [1, 2],
    "conv_depthwise_kernel_size": 15,
    "cqt_loss_weight": 40.0,
    "unmasked_loss_weight": 1.0,
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
# Chunks longer than the excerpts: each is a whole. Nearest neighbors train nothing, so that a probe costs seconds.
WHOLE = EvaluationSettings(layers="all", window=30.0, progress=False)
KNN = replace(WHOLE, probe_kind="knn")
THIS_RUN = "this run"
CHORD, SAME_PIECE = "chords on unseen instruments", "excerpts of the same piece"
METRICS = {CHORD: "accuracy", SAME_PIECE: "mean_average_precision"}
SCORES = "scores"  # folder, the first thing that is written
LOG_EVERY = 10
SAVE_EVERY = 500


def run_quickstart(settings: QuickstartSettings) -> Path:
    """Runs all steps and returns the path of the results page.

    Raises ImportError where the extra `quickstart` is missing, ValueError for settings that leave nothing to train on
    or to probe, and OSError where nothing can be written, or files of something else would be replaced.
    """
    check_output_folder(settings.output)
    check_nothing_is_replaced(settings.output, SCORES, (SUMMARY, PAGE))
    torch.set_flush_denormal(True)
    folders = render_scores(settings)
    teachers = fit_teachers(settings, folders[PRETRAINING])
    labels = label_recordings(settings, folders[PRETRAINING], teachers)
    trainer = make_trainer(settings, folders[PRETRAINING], teachers, labels)
    constant = constant_predictions(trainer)
    before = trainer.evaluate()
    curve = train_and_probe(settings, trainer, folders[CHORDS])
    after = trainer.evaluate()
    objective = [
        (name.replace("_", " "), before[f"eval_{name}"], after[f"eval_{name}"], value)
        for name, value in sorted(constant.items())
    ]
    checkpoint = save_checkpoint(trainer.model, trainer.processing_class, settings.output / "model")
    scores = score_encoders(settings, checkpoint, folders)
    describe_checkpoint(trainer, scores, checkpoint)
    facts = describe_run(settings, trainer, checkpoint)
    report = QuickstartReport(
        title="MERT in minutes",
        facts=facts,
        curve=curve,
        scores=scores,
        chance=1 / (len(TONICS) * len(INTERVALS)),
        library=embed_library(folders[PERFORMANCES]),
        form=form_of(render_score(REEL), REEL),
        objective=objective,
        history=trainer.state.log_history,
    )
    return write_report(report, settings.output)


def render_scores(settings: QuickstartSettings) -> dict[str, Path]:
    """Step 1: scores to audio, the folders "pretraining" (train, valid), "chords" (all splits) and "performances"."""
    sets = ScoreSets(
        num_scores=settings.num_scores,
        pretraining=settings.pretraining_excerpts,
        performances=settings.performances,
        probes=0,
        chords=settings.chords,
        seed=settings.seed,
    )
    return render_sets(sets, settings.output / SCORES, settings.workers, settings.progress)


def fit_teachers(settings: QuickstartSettings, data: Path) -> Path:
    """Step 2: the folder of the k-means teacher `acoustic` and the teacher of standardized features `musical`."""
    folder = settings.output / TEACHERS_OF_CHECKPOINT
    if (folder / "musical").is_dir():  # saved last, by a run that was killed later
        return folder
    config = student_config()
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


def student_config() -> MERT2Config:
    return MERT2Config(**{name: value for name, value in STUDENT.items() if name != "model_type"})


def label_recordings(settings: QuickstartSettings, data: Path, teachers: Path) -> Path:
    """Step 3: the targets of all recordings, made once; crops are read many times. Folders `acoustic` and `musical`."""
    folders = [str(folder) for folder in settings.train_data]
    files = [*open_recordings([str(data)]).names, *(open_recordings(folders, "train").names if folders else ())]
    labels = settings.output / "labels"
    for name in ("acoustic", "musical"):
        label_files(files, load_teacher(teachers / name), labels / name, show_progress_bar=settings.progress)
    return labels


def make_trainer(settings: QuickstartSettings, data: Path, teachers: Path, labels: Path) -> MERTTrainer:
    """Step 4: student, teachers, collator and data in a Trainer, as `mert-hf pretrain` builds them."""
    model = PretrainingModelArguments(
        model_config=STUDENT,
        acoustic_teacher={"type": "kmeans", "path": str(teachers / "acoustic")},
        musical_teacher={"path": str(teachers / "musical"), "labels": str(labels / "musical")},
        label_cache=str(labels / "acoustic"),
    )
    recordings = PretrainingDataArguments(
        train_data=[str(folder) for folder in (data, *settings.train_data)],
        train_split="train",
        eval_data=[str(data)],
        eval_split="valid",
        crop_length=round(settings.crop_seconds * student_config().sampling_rate),
        min_duration=min(settings.crop_seconds, 3.0),
        mask_probability=0.45,
        mask_seconds=0.32,
    )
    return build_trainer(model, recordings, training_arguments(settings))


def training_arguments(settings: QuickstartSettings) -> MERTTrainingArguments:
    """Trainer's arguments: AdamW as in the paper's recipe, everything on the CPU."""
    return MERTTrainingArguments(
        output_dir=str(settings.output / "training"),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        max_steps=settings.steps,
        max_minutes=settings.minutes,
        learning_rate=settings.learning_rate,
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

    For codebook k these are `codebook_k_loss`, the entropy of its codes in nats, and `codebook_k_accuracy`, the share
    of the commonest code; `cqt_loss` is the mean squared error of the mean spectrum.
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


def train_and_probe(settings: QuickstartSettings, trainer: MERTTrainer, data: Path) -> Curve:
    """Step 5: trains, and recognizes chords by the model before, during and after it."""
    probes = ProbeCallback(
        {"audiofolder:chord": data},
        trainer.processing_class,
        trainer.log,
        settings.probe_every,
        replace(KNN, resamples=0),
    )
    name = "probe_audiofolder_accuracy"
    first = probes.probe(trainer.model)[name]
    trainer.add_callback(probes)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(trainer.args.output_dir))
    during = {entry["step"]: entry[name] for entry in trainer.state.log_history if name in entry}
    return sorted({0: first, **during, trainer.state.global_step: probes.probe(trainer.model)[name]}.items())


def score_encoders(settings: QuickstartSettings, checkpoint: Path, folders: Mapping[str, Path]) -> Scores:
    """Step 6: this run's network, the bundled one and hand-made features, by nearest neighbors."""
    models = {THIS_RUN: str(checkpoint), DEFAULT_CHECKPOINT: DEFAULT_CHECKPOINT, "mfcc": "mfcc", "chroma": "chroma"}
    tasks = {
        CHORD: (folders[CHORDS], KNN, {"target": "chord", "kind": "classification"}),
        SAME_PIECE: (folders[PERFORMANCES], WHOLE, {"target": "piece", "kind": "retrieval"}),
    }
    output = settings.output / "probes"

    def score(name: str, task: str) -> Score:
        data, probe, options = tasks[task]
        file, options = output / "results" / f"{task}-{name}.json".replace(" ", "-"), {**options, "device": "cpu"}
        results = evaluate("audiofolder", data, models[name], file, probe, output / "cache", name=name, **options)
        found = results["metrics"][METRICS[task]]
        return Score(found["mean"], *found["interval"])

    return {task: {name: score(name, task) for name in models} for task in tasks}


def describe_checkpoint(trainer: MERTTrainer, scores: Scores, checkpoint: Path) -> None:
    """Step 7: the checkpoint's card, now with what was measured, and the training log."""
    measurements = tuple(
        Measurement(
            task=f"rendered scores, {task}",
            metric=METRICS[task],
            value=of_encoders[THIS_RUN].value,
            dataset="rendered-scores",
            dataset_name="music21 scores, rendered with General MIDI instruments",
            protocol="mert-hf evaluate, protocol strict, nearest neighbors",
        )
        for task, of_encoders in scores.items()
    )
    facts = CardFacts(
        model_name="mert-nano-quickstart",
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
    return [
        f"{trainer.model.mert.num_parameters():,} parameters, started from random weights",
        f"{trainer.state.global_step} updates of {settings.batch_size} x {settings.crop_seconds:g} s in at most "
        f"{settings.minutes:g} minutes",
        f"saved to `{checkpoint.name}`, reloaded with `AutoModel`: "
        + ("identical output" if same else "the output differs"),
    ]
