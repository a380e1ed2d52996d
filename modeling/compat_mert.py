# SPDX-License-Identifier: Apache-2.0
"""Differences between the supported versions of transformers: 4.48 and 4.57 against 5, and a trait of all."""

from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from typing import TypedDict

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

try:
    from transformers.modeling_layers import GradientCheckpointingLayer
except ImportError:  # before transformers 4.52

    class GradientCheckpointingLayer(nn.Module):
        """A layer that repeats its forward pass during the backward pass where gradient checkpointing is enabled."""

        gradient_checkpointing = False

        def __call__(self, *args, **kwargs):
            if self.gradient_checkpointing and self.training:
                return self._gradient_checkpointing_func(partial(super().__call__, **kwargs), *args)
            return super().__call__(*args, **kwargs)


try:
    from transformers.utils import TransformersKwargs
except ImportError:  # before transformers 4.54

    class TransformersKwargs(TypedDict, total=False):
        """Further arguments of a forward pass, which reach the attention function."""


def accepts_audio_values(forward: Callable) -> Callable:
    """A model's `forward` that takes its input and mask under the names of transformers' audio processors too.

    transformers announces that they return `audio_values` and `audio_values_mask` (pull request 44394). Trainer reads
    the signature: it keeps a column of a data set under either name.
    """

    @wraps(forward)
    def renamed(self, *args, audio_values=None, audio_values_mask=None, **kwargs):
        for name, value in (("input_values", audio_values), ("attention_mask", audio_values_mask)):
            if value is None:
                continue
            position = 0 if name == "input_values" else 1
            if len(args) > position or kwargs.get(name) is not None:
                raise ValueError(f"{name} and its other name were both given. Give one of them.")
            kwargs[name] = value
        return forward(self, *args, **kwargs)

    parameters = list(signature(forward).parameters.values())
    names = [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in ("audio_values", "audio_values_mask")]
    parameters[-1:-1] = names  # before **kwargs
    renamed.__signature__ = Signature(parameters)
    return renamed


class MERTCompatModel(PreTrainedModel):
    """Names and methods that only some of the supported versions look for."""

    _supports_flash_attn_2 = True  # `_supports_flash_attn` in transformers 4.48

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Enables `set_attn_implementation`: transformers looks in the source for a function that 4.48 lacks."""
        return True

    def enable_input_require_grads(self) -> None:
        """Nothing to do: the encoder takes care of it. PEFT calls this; transformers 4 would need token embeddings."""

    def disable_input_require_grads(self) -> None:
        """The counterpart of [`enable_input_require_grads`]."""


def cast_after_loading(from_pretrained: Callable, *args, **kwargs):
    """`from_pretrained` with the values of float32 modules as they are stored, also in transformers 4.48.

    That version rounds every tensor to a half-precision `torch_dtype` as it reads it, so the model is read in float32
    and cast when it is complete; the modules themselves decide what stays in float32.
    """
    dtype = kwargs.get("torch_dtype")
    dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype not in (torch.float16, torch.bfloat16) or hasattr(PreTrainedModel, "_keep_in_fp32_modules_strict"):
        return from_pretrained(*args, **kwargs)
    loaded = from_pretrained(*args, **{**kwargs, "torch_dtype": torch.float32})
    (loaded[0] if isinstance(loaded, tuple) else loaded).to(dtype)
    return loaded


# --- parameter names of a weight-normalized kernel while a checkpoint is loaded ---
#
# The authors' checkpoints and ours store the kernel of the position embedding as `weight_g` and `weight_v`. All
# supported versions of transformers rename these keys of every checkpoint while they load it, to the names of torch's
# parametrization (`parametrizations.weight.original0` and `original1`), and have no option against it. Torch's own
# parametrization is no way out: it has these names in the state dict too, and a model that has it cannot be pickled.
# Therefore a model that is being loaded is built with the names that the loader looks for (`loader_names`), and gets
# the stored names back afterwards (`restore_names`). `MERTPreTrainedModel.from_pretrained` calls both.

_LOADER_NAMES = ContextVar("mert_loader_names", default=False)


@contextmanager
def loader_names():
    """Builds weight-normalized kernels with the parameter names that transformers' loader looks for."""
    token = _LOADER_NAMES.set(True)
    try:
        yield
    finally:
        _LOADER_NAMES.reset(token)


class MERTLoaderWeights(nn.Module):
    """Magnitude and direction of a kernel under the names that transformers' loader looks for."""

    def __init__(self, magnitude: nn.Parameter, direction: nn.Parameter):
        super().__init__()
        self.original0, self.original1 = magnitude, direction

    def forward(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Returns both. Hooks that fetch offloaded weights run at a call, not when an attribute is read."""
        return self.original0, self.original1


def register_weight_norm(module: nn.Module, magnitude: nn.Parameter, direction: nn.Parameter) -> None:
    """Gives a module the parameters of its kernel, under the names of the loader within `loader_names`."""
    if _LOADER_NAMES.get():
        module.parametrizations = nn.ModuleDict({"weight": MERTLoaderWeights(magnitude, direction)})
    else:
        module.weight_g, module.weight_v = magnitude, direction


def weight_norm_of(module: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """Magnitude and direction of a module's kernel, under either of the names."""
    return (module.weight_g, module.weight_v) if hasattr(module, "weight_g") else module.parametrizations["weight"]()


def restore_names(model: nn.Module) -> None:
    """Renames the parameters of a loaded model's kernels to `weight_g` and `weight_v`."""
    for module in list(model.modules()):
        holder = getattr(getattr(module, "parametrizations", None), "weight", None)
        # The hooks that fetch offloaded weights (on the meta device here) use the loader's names.
        if isinstance(holder, MERTLoaderWeights) and not holder.original0.is_meta:
            del module.parametrizations
            register_weight_norm(module, holder.original0, holder.original1)
