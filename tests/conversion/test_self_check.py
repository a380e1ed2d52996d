"""The check that ends a conversion: it finds what it is there for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import mert_hf
from mert_hf.conversion import CheckpointError
from mert_hf.conversion.self_check import (
    ConversionReport,
    fixed_signal,
    require_equal,
    run_backbone,
    save_and_check,
)
from mert_hf.utils.files import staged_directory, staged_file

from .test_hub import SIZES


def model() -> mert_hf.MERTModel:
    return mert_hf.MERTModel(mert_hf.MERTConfig(**SIZES))


def spoil(folder, edit):
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


FAULTS = [
    (lambda state: state["encoder.layer_norm.bias"].add_(1e-6), "encoder.layer_norm.bias differs .* by 1e-06"),
    (lambda state: state.pop("encoder.layer_norm.bias"), "holds other tensors than the converted model"),
    (lambda state: state.update(surplus=torch.zeros(1)), "holds other tensors than the converted model.*surplus"),
    (lambda state: state.update(masked_spec_embed=torch.zeros(3)), "masked_spec_embed has another shape"),
]


@pytest.mark.parametrize(("edit", "message"), FAULTS)
def test_what_was_saved_is_compared_with_what_was_converted(edit, message, tmp_path):
    def save(converted):
        converted.save_pretrained(tmp_path)
        spoil(tmp_path, edit)

    with pytest.raises(CheckpointError, match=message):
        save_and_check(model, save, run_backbone, tmp_path)


def test_outputs_of_the_reloaded_model_are_compared(tmp_path):
    calls = iter([1.0, 1.1])
    with pytest.raises(CheckpointError, match="reloaded model's outputs differ by 0.1"):
        save_and_check(
            model,
            lambda converted: converted.save_pretrained(tmp_path),
            lambda _: torch.tensor([next(calls), 0.0]),
            tmp_path,
        )


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([1.0, float("inf")], "not finite"),
        ([1.0, 1.0], "standard deviation of 0, outside"),
        ([1e9, -1e9], "outside"),
    ],
)
def test_outputs_of_no_sensible_scale_are_refused(outputs, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        save_and_check(model, lambda _: pytest.fail("saved"), lambda _: torch.tensor(outputs), tmp_path)


def test_result_of_a_good_conversion(tmp_path):
    result = save_and_check(model, lambda converted: converted.save_pretrained(tmp_path), run_backbone, tmp_path)
    assert result["largest_difference"] <= 1e-5 and result["num_parameters"] == model().num_parameters()
    assert 0.1 < result["output_scale"] < 10


def test_equal_numbers_of_another_type_are_a_difference():
    with pytest.raises(CheckpointError, match="another shape or type"):
        require_equal([("a", torch.zeros(2), torch.zeros(2, dtype=torch.float16))])


def test_fixed_signal_is_fixed_and_in_range():
    signal = fixed_signal(24000)
    assert signal.shape == (1, 24000) and torch.equal(signal, fixed_signal(24000)) and signal.abs().max() <= 1


def test_report_groups_reasons():
    text = str(ConversionReport("a", "b", 3, dropped={"x.0": "constant", "x.1": "constant", "y": "other"}))
    assert "2 (x.0, ...): constant" in text and "y: other" in text and "no model was run" in text


def test_staged_output_appears_complete_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"), staged_directory(tmp_path / "out") as folder:
        (folder / "half").write_text("")
        raise RuntimeError("power cut")
    with pytest.raises(RuntimeError, match="power cut"), staged_file(tmp_path / "out.pt") as file:
        file.write_text("half")
        raise RuntimeError("power cut")
    assert not list(tmp_path.iterdir())
    with staged_file(tmp_path / "out.pt") as file:
        file.write_text("whole")
    assert (tmp_path / "out.pt").read_text() == "whole"
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="not an empty folder"), staged_directory(tmp_path / "file"):
        pass
