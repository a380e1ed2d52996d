# SPDX-License-Identifier: Apache-2.0
"""Configuration of MERT (arXiv 2306.00107): typed fields, one validator, derived numbers as properties."""

import difflib
import math
from numbers import Integral, Real
from typing import Annotated, get_args, get_origin

from transformers import PretrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Written into every config.json, whatever class was saved, so that each Auto class finds its code next to the weights.
AUTO_MAP = {
    "AutoConfig": "configuration_mert.MERTConfig",
    "AutoModel": "modeling_mert.MERTModel",
    "AutoModelForPreTraining": "modeling_mert.MERTForPreTraining",
    "AutoModelForAudioClassification": "modeling_mert.MERTForSequenceClassification",
    "AutoModelForAudioFrameClassification": "modeling_mert.MERTForAudioFrameClassification",
    "AutoFeatureExtractor": "feature_extraction_mert.MERTFeatureExtractor",
}

# Kinds of fields with their inclusive bounds, which `check_field` reads. The upper bounds are far above any sensible
# model: they refuse a hostile config.json before it allocates memory.
Size = Annotated[int, 1, 65_536]
Count = Annotated[int, 0, 65_536]
LayerCount = Annotated[int, 1, 1_024]
LongSize = Annotated[int, 1, 1_048_576]
Rate = Annotated[int, 1, 10_000_000]
Probability = Annotated[float, 0.0, 1.0]
NonNegative = Annotated[float, 0.0, math.inf]
Positive = Annotated[float, 1e-6, math.inf]
Sizes = Annotated[list[int] | tuple[int, ...], 1, 65_536]
CodebookSizes = Annotated[list[int] | tuple[int, ...], 1, 10_000_000]
MAX_CONV_LAYERS = 64
MAX_PARAMETERS = 10**11  # each field may be within its bounds where their product is not


class MERTConfig(PretrainedConfig):
    r"""Configuration of the MERT models. The defaults are those of MERT-v1-95M.

    The fields of the authors' Hub configuration keep their names and meaning.

    Args:
        vocab_size (`int`, defaults to 32): kept from the authors' configuration; no layer depends on it.
        hidden_size (`int`, defaults to 768): width of the Transformer encoder; a multiple of `num_attention_heads` and
            of `num_conv_pos_embedding_groups`.
        num_hidden_layers (`int`, defaults to 12): number of Transformer layers.
        num_attention_heads (`int`, defaults to 12): attention heads in each layer.
        intermediate_size (`int`, defaults to 3072): width of the feed-forward layers.
        hidden_act (`str`, defaults to `"gelu"`): activation of the feed-forward layers.
        hidden_dropout, activation_dropout, attention_dropout, final_dropout (`float`, defaults to 0.1):
            dropout after each sub-layer, inside the feed-forward layer, on attention weights, before the classifier.
        feat_proj_layer_norm (`bool`, defaults to `True`): LayerNorm of the convolutional features before projection.
        feat_proj_dropout (`float`, defaults to 0.0): dropout after the projection of the features.
        layerdrop (`float`, defaults to 0.1): probability that a training step bypasses a Transformer layer.
        initializer_range (`float`, defaults to 0.02): standard deviation of the initial linear weights.
        layer_norm_eps (`float`, defaults to 1e-05): epsilon of the LayerNorms.
        feat_extract_norm (`str`, defaults to `"group"`): `"group"` (GroupNorm after the first convolution only) or
            `"layer"` (LayerNorm after every convolution).
        feat_extract_activation (`str`, defaults to `"gelu"`): activation of the convolutions.
        conv_dim, conv_stride, conv_kernel (`list[int]`): channels, strides and kernel sizes of the convolutions.
        conv_bias (`bool`, defaults to `False`): whether the convolutions have a bias.
        num_conv_pos_embeddings (`int`, defaults to 128): kernel size of the convolutional position embedding in frames.
        num_conv_pos_embedding_groups (`int`, defaults to 16): groups of the convolutional position embedding.
        do_stable_layer_norm (`bool`, defaults to `False`): LayerNorm before each sub-layer (330M) instead of after it.
        apply_spec_augment (`bool`, defaults to `True`): draw SpecAugment masks in training, as HuBERT does.
        mask_time_prob (`float`, defaults to 0.05): share of the frames that SpecAugment masks.
        mask_time_length (`int`, defaults to 10): length of its spans in frames.
        mask_time_min_masks (`int`, defaults to 2): minimum number of its spans in each row.
        mask_feature_prob (`float`, defaults to 0.0): share of the hidden dimension that SpecAugment masks.
        mask_feature_length (`int`, defaults to 10): length of its spans in the hidden dimension.
        mask_feature_min_masks (`int`, defaults to 0): minimum number of its spans in each row.
        ctc_loss_reduction (`str`, defaults to `"sum"`): kept from the authors' configuration; unused.
        ctc_zero_infinity (`bool`, defaults to `False`): kept from the authors' configuration; unused.
        use_weighted_layer_sum (`bool`, defaults to `False`): the classification heads read a learned average of all
            layers.
        classifier_proj_size (`int`, defaults to 256): width of the projection before the classifier.
        pad_token_id, bos_token_id, eos_token_id (`int`): kept from the authors' configuration; unused.
        sample_rate (`int`, defaults to 24000): sampling rate of the input in Hz.
        feature_extractor_cqt (`bool`, defaults to `False`): concatenate a constant-Q spectrum of the input to the
            convolutional features (an option of MERT-v0).
        feature_extractor_cqt_bins (`int`, defaults to 336): number of bins of that spectrum, over seven octaves from
            32.7 Hz.
        feature_extractor_cqt_log (`bool`, defaults to `False`): use log(1 + 100 * magnitude) instead of magnitudes.
        deepnorm (`bool`, defaults to `False`): scaled residuals (DeepNorm, arXiv 2203.00555); requires post-LN.
        attention_relax (`float`, defaults to -1.0): constant of the attention relaxation; off if it is not positive.
            It keeps half-precision scores in range and does not change the output in exact arithmetic.
        num_codebooks (`int`, defaults to 8): codebooks of the acoustic teacher; 0 for none.
        codebook_size (`int`, defaults to 1024): codes in each codebook, or in the largest one.
        codebook_sizes (`list[int]`, *optional*): codes in each codebook where they differ, as in MERT-v0 (300 and 200).
            Sets `num_codebooks` to its length and `codebook_size` to its maximum.
        num_special_codes (`int`, defaults to 0): rows before the codes in each embedding table. Checkpoints converted
            from fairseq have 4, so that code c is row c + 4.
        codebook_dim (`int`, defaults to 64): dimension in which states and codes are compared (128 for 330M).
        codebook_init (`str`, defaults to `"normal"`): initial embeddings of the codes. `"normal"` has the standard
            deviation `initializer_range`; `"uniform"` in [0, 1) is that of fairseq.
        logit_temperature (`float`, defaults to 0.1): divisor of the cosine similarities.
        untie_codebook_projections (`bool`, defaults to `True`): one projection for each codebook instead of a shared
            one.
        cqt_bins (`int`, defaults to 336): dimension of the musical teacher's target, a constant-Q or log-mel spectrum;
            0 for none.
        cqt_loss_weight (`float`, defaults to 1.0): weight of the mean squared error of this target.
        unmasked_loss_weight (`float`, defaults to 0.0): weight of an unmasked frame in the prediction losses, relative
            to a masked one. Small models learn much faster with a positive weight.
        feature_penalty_weight (`float`, defaults to 10.0): weight of the mean square of the convolutional features.
        feature_grad_mult (`float`, defaults to 0.1): factor on the gradient into the convolutions in pre-training.
        mask_group_norm (`bool`, defaults to `True`): exclude padding from the GroupNorm statistics, so that a padded
            batch equals its rows encoded alone. `False` reproduces the authors' numbers.

    Raises:
        ValueError: a field is out of range or contradicts another one.
        TypeError: a field has the wrong type.

    Examples:

    ```python
    >>> from mert_hf import MERTConfig

    >>> config = MERTConfig()  # MERT-v1-95M
    >>> config.frame_rate, config.num_frames(5 * config.sample_rate)
    (75.0, 374)

    >>> config = MERTConfig(codebook_sizes=[300, 200])  # the k-means teachers of MERT-v0
    >>> config.num_codebooks, config.codebook_size
    (2, 300)
    ```
    """

    model_type = "mert_model"
    _auto_class = "AutoConfig"

    vocab_size: Rate = 32
    hidden_size: Count = 768
    num_hidden_layers: LayerCount = 12
    num_attention_heads: LayerCount = 12
    intermediate_size: LongSize = 3072
    hidden_act: str = "gelu"
    hidden_dropout: Probability = 0.1
    activation_dropout: Probability = 0.1
    attention_dropout: Probability = 0.1
    feat_proj_layer_norm: bool = True
    feat_proj_dropout: Probability = 0.0
    final_dropout: Probability = 0.1
    layerdrop: Probability = 0.1
    initializer_range: NonNegative = 0.02
    layer_norm_eps: NonNegative = 1e-5
    feat_extract_norm: Annotated[str, "group", "layer"] = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: Sizes = (512, 512, 512, 512, 512, 512, 512)
    conv_stride: Sizes = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: Sizes = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: Size = 128
    num_conv_pos_embedding_groups: Size = 16
    do_stable_layer_norm: bool = False
    apply_spec_augment: bool = True
    mask_time_prob: Probability = 0.05
    mask_time_length: LongSize = 10
    mask_time_min_masks: Count = 2
    mask_feature_prob: Probability = 0.0
    mask_feature_length: LongSize = 10
    mask_feature_min_masks: Count = 0
    ctc_loss_reduction: str = "sum"
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False
    classifier_proj_size: LongSize = 256
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    sample_rate: Rate = 24000
    feature_extractor_cqt: bool = False
    feature_extractor_cqt_bins: Annotated[int, 7, 65_536] = 336
    feature_extractor_cqt_log: bool = False
    deepnorm: bool = False
    attention_relax: Annotated[float, -math.inf, math.inf] = -1.0
    num_codebooks: Annotated[int, 0, 1_024] = 8
    codebook_size: Annotated[int, 0, 10_000_000] = 1024
    codebook_sizes: CodebookSizes | None = None
    num_special_codes: Annotated[int, 0, 1_024] = 0
    codebook_dim: Size = 64
    codebook_init: Annotated[str, "normal", "uniform"] = "normal"
    logit_temperature: Positive = 0.1
    untie_codebook_projections: bool = True
    cqt_bins: Count = 336
    cqt_loss_weight: NonNegative = 1.0
    unmasked_loss_weight: NonNegative = 0.0
    feature_penalty_weight: NonNegative = 10.0
    feature_grad_mult: NonNegative = 0.1
    mask_group_norm: bool = True

    def __init__(self, **kwargs):
        # transformers 5 generates a constructor from the annotated fields, 4.48 and 4.57 do not. This one serves all
        # three, so that the checks and their errors are the same.
        given = {name: kwargs.pop(name) for name in FIELDS if name in kwargs}
        for name in FIELDS:
            setattr(self, name, given.get(name, getattr(MERTConfig, name)))
        for name in ("conv_dim", "conv_stride", "conv_kernel"):
            setattr(self, name, integer_list(name, getattr(self, name)))
        self._check_number_of_convolutions(kwargs.pop("num_feat_extract_layers", None))
        if self.codebook_sizes is not None:
            self._apply_codebook_sizes(given)
        check_fields(self, FIELDS)
        self._check_combinations()
        report_unknown(type(self).__name__, kwargs, FIELDS)
        tokens = {name: getattr(self, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        super().__init__(**tokens, **kwargs)
        self.auto_map = dict(AUTO_MAP)

    @property
    def num_feat_extract_layers(self) -> int:
        """Number of convolutions of the feature encoder."""
        return len(self.conv_dim)

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next: the product of the strides."""
        return math.prod(self.conv_stride)

    samples_per_frame = hop_length  # under the name that both generations have
    inputs_to_logits_ratio = hop_length  # under the name by which transformers' audio code reads it

    @property
    def sampling_rate(self) -> int:
        """`sample_rate` under the name that both generations have."""
        return self.sample_rate

    @property
    def resolved_codebook_sizes(self) -> list[int]:
        """Number of codes in each codebook without special codes, as both generations have it."""
        if self.codebook_sizes is not None:
            return list(self.codebook_sizes)
        return [self.codebook_size] * self.num_codebooks

    @staticmethod
    def target_fields(codebook_sizes, num_bins: int) -> dict:
        """The fields that describe the targets of pre-training: codes in each codebook, dimension of the spectrum."""
        sizes = list(codebook_sizes)
        fields = {"num_codebooks": len(sizes), "cqt_bins": num_bins, "codebook_sizes": None}
        if sizes:
            fields["codebook_size"] = max(sizes)
        if len(set(sizes)) > 1:
            fields["codebook_sizes"] = sizes
        return fields

    @property
    def receptive_field(self) -> int:
        """Number of input samples on which one frame of the convolutional encoder depends."""
        field, step = 1, 1
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            field += (kernel - 1) * step
            step *= stride
        return field

    @property
    def frame_rate(self) -> float:
        """Frames in a second of audio, in Hz."""
        return self.sample_rate / self.hop_length

    def num_frames(self, num_samples):
        """Number of frames that the convolutional encoder computes from a clip.

        Args:
            num_samples (`int`, integer tensor or array): length of the clip in samples.

        Returns:
            The number of frames, with the type of `num_samples`: floor((L - kernel) / stride) + 1 layer by layer, at
            least 0.
        """
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            num_samples = (num_samples - kernel) // stride + 1
        return num_samples * (num_samples > 0)

    def frame_times(self, num_frames: int) -> list[float]:
        """Times in seconds of the centers of the first `num_frames` frames, counted from the start of the clip."""
        return [(index * self.hop_length + self.receptive_field / 2) / self.sample_rate for index in range(num_frames)]

    def _check_number_of_convolutions(self, num_layers):
        lengths = {name: len(getattr(self, name)) for name in ("conv_dim", "conv_stride", "conv_kernel")}
        if num_layers is not None:
            lengths["num_feat_extract_layers"] = num_layers
        if len(set(lengths.values())) != 1 or not 1 <= len(self.conv_dim) <= MAX_CONV_LAYERS:
            raise ValueError(
                f"The numbers of convolutions differ: {lengths}. Give conv_dim, conv_stride and conv_kernel the same "
                f"length, between 1 and {MAX_CONV_LAYERS}."
            )

    def _apply_codebook_sizes(self, given: dict) -> None:
        """Derives `num_codebooks` and `codebook_size` from `codebook_sizes`; refuses given ones that differ."""
        self.codebook_sizes = sizes = integer_list("codebook_sizes", self.codebook_sizes)
        if not sizes:
            raise ValueError("codebook_sizes=[] has no codebook. Use num_codebooks=0 for a model without codebooks.")
        check_field("codebook_sizes", sizes, CodebookSizes)
        for name, value in {"num_codebooks": len(sizes), "codebook_size": max(sizes)}.items():
            if given.get(name, value) != value:
                raise ValueError(
                    f"{name}={given[name]!r} contradicts codebook_sizes={sizes}, from which {name}={value} follows. "
                    f"Leave {name} out."
                )
            setattr(self, name, value)

    def _approximate_parameters(self) -> int:
        """Weights of the matrices and convolutions, without biases and norms."""
        hidden, channels = self.hidden_size, [1, *self.conv_dim]
        layers = self.num_hidden_layers * hidden * (4 * hidden + 2 * self.intermediate_size)
        positions = hidden * hidden // self.num_conv_pos_embedding_groups * self.num_conv_pos_embeddings
        sizes = zip(channels[:-1], channels[1:], self.conv_kernel, strict=True)
        convolutions = sum(inputs * outputs * kernel for inputs, outputs, kernel in sizes)
        codes = (sum(self.resolved_codebook_sizes) + self.num_codebooks * hidden) * self.codebook_dim
        return layers + positions + convolutions + codes

    def _check_width(self) -> None:
        """Refuses a width that does not fit the heads and groups.

        The common tests of transformers build configurations from `hidden_size` alone (0 and 37), so that the default
        heads and groups do not divide it. There, and only there, the model refuses it.
        """
        names = ("num_attention_heads", "num_conv_pos_embedding_groups")
        if any(getattr(self, name) != getattr(MERTConfig, name) for name in names):
            self.check_width()

    def check_width(self) -> None:
        """Refuses a width that no model can have. The models call this, since fields can change after construction."""
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if not self.hidden_size or self.hidden_size % getattr(self, name):
                raise ValueError(
                    f"hidden_size={self.hidden_size} must be a positive multiple of {name}={getattr(self, name)}."
                )

    def _check_combinations(self) -> None:
        """Refuses activations that do not exist, and values that contradict each other."""
        from transformers.activations import ACT2FN  # it imports torch, which reading a configuration does not need

        for name in ("hidden_act", "feat_extract_activation"):
            check_field(name, getattr(self, name), Annotated[(str, *sorted(ACT2FN))])
        self._check_width()
        if (parameters := self._approximate_parameters()) > MAX_PARAMETERS:
            raise ValueError(
                f"A model of these sizes has about {parameters:.1e} parameters, more than {MAX_PARAMETERS:.0e}. Reduce "
                f"hidden_size={self.hidden_size}, num_hidden_layers={self.num_hidden_layers}, conv_dim, codebook_size "
                "or num_conv_pos_embeddings."
            )
        if self.deepnorm and self.do_stable_layer_norm:
            raise ValueError(
                "deepnorm=True needs post-LN, but do_stable_layer_norm=True is pre-LN. Set one of them to False."
            )
        if self.num_codebooks and not self.codebook_size:
            raise ValueError(
                f"num_codebooks={self.num_codebooks} needs codebook_size of at least 1, given {self.codebook_size}."
            )
        if self.feature_extractor_cqt and self.feature_extractor_cqt_bins % 7:
            raise ValueError(
                f"feature_extractor_cqt_bins={self.feature_extractor_cqt_bins} must be a multiple of 7: "
                "the spectrum spans seven octaves."
            )


FIELDS = MERTConfig.__annotations__  # name: type


class FieldTypeError(TypeError, ValueError):
    """A field of the wrong type: a TypeError of a call, and a ValueError of what a configuration file holds."""


def report_unknown(owner: str, names, fields) -> None:
    """Warns of keys that look like a misspelled field. Other keys are not a mistake: transformers adds its own."""
    for name in names:
        if close := difflib.get_close_matches(name, fields, n=1, cutoff=0.85):
            logger.warning(f"{owner} has no field {name!r}: it has no effect. Did you mean {close[0]!r}?")


def integer_list(name: str, value) -> list:
    """The value as a list; raises TypeError where it is not a series."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise FieldTypeError(f"{name}={value!r} must be a list of integers.")
    return list(value)


def check_fields(config: PretrainedConfig, fields: dict) -> None:
    """Refuses values that no model can have, before anything is allocated, by TypeError or ValueError.

    `fields` are names and annotations: a type, or a type with its inclusive bounds or its choices.
    """
    for name, annotation in fields.items():
        check_field(name, getattr(config, name), annotation)


def check_field(name: str, value, annotation) -> None:
    """Checks the value of a field against its annotation; see [`check_fields`]."""
    if type(None) in get_args(annotation):
        if value is None:
            return
        annotation = get_args(annotation)[0]
    kind, *limits = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if kind is bool and not isinstance(value, bool):
        raise FieldTypeError(f"{name}={value!r} must be True or False.")
    if kind is str and not isinstance(value, str):
        raise FieldTypeError(f"{name}={value!r} must be a string.")
    if kind is str and limits and value not in limits:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, limits))}.")
    if kind in (int, float) and limits:
        check_number(name, value, kind, *limits)
    if get_origin(kind) and limits:
        for entry in value:
            check_number(name, entry, int, *limits)


def check_number(name: str, value, kind: type, low: float, high: float) -> None:
    """Checks that a value is a finite number of this kind between two bounds, themselves allowed."""
    expected, noun = (Integral, "an integer") if kind is int else (Real, "a number")
    if isinstance(value, bool) or not isinstance(value, expected):
        raise FieldTypeError(f"{name}={value!r} must be {noun} between {low} and {high}.")
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name}={value} must be between {low} and {high}.")


__all__ = ["MERTConfig"]
