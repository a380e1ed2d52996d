# SPDX-License-Identifier: Apache-2.0
"""Feature extractor of MERT: any audio in memory -> mono float32 at the model's rate, normalized and padded."""

from array import array

import numpy as np
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin
from transformers.utils import PaddingStrategy, TensorType, logging

try:  # Trainer pads the batches of this class by default; transformers is about to remove it
    from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor as BaseFeatureExtractor
except ImportError:
    BaseFeatureExtractor = FeatureExtractionMixin

logger = logging.get_logger(__name__)

INTEGER_PCM = {"uint8": (128.0, 128.0), "int16": (0.0, 2.0**15), "int32": (0.0, 2.0**31)}  # offset and scale to [-1, 1)
RESAMPLED_RATES = (1000, 1_000_000)  # Hz; a wrong rate must not allocate gigabytes of resampled audio
INPUT_NAMES = ("input_values", "audio_values")  # the second is the name of transformers' audio processors
NUMBERS = (int, float, np.number)  # samples in a list
LOUDEST = 100.0  # 40 dB above full scale, which no recording reaches
NORMALIZATION_EPSILON = 1e-7  # added to the variance, as in the Wav2Vec2FeatureExtractor of transformers


class MERTFeatureExtractor(BaseFeatureExtractor):
    r"""Converts audio into the input of MERT.

    Args:
        feature_size (`int`, defaults to 1): kept for transformers; a waveform has one value for each sample.
        sampling_rate (`int`, defaults to 24000): sampling rate of the model in Hz; other audio is resampled to it.
        padding_value (`float`, defaults to 0.0): value of padded samples.
        do_normalize (`bool`, defaults to `True`): normalize each clip to zero mean and unit variance.
        return_attention_mask (`bool`, defaults to `True`): return which samples are valid.

    Examples:

    ```python
    >>> import numpy as np
    >>> from mert_hf import MERTFeatureExtractor

    >>> extractor = MERTFeatureExtractor()
    >>> stereo = np.zeros((2, 44100), dtype=np.int16)  # (channels, samples)
    >>> inputs = extractor([stereo, stereo[:, :22050]], sampling_rate=44100, return_tensors="pt")
    >>> inputs["input_values"].shape, inputs["attention_mask"].sum(dim=1)
    (torch.Size([2, 24000]), tensor([24000, 12000]))

    ```
    """

    model_input_names = ["input_values", "attention_mask"]
    _auto_class = "AutoFeatureExtractor"

    def __init__(
        self,
        feature_size=1,
        sampling_rate=24000,
        padding_value=0.0,
        do_normalize=True,
        return_attention_mask=True,
        **kwargs,
    ):
        # Each class writes its own name, whatever class the loaded preprocessor_config.json names.
        kwargs.pop("feature_extractor_type", None)
        kwargs.setdefault("padding_side", "right")
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        if self.padding_side != "right":
            raise ValueError(f"padding_side={self.padding_side!r} is not supported. MERT needs padding_side='right'.")
        self.do_normalize = do_normalize
        self.return_attention_mask = return_attention_mask

    def __call__(
        self,
        audio=None,
        sampling_rate: int | None = None,
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        **kwargs,
    ) -> BatchFeature:
        """Prepares one clip or a batch.

        Args:
            audio: one clip or a list of clips. A clip is an array, tensor or list of samples (samples,) or
                (channels, samples), floating point in [-1, 1] or integer PCM (uint8, int16, int32); a dictionary with
                "array" (or "raw") and "sampling_rate", as returned by the Audio feature of datasets; or a decoder with
                `get_all_samples()`. An array with one or two rows is one clip with that number of channels, and an
                array with more rows a batch of mono clips. (batch, channels, samples) is a batch.
            sampling_rate: sampling rate of arrays in Hz; that of the model, with a warning, if None. Dictionaries and
                decoders have their own.
            padding: True or "longest", "max_length", or False.
            max_length: samples to pad to (padding="max_length") or to cut to (truncation=True), at the model's rate.
            truncation: cut clips to `max_length`.
            pad_to_multiple_of: pad to a multiple of this number of samples.
            return_attention_mask: overrides the attribute.
            return_tensors: "pt" or "np"; lists of arrays if None.
            kwargs: `audio_values`, another name of `audio`.

        Returns:
            `input_values` (batch, samples) float32 and, unless it is disabled, `attention_mask` (batch, samples) int32.

        Raises:
            TypeError: the samples have a type that is not audio.
            ValueError: an empty clip, NaN or infinite samples, a wrong shape, or a rate that is not a positive number.
            ImportError: the audio has to be resampled, and soxr is not installed.
        """
        audio = kwargs.get("audio_values", audio)
        clips = [self._prepare(clip, sampling_rate) for clip in _as_clips(audio)]
        if not clips:
            raise ValueError("The list of clips is empty. Give at least one clip.")
        features = BatchFeature({"input_values": clips})
        wants_mask = self.return_attention_mask if return_attention_mask is None else return_attention_mask
        padded = self.pad(
            features,
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=True,  # needed to normalize valid samples only
        )
        lengths = [int(np.sum(mask)) for mask in padded["attention_mask"]]
        padded["input_values"] = [
            self._normalize(np.asarray(values, dtype=np.float32), length)
            for values, length in zip(padded["input_values"], lengths, strict=True)
        ]
        padded["attention_mask"] = [np.asarray(mask, dtype=np.int32) for mask in padded["attention_mask"]]
        if not wants_mask:
            del padded["attention_mask"]
        return padded if return_tensors is None else padded.convert_to_tensors(return_tensors)

    def pad(
        self,
        processed_features,
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Pads prepared clips to one length, on the right, as a collator does.

        Args:
            processed_features: a dictionary of lists, or a list of dictionaries, with `input_values` (or
                `audio_values`), (samples,) for each clip, and possibly `attention_mask` and others, such as labels.
            padding, max_length, truncation, pad_to_multiple_of, return_attention_mask: as in `__call__`.
            return_tensors: "pt" or "np"; the kind of the values given if None.

        Returns:
            The features, with clips and masks padded; masks int32.

        Raises:
            ValueError: there are no clips under either name, or `max_length` is missing.
        """
        if isinstance(processed_features, (list, tuple)):
            processed_features = {key: [row[key] for row in processed_features] for key in processed_features[0]}
        features = dict(processed_features)
        name = next((name for name in INPUT_NAMES if name in features), None)
        if name is None:
            raise ValueError(f"Features to pad need {' or '.join(INPUT_NAMES)}, given {sorted(features)}.")
        wants_mask = self.return_attention_mask if return_attention_mask is None else return_attention_mask
        clips = features[name]
        if return_tensors is None and len(clips):
            return_tensors = "pt" if hasattr(clips[0], "detach") else "np"
        features = {key: [_to_numpy(value) for value in values] for key, values in features.items()}
        if wants_mask and "attention_mask" not in features:
            features["attention_mask"] = [np.ones(len(clip), dtype=np.int32) for clip in features[name]]
        fill = {name: self.padding_value, "attention_mask": 0}
        limit, size = self._limits(map(len, features[name]), padding, max_length, truncation, pad_to_multiple_of)
        for key in fill.keys() & features.keys():
            cut = [values[:limit] for values in features[key]]
            features[key] = [np.pad(v, (0, max(size - len(v), 0)), constant_values=fill[key]) for v in cut]
        return BatchFeature(features, tensor_type=return_tensors)

    @staticmethod
    def _limits(lengths, padding, max_length, truncation, multiple) -> tuple[int | None, int]:
        """The length to cut clips to, or None, and the length to pad them to."""
        if isinstance(padding, bool):
            padding = PaddingStrategy.LONGEST if padding else PaddingStrategy.DO_NOT_PAD
        strategy, multiple = PaddingStrategy(padding), multiple or 1
        if max_length is None and (truncation or strategy == PaddingStrategy.MAX_LENGTH):
            raise ValueError("max_length is needed with truncation=True and padding='max_length'. Give it in samples.")
        limit = -(-max_length // multiple) * multiple if truncation else None
        if strategy == PaddingStrategy.DO_NOT_PAD:
            return limit, 0
        longest = max((length if limit is None else min(length, limit) for length in lengths), default=0)
        size = max_length if strategy == PaddingStrategy.MAX_LENGTH else longest
        return limit, -(-size // multiple) * multiple

    def _prepare(self, clip, sampling_rate: int | None) -> np.ndarray:
        """One clip of any kind -> (samples,) float32 at the model's rate."""
        samples, rate = _samples_and_rate(clip)
        rate = rate if rate is not None else sampling_rate
        if rate is None:
            logger.warning_once(
                f"No sampling_rate was given, so the audio is assumed to have {self.sampling_rate} Hz. Pass "
                "sampling_rate, so that audio with another rate is resampled."
            )
            rate = self.sampling_rate
        mono = to_mono(to_float(samples))
        _warn_of_scale(samples.dtype, mono)
        if mono.size == 0:
            raise ValueError("A clip has no samples. Leave it out.")
        if not np.isfinite(mono).all():
            raise ValueError(
                "A clip contains NaN or infinite samples. Leave it out, or replace them with numpy.nan_to_num."
            )
        resampled = resample(mono, rate, self.sampling_rate)
        if not np.isfinite(resampled).all():  # of values near the largest float32, which the filter exceeds
            raise ValueError("A clip has values too large to be resampled. Samples lie in [-1, 1]: scale it.")
        if not len(resampled):
            raise ValueError(
                f"A clip of {len(mono)} samples at {rate} Hz has none at {self.sampling_rate}. Leave it out."
            )
        return resampled

    def _normalize(self, values: np.ndarray, length: int) -> np.ndarray:
        """Zero mean and unit variance over the first `length` samples; padding keeps its value."""
        if not self.do_normalize:
            return values
        valid = values[:length].astype(np.float64)
        values[:length] = (valid - valid.mean()) / np.sqrt(valid.var() + NORMALIZATION_EPSILON)
        return values


def _warn_of_scale(dtype: np.dtype, samples: np.ndarray) -> None:
    """Warns of samples (samples,), converted from `dtype`, whose scale is that of other integers."""
    peak = np.abs(samples).max(initial=0.0)
    if peak > LOUDEST:
        logger.warning_once(
            f"Samples are far beyond [-1, 1], as of integers that were converted to {dtype} without a division. Give "
            "the integers, or divide by 32768 (int16) or 2147483648 (int32)."
        )
    elif dtype.name == "int32" and 0 < peak < 2.0**-8:
        logger.warning_once(
            "Samples of int32 stay below 2^23, as 24-bit audio does where its samples are not shifted: multiply them "
            "by 256 in this case, or they are 48 dB too soft."
        )


def _to_numpy(values) -> np.ndarray:
    """An array, tensor, list or number as NumPy's; float64 becomes float32."""
    values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)[()]  # [()] of a number
    return values.astype(np.float32) if values.dtype == np.float64 else values


def to_float(samples: np.ndarray) -> np.ndarray:
    """Floating-point or integer PCM samples -> float32 in [-1, 1], the same shape."""
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype(np.float32, copy=False)
    if samples.dtype.name not in INTEGER_PCM:
        raise TypeError(
            f"Audio of type {samples.dtype} has no defined scale. Give floating-point samples in [-1, 1], or PCM as "
            f"{', '.join(INTEGER_PCM)}."
        )
    offset, scale = INTEGER_PCM[samples.dtype.name]
    return ((samples.astype(np.float64) - offset) / scale).astype(np.float32)


def to_mono(samples: np.ndarray) -> np.ndarray:
    """(samples,) or (channels, samples) -> the mean over channels (samples,)."""
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise ValueError(
            f"A clip must have shape (samples,) or (channels, samples), given {samples.shape}. Give a batch as a list."
        )
    if samples.shape[0] > samples.shape[1] > 0:
        raise ValueError(f"A clip of shape {samples.shape} looks like (samples, channels). Transpose it.")
    return samples.mean(axis=0) if samples.size else samples.reshape(0)


def resample(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """(samples,) float32 at `rate` Hz -> (samples',) float32 at `target_rate` Hz, with soxr at high quality."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not 0 < rate < 1e7:
        raise ValueError(f"sampling_rate={rate!r} must be a positive number of Hz.")
    if rate == target_rate:
        return samples
    low, high = RESAMPLED_RATES
    if not low <= rate <= high:
        raise ValueError(f"sampling_rate={rate!r} must be between {low} and {high} Hz. Correct it, or resample first.")
    try:
        import soxr
    except ImportError as error:
        raise ImportError(
            f"The audio has {rate} Hz and the model {target_rate} Hz. Resampling needs soxr: pip install soxr."
        ) from error
    return soxr.resample(samples, rate, target_rate).astype(np.float32, copy=False)


def _samples_and_rate(clip) -> tuple[np.ndarray, int | None]:
    """Samples and sampling rate of an array, dictionary or decoder; the rate of an array is None."""
    if hasattr(clip, "get_all_samples"):  # the AudioDecoder of torchcodec, which datasets returns since version 4
        decoded = clip.get_all_samples()
        return _as_array(decoded.data), decoded.sample_rate
    if isinstance(clip, dict):
        samples = clip.get("array", clip.get("raw"))
        if samples is None or clip.get("sampling_rate") is None:
            raise ValueError(
                f"A dictionary needs the keys 'array' (or 'raw') and 'sampling_rate', given {sorted(map(str, clip))}. "
                "Decode the file first, with mert_hf.audio.read_audio for instance."
            )
        return _as_array(samples), clip["sampling_rate"]
    return _as_array(clip), None


def _as_array(samples) -> np.ndarray:
    if hasattr(samples, "detach"):  # a torch tensor, possibly on a GPU or in bfloat16, which NumPy does not have
        samples = samples.detach().cpu()
        samples = samples.float() if samples.is_floating_point() else samples
    if isinstance(samples, (str, bytes)) or samples is None:
        raise TypeError(
            f"Audio must be samples, given {type(samples).__name__}. Read files with mert_hf.audio.read_audio first."
        )
    _refuse_what_is_no_array(samples)
    values = np.asarray(samples)
    if values.dtype == object or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise TypeError(f"Audio must be an array of real numbers, given {values.dtype} from {type(samples).__name__}.")
    return values


def _refuse_what_is_no_array(samples) -> None:
    """Raises TypeError for all but arrays, and lists (samples,) or (channels, samples) of numbers.

    NumPy expands whatever has a length and items: a `range` inside a list can request terabytes.
    """
    kinds = {type(samples)}
    if isinstance(samples, (list, tuple)):
        rows = [row for row in samples if isinstance(row, (list, tuple))]
        kinds = set(map(type, samples)).difference(map(type, rows)).union(*(map(type, row) for row in rows))
    for kind in kinds:
        if not (issubclass(kind, (*NUMBERS, array, memoryview)) or hasattr(kind, "__array__")):
            raise TypeError(
                f"Audio must be an array of real numbers, or a list (samples,) or (channels, samples) of them, given "
                f"{kind.__name__} from {type(samples).__name__}."
            )


def _as_clips(audio) -> list:
    """One clip or a batch of them -> a list of clips."""
    if isinstance(audio, (list, tuple)):
        if all(isinstance(value, NUMBERS) for value in audio):
            return [np.asarray(audio, dtype=np.float32)] if len(audio) else []
        return list(audio)
    if isinstance(audio, dict) or hasattr(audio, "get_all_samples"):
        return [audio]
    samples = _as_array(audio)
    if samples.ndim == 3 or (samples.ndim == 2 and samples.shape[0] > 2):
        if samples.ndim == 2 and samples.shape[1] <= 2:
            raise ValueError(f"An array of shape {samples.shape} looks like (samples, channels). Transpose it.")
        return list(samples)
    return [samples]


__all__ = ["MERTFeatureExtractor"]
