"""From clean clips to a batch of the pre-training model: crop, label the clean crops, mix noise in, mask spans."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from ..corpora.crops import AudioCrop, derive_seed, draw_integer
from ..corpora.labels import LabelCache
from ..modeling.configuration_mert import MERTConfig
from ..modeling.feature_extraction_mert import MERTFeatureExtractor
from ..teachers.base import AcousticTeacher, MusicalTeacher, codebook_sizes_of
from ..utils.devices import Stopwatch, device_of
from .student_input import InputAugmentation, NoiseMixture, SpanMasking

IGNORED_CODE = -100
# Key of the clean clips, which stay in a batch instead of targets where these are computed on the device.
CLEAN_WAVEFORMS = "clean_waveforms"


class MERTBatch(dict):
    """The tensors of a batch and, as attributes, what the model does not receive."""

    def __init__(self, tensors: Mapping[str, torch.Tensor] = (), like: Mapping[str, torch.Tensor] = ()):
        """The attributes are those of the batch `like`, if it has any."""
        super().__init__(tensors)
        self.crops: list[tuple[str, int]] = []  # (recording, first sample) of each clip
        self.audio_seconds = 0.0  # without padding
        self.teacher_times: dict[str, Stopwatch] = {}  # computation of each teacher
        # Scalar bool, whether a live teacher gave a code outside its codebook; on the device until somebody reads it.
        self.invalid_codes: torch.Tensor | None = None
        self.__dict__.update(getattr(like, "__dict__", {}))

    def to(self, *args, **kwargs) -> MERTBatch:
        """The batch with its tensors moved, as `torch.Tensor.to` does; accelerate calls this."""
        return MERTBatch({name: tensor.to(*args, **kwargs) for name, tensor in self.items()}, like=self)

    def pin_memory(self) -> MERTBatch:
        """The batch with its tensors in page-locked memory; torch's DataLoader calls this."""
        return MERTBatch({name: tensor.pin_memory() for name, tensor in self.items()}, like=self)


@dataclass
class DataCollatorForMERTPreTraining:
    """Makes pre-training batches of clean clips: crops, labels the clean crops, mixes noise in, masks spans.

    It works with any configuration that has the rates, `num_frames` and the sizes of targets that `MERTConfig` and
    `MERT2Config` share, and with the stock `Trainer` and any number of data workers as long as the teachers are on the
    CPU or labels are cached. Random draws come from the seed of each clip (`AudioCropDataset` gives one), so that a
    batch does not depend on the worker that makes it and a resumed run makes the same. Clips without a seed take their
    draws from a generator that is seeded for each worker and epoch.

    Args:
        feature_extractor: pads the mixed clips, and normalizes them where its `do_normalize` is true.
        config: configuration of the student; it gives numbers of frames and the sizes of the targets.
        acoustic_teacher: clips (batch, samples) -> codes (batch, codebooks, frames), an `AcousticTeacher` or any
            callable with its attributes; None with config.num_codebooks 0.
        musical_teacher: clips (batch, samples) -> spectrum (batch, frames, bins), a `MusicalTeacher` or any callable
            with its attributes; None with config.cqt_bins 0. Any spectrum travels under the name `cqt`, log-mel too.
        mixture: noise mixture of the student's input, or None.
        augmentation: changes of the sound of the student's input, made before the mixture, or None.
        masking: draws the masked frames.
        label_cache: codes made ahead of time for whole files, which replace the acoustic teacher.
        value_caches: values made ahead of time for whole files, which follow those of the musical teacher.
        two_views: give the student two views of each clip, changed and masked by other draws, the second ones of a
            batch after the first ones; both have the targets of the clean clip.
        labels_on_device: leave the clean clips in the batch; `MERTTrainer` calls `add_targets` on the device of the
            model, while data workers decode the next batch. Required for teachers on a GPU with data workers.
        crop_length: samples to which longer clips are cut at a random place, a whole number of hops from their start.
            None for clips that are crops already, as those of `AudioCropDataset`, which reads no more than it needs.
        seed: seed of the draws for clips without a seed of their own.

    Raises:
        ValueError: teachers, cache and configuration do not fit each other.
    """

    feature_extractor: MERTFeatureExtractor
    config: MERTConfig
    acoustic_teacher: AcousticTeacher | Callable[[torch.Tensor], torch.Tensor] | None = None
    musical_teacher: MusicalTeacher | Callable[[torch.Tensor], torch.Tensor] | None = None
    mixture: NoiseMixture | None = field(default_factory=NoiseMixture)
    masking: SpanMasking = field(default_factory=SpanMasking)
    augmentation: InputAugmentation | None = None
    label_cache: LabelCache | None = None
    value_caches: Sequence[LabelCache] = ()
    two_views: bool = False
    labels_on_device: bool = False
    crop_length: int | None = None
    seed: int = 0

    def __post_init__(self):
        self._process = os.getpid()
        self._generator: tuple[int, torch.Generator] | None = None
        self._reader = MERTFeatureExtractor(sampling_rate=self.config.sampling_rate, do_normalize=False)
        if self.crop_length is not None and self.config.num_frames(self.crop_length) < 1:
            raise ValueError(
                f"crop_length={self.crop_length} samples is too short: the first frame needs "
                f"{self.config.receptive_field} samples."
            )
        sources = [self.acoustic_teacher, self.label_cache, self.musical_teacher, *self.value_caches]
        check_rates(self.config, self.feature_extractor, sources)
        check_targets(self.config, self.acoustic_teacher, self.label_cache, [self.musical_teacher, *self.value_caches])
        if self.augmentation is not None and self.augmentation.shift * self.config.frame_rate >= 1:
            raise ValueError(
                f"shift={self.augmentation.shift:g} of the augmentation must be less than a frame of the student, "
                f"{1 / self.config.frame_rate:g} s."
            )
        if self.two_views and self.augmentation is None:
            raise ValueError("Two views of a clip need an augmentation, by which they differ.")

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_generator": None}

    def __setstate__(self, state: dict) -> None:
        # A pickled collator belongs to the process that opens it (spawned workers); a forked one keeps its parent's id.
        self.__dict__.update(state, _process=os.getpid())

    def __call__(self, features: Sequence[Any]) -> MERTBatch:
        """Makes a batch.

        Args:
            features: clips: `AudioCrop`, anything that the feature extractor reads (arrays at the model's rate, Audio
                dictionaries and decoders of datasets), or a dictionary with one under "input_values" or "audio".

        Returns:
            `input_values` (batch, samples) float32, `attention_mask` (batch, samples) int64 if clips differ in length,
            `mask_time_indices` (batch, frames) bool, `codes` (batch, codebooks, frames) int64 with -100 past a clip's
            end, `cqt` (batch, frames, bins) float32; or `clean_waveforms` instead of the last two. With two views the
            batch has twice as many rows as clips.

        Raises:
            ValueError: a clip is too short for a frame or has values that are not finite, or a teacher on a GPU is
                used in a forked worker.
        """
        if not features:
            raise ValueError("A batch needs at least one clip.")
        crops = [self._cut(self._as_crop(feature)) for feature in features]
        clean = torch.nn.utils.rnn.pad_sequence([crop.waveform for crop in crops], batch_first=True)
        lengths = torch.tensor([len(crop.waveform) for crop in crops])
        frame_lengths = self.config.num_frames(lengths)
        if (frame_lengths < 1).any():
            raise ValueError(
                f"A clip of {int(lengths.min())} samples is too short: the first frame needs "
                f"{self.config.receptive_field}. Leave such clips out (min_duration of AudioCropDataset)."
            )
        batch = MERTBatch(self._views(clean, lengths, frame_lengths, crops))
        batch.crops = [(crop.source, crop.offset) for crop in crops]
        batch.audio_seconds = int(lengths.sum()) / self.config.sampling_rate
        if self.label_cache is not None:
            batch["codes"] = for_views(self._cached_codes(crops, frame_lengths), batch)
        if self.value_caches:
            batch["cqt"] = for_views(self._cached_values(crops, frame_lengths), batch)
        batch[CLEAN_WAVEFORMS] = clean
        return batch if self.labels_on_device else self.add_targets(batch)

    def for_evaluation(self) -> DataCollatorForMERTPreTraining:
        """This collator without changes of the input, and with masks that depend on nothing but the clip."""
        masking = replace(self.masking, require_same_masks=False)
        return replace(self, mixture=None, augmentation=None, two_views=False, masking=masking)

    @torch.no_grad()
    def add_targets(self, batch: MERTBatch) -> MERTBatch:
        """Replaces the clean clips of a batch by the teachers' targets, on the device where the clips are.

        Codes that are out of range raise at once on the CPU; on another device `batch.invalid_codes` records them, as
        a look at them would make the host wait for the device.
        """
        self.check_forked_worker(os.getpid() != self._process)
        waveforms = batch.pop(CLEAN_WAVEFORMS)
        if self.acoustic_teacher is not None and self.label_cache is None:
            codes = self._run_teacher("acoustic_teacher", waveforms, batch, -1)
            batch.invalid_codes = codes_out_of_range(codes, self.config.resolved_codebook_sizes)
            if codes.device.type == "cpu":
                refuse_invalid_codes(batch.invalid_codes, codes, self.config.resolved_codebook_sizes)
            batch["codes"] = self._ignore_padding(for_views(codes.long(), batch), batch)
        if self.musical_teacher is not None:
            values = for_views(self._run_teacher("musical_teacher", waveforms, batch, 1).float(), batch)
            batch["cqt"] = torch.cat([values, batch["cqt"]], dim=2) if "cqt" in batch else values
        return batch

    def check_forked_worker(self, forked: bool) -> None:
        """Raises ValueError for teachers on a GPU in forked data workers, where CUDA cannot be initialized again."""
        for teacher in (self.acoustic_teacher, self.musical_teacher):
            if forked and teacher is not None and device_of(teacher).type not in ("cpu", "meta"):
                raise ValueError(
                    f"{type(teacher).__name__} is on {device_of(teacher)}, and CUDA cannot be used in a forked "
                    "data worker. Either set labels_on_device=True and train with MERTTrainer (labels are computed on "
                    "the device while workers decode), or set dataloader_num_workers=0, or move the teacher to the "
                    "CPU, or make the labels ahead of time with `mert-hf label`."
                )

    def _as_crop(self, feature: Any) -> AudioCrop:
        """Any of the accepted items as a crop with a seed."""
        if isinstance(feature, AudioCrop):
            # The extractor would refuse it too, but only here is the name of its recording known.
            if feature.waveform.dim() != 1 or not torch.isfinite(feature.waveform).all():
                raise ValueError(
                    f"A clip must have shape (samples,) and finite values; that of {feature.source} at sample "
                    f"{feature.offset} has shape {tuple(feature.waveform.shape)}."
                )
            return feature
        clip = self._reader([find_clip(feature)], sampling_rate=self.config.sampling_rate)["input_values"][0]
        seed = int(torch.randint(2**62, (), generator=self._own_generator()))
        return AudioCrop(torch.from_numpy(np.asarray(clip)), source="", offset=0, seed=seed)

    def _cut(self, crop: AudioCrop) -> AudioCrop:
        """A random part of `crop_length` samples of a longer clip."""
        room = len(crop.waveform) - (self.crop_length or len(crop.waveform))
        if room <= 0:
            return crop
        generator = torch.Generator().manual_seed(derive_seed(crop.seed, 3))
        hop = self.config.samples_per_frame
        start = draw_integer(0, room // hop, generator) * hop
        waveform = crop.waveform[start : start + self.crop_length]
        codes = None if crop.codes is None else crop.codes[:, start // hop :]
        return replace(crop, waveform=waveform, offset=crop.offset + start, codes=codes)

    def _own_generator(self) -> torch.Generator:
        """The generator of this worker and epoch, for clips without a seed."""
        worker = get_worker_info()
        # torch draws a new base seed for each epoch from the main process's (restorable) generator.
        key = self.seed if worker is None else worker.seed
        if self._generator is None or self._generator[0] != key:
            self._generator = (key, torch.Generator().manual_seed(derive_seed(self.seed, key)))
        return self._generator[1]

    def _views(
        self, clean: torch.Tensor, lengths: torch.Tensor, frame_lengths: torch.Tensor, crops: Sequence[AudioCrop]
    ) -> dict[str, torch.Tensor]:
        """The student's input and masks: of each crop one view or two, the second ones after the first ones."""
        if self.two_views:
            crops = [*crops, *(replace(crop, seed=derive_seed(crop.seed, 6)) for crop in crops)]
            clean, lengths, frame_lengths = clean.repeat(2, 1), lengths.repeat(2), frame_lengths.repeat(2)
        mask = self._draw_mask(frame_lengths, crops)
        return {**self._student_input(clean, lengths, crops), "mask_time_indices": mask}

    def _student_input(
        self, clean: torch.Tensor, lengths: torch.Tensor, crops: Sequence[AudioCrop]
    ) -> dict[str, torch.Tensor]:
        """Changed, mixed and normalized input_values, and the attention_mask if clips differ in length."""
        mixed = clean
        if self.augmentation is not None:  # each clip is changed with its own seed
            pairs = ((crop, torch.Generator().manual_seed(derive_seed(crop.seed, 5))) for crop in crops)
            changed = [self.augmentation(crop.waveform, self.config.sampling_rate, draws) for crop, draws in pairs]
            mixed = torch.nn.utils.rnn.pad_sequence(changed, batch_first=True)
        if self.mixture is not None:
            generator = torch.Generator().manual_seed(derive_seed(*(crop.seed for crop in crops)))
            mixed = self.mixture(mixed, generator, lengths=lengths)
        rows = [row[:length].numpy() for row, length in zip(mixed, lengths.tolist(), strict=True)]
        features = self.feature_extractor(
            rows, sampling_rate=self.config.sampling_rate, padding=True, return_tensors="pt", return_attention_mask=True
        )
        padded = len(set(lengths.tolist())) > 1
        kept = ("input_values", "attention_mask") if padded else ("input_values",)
        return {name: features[name] for name in kept}

    def _draw_mask(self, frame_lengths: torch.Tensor, crops: Sequence[AudioCrop]) -> torch.Tensor:
        """Masked frames, each row drawn with the seed of its own clip."""
        rows = [
            self.masking([frames], torch.Generator().manual_seed(derive_seed(crop.seed, 2)))[0]
            for frames, crop in zip(frame_lengths.tolist(), crops, strict=True)
        ]
        mask = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        generator = torch.Generator().manual_seed(derive_seed(4, *(crop.seed for crop in crops)))
        return self.masking.equalize(mask, generator)

    def _run_teacher(self, name: str, waveforms: torch.Tensor, batch: MERTBatch, dim: int) -> torch.Tensor:
        """The targets of a teacher, whose computation is timed, cut in `dim` to the frames of the student."""
        batch.teacher_times[name] = stopwatch = Stopwatch(waveforms.device)
        targets, frames = getattr(self, name)(waveforms), batch["mask_time_indices"].shape[1]
        stopwatch.stop()
        if targets.shape[dim] < frames:
            raise ValueError(
                f"The {name.replace('_', ' ')} gave {targets.shape[dim]} frames for clips of which the student makes "
                f"{frames}."
            )
        return targets.narrow(dim, 0, frames)

    def _ignore_padding(self, codes: torch.Tensor, batch: MERTBatch) -> torch.Tensor:
        """Codes of frames past a clip's end become -100."""
        if "attention_mask" not in batch:
            return codes
        frame_lengths = self.config.num_frames(batch["attention_mask"].sum(dim=1))
        past = torch.arange(codes.shape[-1], device=codes.device) >= frame_lengths[:, None, None].to(codes.device)
        return codes.masked_fill(past, IGNORED_CODE)

    def _cached_codes(self, crops: Sequence[AudioCrop], frame_lengths: torch.Tensor) -> torch.Tensor:
        """Codes of each crop, its own or cached ones, (batch, codebooks, frames), -100 past a clip's end."""
        hop, sizes = self.config.samples_per_frame, self.config.resolved_codebook_sizes
        codes = torch.full((len(crops), len(sizes), int(frame_lengths.max())), IGNORED_CODE)
        for row, (crop, frames) in enumerate(zip(crops, frame_lengths.tolist(), strict=True)):
            found = crop.codes
            if found is None and not callable(self.label_cache):
                raise ValueError(
                    f"The crop of {crop.source} carries no codes. Write the shards with mert-hf shard --teacher."
                )
            if found is None:
                found = torch.as_tensor(np.asarray(self.label_cache(crop.source, crop.offset // hop, frames)))
            found = found[None, :, :frames]
            refuse_invalid_codes(codes_out_of_range(found, sizes), found, sizes)
            codes[row, :, :frames] = found[0]
        return codes

    def _cached_values(self, crops: Sequence[AudioCrop], frame_lengths: torch.Tensor) -> torch.Tensor:
        """Values of each crop from all caches, (batch, frames, bins) float32, zero past a clip's end."""
        hop, bins = self.config.samples_per_frame, sum(cache.num_bins for cache in self.value_caches)
        values = torch.zeros(len(crops), int(frame_lengths.max()), bins)
        for row, crop, frames in zip(values, crops, frame_lengths.tolist(), strict=True):
            found = [cache(crop.source, crop.offset // hop, frames) for cache in self.value_caches]
            row[:frames] = torch.from_numpy(np.concatenate(found)).T
        return values


def for_views(targets: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Targets of clips (clips, ...), repeated for all their views in a batch."""
    views = len(batch["input_values"]) // len(targets)
    return targets if views == 1 else targets.repeat(views, *(1 for _ in targets.shape[1:]))


def find_clip(feature: Any) -> Any:
    """The clip of an item: the item itself, or the value of a dictionary under "input_values" or "audio"."""
    if not isinstance(feature, Mapping) or "array" in feature:
        return feature
    for name in ("input_values", "audio"):
        if name in feature:
            return feature[name]
    raise ValueError(
        f"An item needs its clip under 'input_values' or 'audio', got the keys {sorted(map(str, feature))}. "
        "If Trainer removed the column, set remove_unused_columns=False."
    )


def check_rates(config: MERTConfig, feature_extractor: MERTFeatureExtractor, teachers: Sequence[Any]) -> None:
    """Raises ValueError where student, feature extractor, teachers or cached labels have different rates."""
    if feature_extractor.sampling_rate != config.sampling_rate:
        raise ValueError(
            f"The feature extractor works at {feature_extractor.sampling_rate} Hz, the model at "
            f"{config.sampling_rate} Hz. Give a feature extractor made for the model's rate."
        )
    for teacher in teachers:
        if teacher is None:
            continue
        rates = (teacher.sampling_rate, float(teacher.frame_rate))
        if rates != (config.sampling_rate, float(config.frame_rate)):
            raise ValueError(
                f"{type(teacher).__name__} works at {rates[0]} Hz and {rates[1]} frames a second, the model at "
                f"{config.sampling_rate} Hz and {config.frame_rate}. Use a teacher made for the model's rates."
            )


def check_targets(config: MERTConfig, acoustic_teacher: Any, label_cache: Any, musical: Sequence[Any]) -> None:
    """Raises ValueError where the teachers' targets do not have the sizes of the model's heads."""
    given = codebook_sizes_of(acoustic_teacher if label_cache is None else label_cache)
    predicted = tuple(config.resolved_codebook_sizes)
    if len(given) != len(predicted) or any(ours > theirs for ours, theirs in zip(given, predicted, strict=True)):
        raise ValueError(
            f"The model predicts {sizes_text(predicted)}, the acoustic teacher gives {sizes_text(given)}. Set these "
            f"fields of the configuration: {config.target_fields(given, config.cqt_bins)}."
        )
    bins = sum(source.num_bins for source in musical if source is not None)
    if bins != config.cqt_bins:
        raise ValueError(
            f"The model predicts {config.cqt_bins} spectrum bins, the musical teacher gives {bins}. "
            "Set cqt_bins of the config to the teacher's num_bins."
        )


def codes_out_of_range(codes: torch.Tensor, codebook_sizes: Sequence[int]) -> torch.Tensor:
    """Whether any of the codes (batch, codebooks, frames) is outside its codebook: a scalar bool on their device."""
    if codes.dim() != 3 or codes.shape[1] != len(codebook_sizes):
        raise ValueError(f"Expected codes of shape (batch, {len(codebook_sizes)}, frames), got {tuple(codes.shape)}.")
    limits = torch.tensor(tuple(codebook_sizes), device=codes.device)[:, None]
    return ((codes < 0) | (codes >= limits)).any()


def refuse_invalid_codes(invalid: torch.Tensor, codes: torch.Tensor, codebook_sizes: Sequence[int]) -> None:
    """Raises ValueError where `codes_out_of_range` found a code."""
    if invalid:
        raise ValueError(
            f"The acoustic teacher gave codes from {int(codes.min())} to {int(codes.max())} for "
            f"{sizes_text(codebook_sizes)}, whose codes start at 0."
        )


def sizes_text(codebook_sizes: Sequence[int]) -> str:
    """Codebook sizes for a message: "8 codebooks of 1024 codes", "2 codebooks of 300, 200 codes"."""
    sizes = codebook_sizes if len(set(codebook_sizes)) > 1 else codebook_sizes[:1]
    return f"{len(codebook_sizes)} codebooks" + (f" of {', '.join(map(str, sizes))} codes" if len(sizes) else "")
