# SPDX-License-Identifier: Apache-2.0
"""Configuration of MERT (arXiv 2306.00107): typed fields, one validator, derived numbers as properties."""

import difflib
import math
from numbers import Integral, Real

from transformers import PretrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Written into every config.json, whatever class was saved, so that each Auto class finds its code beside the weights.
AUTO_MAP = {
    "AutoConfig": "configuration_mert.MERTConfig",
    "AutoModel": "modeling_mert.MERTModel",
    "AutoModelForPreTraining": "modeling_mert.MERTForPreTraining",
    "AutoModelForAudioClassification": "modeling_mert.MERTForSequenceClassification",
    "AutoModelForAudioFrameClassification": "modeling_mert.MERTForAudioFrameClassification",
    "AutoFeatureExtractor": "feature_extraction_mert.MERTFeatureExtractor",
}

# Inclusive bounds of the integer fields. The upper ones are far above any sensible model: they refuse a hostile
# config.json before it allocates memory.
INTEGER_BOUNDS = {
    "vocab_size": (1, 10_000_000),
    "hidden_size": (0, 65_536),  # transformers' own tests build a configuration with 0; no model can be built from it
    "num_hidden_layers": (1, 1_024),
    "num_attention_heads": (1, 1_024),
    "intermediate_size": (1, 1_048_576),
    "num_conv_pos_embeddings": (1, 65_536),
    "num_conv_pos_embedding_groups": (1, 65_536),
    "mask_time_length": (1, 1_000_000),
    "mask_time_min_masks": (0, 1_000_000),
    "mask_feature_length": (1, 1_000_000),
    "mask_feature_min_masks": (0, 1_000_000),
    "classifier_proj_size": (1, 1_048_576),
    "sample_rate": (1, 10_000_000),
    "feature_extractor_cqt_bins": (7, 65_536),
    "num_codebooks": (0, 1_024),
    "codebook_size": (0, 10_000_000),
    "num_special_codes": (0, 1_024),
    "codebook_dim": (1, 65_536),
    "cqt_bins": (0, 65_536),
}
PROBABILITIES = (
    "hidden_dropout",
    "activation_dropout",
    "attention_dropout",
    "feat_proj_dropout",
    "final_dropout",
    "layerdrop",
    "mask_time_prob",
    "mask_feature_prob",
)
NON_NEGATIVE = (
    "initializer_range",
    "layer_norm_eps",
    "cqt_loss_weight",
    "unmasked_loss_weight",
    "feature_penalty_weight",
    "feature_grad_mult",
)
FLAGS = (
    "conv_bias",
    "feat_proj_layer_norm",
    "do_stable_layer_norm",
    "apply_spec_augment",
    "use_weighted_layer_sum",
    "feature_extractor_cqt",
    "feature_extractor_cqt_log",
    "deepnorm",
    "untie_codebook_projections",
    "mask_group_norm",
    "ctc_zero_infinity",
)
MAX_CONV_LAYERS = 64
MAX_CONV_SIZE = 65_536
MAX_PARAMETERS = 10**11  # each field may be within its bounds where their product is not


class MERTConfig(PretrainedConfig):
    r"""Configuration of the MERT models. The defaults are those of MERT-v1-95M.

    Fields of the authors' Hub configuration keep their names and meaning.

    Args:
        vocab_size (`int`, defaults to 32): kept from the authors' configuration; no layer depends on it.
        hidden_size (`int`, defaults to 768): width of the Transformer encoder.
        num_hidden_layers (`int`, defaults to 12): number of Transformer layers.
        num_attention_heads (`int`, defaults to 12): attention heads a layer; divides `hidden_size`.
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
        conv_dim, conv_stride, conv_kernel (`list[int]`): channels, strides and kernels of the convolutions.
        conv_bias (`bool`, defaults to `False`): bias of the convolutions.
        num_conv_pos_embeddings (`int`, defaults to 128): kernel of the convolutional position embedding, in frames.
        num_conv_pos_embedding_groups (`int`, defaults to 16): its groups; they divide `hidden_size`.
        do_stable_layer_norm (`bool`, defaults to `False`): LayerNorm before each sub-layer (330M) instead of after.
        apply_spec_augment (`bool`, defaults to `True`): draw SpecAugment masks in training, as HuBERT does.
        mask_time_prob, mask_time_length, mask_time_min_masks: SpecAugment along time, in frames.
        mask_feature_prob, mask_feature_length, mask_feature_min_masks: SpecAugment along the hidden dimension.
        ctc_loss_reduction, ctc_zero_infinity: kept from the authors' configuration; unused.
        use_weighted_layer_sum (`bool`, defaults to `False`): the heads read a learned average of all layers.
        classifier_proj_size (`int`, defaults to 256): width of the projection before the classifier.
        pad_token_id, bos_token_id, eos_token_id (`int`): kept from the authors' configuration; unused.
        sample_rate (`int`, defaults to 24000): sampling rate of the input in Hz.
        feature_extractor_cqt (`bool`, defaults to `False`): concatenate a constant-Q spectrum of the input to the
            convolutional features (an option of MERT-v0).
        feature_extractor_cqt_bins (`int`, defaults to 336): its number of bins, over seven octaves from 32.7 Hz.
        feature_extractor_cqt_log (`bool`, defaults to `False`): feed log(1 + 100 x magnitude) instead of magnitudes.
        deepnorm (`bool`, defaults to `False`): scaled residuals (DeepNorm, arXiv 2203.00555); needs post-LN.
        attention_relax (`float`, defaults to -1.0): attention relaxation constant; non-positive switches it off.
            It keeps half-precision scores in range and changes no output in exact arithmetic.
        num_codebooks (`int`, defaults to 8): codebooks of the acoustic teacher; 0 for none.
        codebook_size (`int`, defaults to 1024): codes in each codebook.
        num_special_codes (`int`, defaults to 0): rows before the codes in each embedding table; checkpoints converted
            from fairseq have 4, and code c is row c + 4.
        codebook_dim (`int`, defaults to 64): dimension in which states and codes are compared (128 for 330M).
        logit_temperature (`float`, defaults to 0.1): divisor of the cosine similarities.
        untie_codebook_projections (`bool`, defaults to `True`): one projection per codebook, not one for all.
        cqt_bins (`int`, defaults to 336): bins of the musical teacher's spectrum; 0 for none.
        cqt_loss_weight (`float`, defaults to 1.0): weight of its mean squared error.
        unmasked_loss_weight (`float`, defaults to 0.0): weight of a frame that is not masked in the prediction losses,
            where a masked one weighs 1. Above 0 small models learn much faster.
        feature_penalty_weight (`float`, defaults to 10.0): weight of the mean square of the convolutional features.
        feature_grad_mult (`float`, defaults to 0.1): factor on the gradient into the convolutions in pre-training.
        mask_group_norm (`bool`, defaults to `True`): keep padding out of the GroupNorm statistics, so that a padded
            batch equals its rows run alone. `False` reproduces the authors' numbers.

    Raises:
        ValueError: a field is out of range or contradicts another one.
        TypeError: a field has the wrong type.
    """

    model_type = "mert_model"
    _auto_class = "AutoConfig"

    def __init__(
        self,
        vocab_size=32,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        hidden_act="gelu",
        hidden_dropout=0.1,
        activation_dropout=0.1,
        attention_dropout=0.1,
        feat_proj_layer_norm=True,
        feat_proj_dropout=0.0,
        final_dropout=0.1,
        layerdrop=0.1,
        initializer_range=0.02,
        layer_norm_eps=1e-5,
        feat_extract_norm="group",
        feat_extract_activation="gelu",
        conv_dim=(512, 512, 512, 512, 512, 512, 512),
        conv_stride=(5, 2, 2, 2, 2, 2, 2),
        conv_kernel=(10, 3, 3, 3, 3, 2, 2),
        conv_bias=False,
        num_conv_pos_embeddings=128,
        num_conv_pos_embedding_groups=16,
        do_stable_layer_norm=False,
        apply_spec_augment=True,
        mask_time_prob=0.05,
        mask_time_length=10,
        mask_time_min_masks=2,
        mask_feature_prob=0.0,
        mask_feature_length=10,
        mask_feature_min_masks=0,
        ctc_loss_reduction="sum",
        ctc_zero_infinity=False,
        use_weighted_layer_sum=False,
        classifier_proj_size=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        sample_rate=24000,
        feature_extractor_cqt=False,
        feature_extractor_cqt_bins=336,
        feature_extractor_cqt_log=False,
        deepnorm=False,
        attention_relax=-1.0,
        num_codebooks=8,
        codebook_size=1024,
        num_special_codes=0,
        codebook_dim=64,
        logit_temperature=0.1,
        untie_codebook_projections=True,
        cqt_bins=336,
        cqt_loss_weight=1.0,
        unmasked_loss_weight=0.0,
        feature_penalty_weight=10.0,
        feature_grad_mult=0.1,
        mask_group_norm=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout = hidden_dropout
        self.activation_dropout = activation_dropout
        self.attention_dropout = attention_dropout
        self.feat_proj_layer_norm = feat_proj_layer_norm
        self.feat_proj_dropout = feat_proj_dropout
        self.final_dropout = final_dropout
        self.layerdrop = layerdrop
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.feat_extract_norm = feat_extract_norm
        self.feat_extract_activation = feat_extract_activation
        self.conv_dim = integer_list("conv_dim", conv_dim)
        self.conv_stride = integer_list("conv_stride", conv_stride)
        self.conv_kernel = integer_list("conv_kernel", conv_kernel)
        self.conv_bias = conv_bias
        self.num_conv_pos_embeddings = num_conv_pos_embeddings
        self.num_conv_pos_embedding_groups = num_conv_pos_embedding_groups
        self.do_stable_layer_norm = do_stable_layer_norm
        self.apply_spec_augment = apply_spec_augment
        self.mask_time_prob = mask_time_prob
        self.mask_time_length = mask_time_length
        self.mask_time_min_masks = mask_time_min_masks
        self.mask_feature_prob = mask_feature_prob
        self.mask_feature_length = mask_feature_length
        self.mask_feature_min_masks = mask_feature_min_masks
        self.ctc_loss_reduction = ctc_loss_reduction
        self.ctc_zero_infinity = ctc_zero_infinity
        self.use_weighted_layer_sum = use_weighted_layer_sum
        self.classifier_proj_size = classifier_proj_size
        self.sample_rate = sample_rate
        self.feature_extractor_cqt = feature_extractor_cqt
        self.feature_extractor_cqt_bins = feature_extractor_cqt_bins
        self.feature_extractor_cqt_log = feature_extractor_cqt_log
        self.deepnorm = deepnorm
        self.attention_relax = attention_relax
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.num_special_codes = num_special_codes
        self.codebook_dim = codebook_dim
        self.logit_temperature = logit_temperature
        self.untie_codebook_projections = untie_codebook_projections
        self.cqt_bins = cqt_bins
        self.cqt_loss_weight = cqt_loss_weight
        self.unmasked_loss_weight = unmasked_loss_weight
        self.feature_penalty_weight = feature_penalty_weight
        self.feature_grad_mult = feature_grad_mult
        self.mask_group_norm = mask_group_norm
        self._check_number_of_convolutions(kwargs.pop("num_feat_extract_layers", None))
        self._check_fields()
        report_unknown(type(self).__name__, kwargs, list(vars(self)))
        super().__init__(pad_token_id=pad_token_id, bos_token_id=bos_token_id, eos_token_id=eos_token_id, **kwargs)
        self.auto_map = dict(AUTO_MAP)

    @property
    def num_feat_extract_layers(self) -> int:
        """Number of convolutions of the feature encoder."""
        return len(self.conv_dim)

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next: the product of the strides."""
        return math.prod(self.conv_stride)

    @property
    def samples_per_frame(self) -> int:
        """`hop_length` under the name that both generations have."""
        return self.hop_length

    @property
    def sampling_rate(self) -> int:
        """`sample_rate` under the name that both generations have."""
        return self.sample_rate

    @property
    def codebook_sizes(self) -> list[int]:
        """Codes in each codebook, as both generations have it."""
        return [self.codebook_size] * self.num_codebooks

    @staticmethod
    def target_fields(codebook_sizes, num_bins: int) -> dict:
        """The fields that say what pre-training predicts: codes in each codebook, bins of a spectrum."""
        sizes = {"num_codebooks": len(codebook_sizes), "cqt_bins": num_bins}
        return {**sizes, "codebook_size": max(codebook_sizes)} if codebook_sizes else sizes

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of the convolutional encoder sees."""
        field, step = 1, 1
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            field += (kernel - 1) * step
            step *= stride
        return field

    @property
    def frame_rate(self) -> float:
        """Frames in a second of audio, in Hz."""
        return self.sample_rate / self.hop_length

    @property
    def inputs_to_logits_ratio(self) -> int:
        """The name under which transformers looks for `hop_length`."""
        return self.hop_length

    def num_frames(self, num_samples):
        """Frames that the convolutional encoder makes of a clip.

        Args:
            num_samples (`int`, integer tensor or array): length of the clip in samples.

        Returns:
            The number of frames, of the type given: floor((L - kernel) / stride) + 1 layer by layer, at least 0.
        """
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            num_samples = (num_samples - kernel) // stride + 1
        return num_samples.clip(min=0) if hasattr(num_samples, "clip") else max(num_samples, 0)

    def frame_times(self, num_frames: int) -> list[float]:
        """Times in seconds of the centres of the first `num_frames` frames, counted from the start of the clip."""
        return [(index * self.hop_length + self.receptive_field / 2) / self.sample_rate for index in range(num_frames)]

    def _check_number_of_convolutions(self, num_layers):
        lengths = {name: len(getattr(self, name)) for name in ("conv_dim", "conv_stride", "conv_kernel")}
        if num_layers is not None:
            lengths["num_feat_extract_layers"] = num_layers
        if len(set(lengths.values())) != 1 or not 1 <= len(self.conv_dim) <= MAX_CONV_LAYERS:
            raise ValueError(
                f"The convolutional layers disagree: {lengths}. Give conv_dim, conv_stride and conv_kernel the same "
                f"length, between 1 and {MAX_CONV_LAYERS}."
            )

    def _check_fields(self):
        """Refuses values that no model can have, before anything is allocated."""
        for name, (low, high) in INTEGER_BOUNDS.items():
            check_integer(name, getattr(self, name), low, high)
        for name in ("conv_dim", "conv_stride", "conv_kernel"):
            for value in getattr(self, name):
                check_integer(name, value, 1, MAX_CONV_SIZE)
        for name in PROBABILITIES:
            check_real(name, getattr(self, name), 0.0, 1.0)
        for name in NON_NEGATIVE:
            check_real(name, getattr(self, name), 0.0, math.inf)
        check_real("attention_relax", self.attention_relax, -math.inf, math.inf)
        check_real("logit_temperature", self.logit_temperature, 1e-6, math.inf)
        for name in FLAGS:
            check_flag(name, getattr(self, name))
        for name in ("hidden_act", "feat_extract_activation"):
            check_activation(name, getattr(self, name))
        self._check_combinations()

    def _approximate_parameters(self) -> int:
        """Weights of the matrices and convolutions, without biases and norms."""
        hidden, channels = self.hidden_size, [1, *self.conv_dim]
        layers = self.num_hidden_layers * hidden * (4 * hidden + 2 * self.intermediate_size)
        positions = hidden * hidden // self.num_conv_pos_embedding_groups * self.num_conv_pos_embeddings
        sizes = zip(channels[:-1], channels[1:], self.conv_kernel, strict=True)
        convolutions = sum(inputs * outputs * kernel for inputs, outputs, kernel in sizes)
        codes = self.num_codebooks * (self.codebook_size + hidden) * self.codebook_dim
        return layers + positions + convolutions + codes

    def check_width(self):
        """Refuses a width that no model can have; models call it, as configurations are made with any width in tests.

        Raises:
            ValueError: `hidden_size` is 0, or no multiple of the heads or of the position embedding's groups.
        """
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if not self.hidden_size or self.hidden_size % getattr(self, name):
                raise ValueError(
                    f"hidden_size={self.hidden_size} must be a positive multiple of {name}={getattr(self, name)}."
                )

    def _check_combinations(self):
        if self.feat_extract_norm not in ("group", "layer"):
            raise ValueError(f"feat_extract_norm={self.feat_extract_norm!r} must be 'group' or 'layer'.")
        if (parameters := self._approximate_parameters()) > MAX_PARAMETERS:
            raise ValueError(
                f"These sizes make a model of about {parameters:.1e} parameters, more than {MAX_PARAMETERS:.0e}. Lower "
                f"hidden_size={self.hidden_size}, num_hidden_layers={self.num_hidden_layers}, conv_dim, codebook_size "
                "or num_conv_pos_embeddings."
            )
        if not isinstance(self.ctc_loss_reduction, str):
            raise TypeError(f"ctc_loss_reduction={self.ctc_loss_reduction!r} must be text, such as 'sum'.")
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


def report_unknown(owner: str, names, fields) -> None:
    """Warns of keys that look like a misspelt field. transformers adds keys of its own, so others are no mistake."""
    for name in names:
        if close := difflib.get_close_matches(name, fields, n=1, cutoff=0.85):
            logger.warning(f"{owner} has no field {name!r}: it has no effect. Did you mean {close[0]!r}?")


def integer_list(name: str, value) -> list:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name}={value!r} must be a list of integers, one for each convolution.")
    return list(value)


def check_integer(name: str, value, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} must be an integer between {low} and {high}.")
    if not low <= value <= high:
        raise ValueError(f"{name}={value} must be between {low} and {high}.")


def check_real(name: str, value, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} must be a number between {low} and {high}.")
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name}={value} must be between {low} and {high}.")


def check_flag(name: str, value) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be true or false.")


def check_activation(name: str, value) -> None:
    from transformers.activations import ACT2FN

    if not isinstance(value, str) or value not in ACT2FN:
        raise ValueError(f"{name}={value!r} must be one of {sorted(ACT2FN)}.")


__all__ = ["MERTConfig"]
