"""The check of half-precision kernels: quiet where they are right, a problem where one is wrong or fails."""

from __future__ import annotations

import pytest
import torch

from mert_hf.doctor import diagnose, installation

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", installation.HALF_PRECISION)
def test_right_kernels_are_reported_as_right(monkeypatch, dtype):
    """A kernel that computes in float32 and rounds is right on every machine."""

    def rounded(x, w):
        return torch.nn.functional.linear(x.float(), w.float()).to(x.dtype)

    monkeypatch.setattr(installation, "kernels", lambda: {"linear layer": (rounded, [(5, 8), (4, 8)])})
    finding = installation._check_device(CPU, dtype)
    assert finding.level == "ok" and "agree with float32 (linear layer)" in finding.what


def test_every_operation_of_the_models_is_compared():
    for name, (operation, shapes) in installation.kernels().items():
        assert installation.relative_error(operation, shapes, CPU, torch.float32) == 0.0, name


@pytest.mark.parametrize("factor", [1.2, float("nan")])
def test_a_wrong_kernel_is_a_problem(monkeypatch, factor):
    def wrong(x, w):
        return torch.nn.functional.linear(x, w) * (factor if x.dtype == torch.bfloat16 else 1.0)

    monkeypatch.setattr(installation, "kernels", lambda: {"linear layer": (wrong, [(5, 8), (4, 8)])})
    finding = installation._check_device(CPU, torch.bfloat16)
    assert finding.level == "problem" and "wrong results: linear layer" in finding.what
    assert "ONEDNN_MAX_CPU_ISA" in finding.remedy and "--dtype float32" in finding.remedy


def test_a_wrong_gradient_is_a_problem(monkeypatch):
    class WrongGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (3 if gradient.dtype == torch.bfloat16 else 2)

    monkeypatch.setattr(installation, "kernels", lambda: {"layer": (WrongGradient.apply, [(5, 8)])})
    assert installation._check_device(CPU, torch.bfloat16).level == "problem"


def test_a_missing_kernel_is_a_problem(monkeypatch):
    def missing(x):
        raise RuntimeError("not implemented for 'Half'\nstack")

    monkeypatch.setattr(installation, "kernels", lambda: {"layer": (missing, [(5, 8)])})
    finding = installation._check_device(CPU, torch.float16)
    assert finding.level == "problem" and finding.what == "cpu: float16 kernels fail: not implemented for 'Half'"


def test_doctor_reports_the_kernels():
    found = [finding.what for finding in diagnose() if "kernels" in finding.what]
    assert [text.split(" kernels")[0] for text in found[:2]] == ["cpu: bfloat16", "cpu: float16"]
