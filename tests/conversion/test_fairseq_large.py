"""A checkpoint of the published 330M size with optimizer state: converted in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from .conftest import fairseq_content, write_content

SIZES = {
    "encoder_layers": 24,
    "encoder_embed_dim": 1024,
    "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
    "layer_norm_first": True,
    "attention_relax": 32.0,
    "final_dim": 128,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "audio_cqt_bins": 336,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
}
CONVOLUTIONS = [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2
CONVERT = """
import json, re, sys
from mert_hf.conversion import convert_fairseq_checkpoint
report = convert_fairseq_checkpoint(*sys.argv[1:])
peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps({"peak": peak, "parameters": report.num_parameters}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_330m_with_optimizer_state_converts_within_3_gb(tmp_path):
    content = fairseq_content(SIZES, symbols=(1028,) * 8, convolutions=CONVOLUTIONS)
    for name in ("real", "imag"):  # the size of the authors' kernels: most of it is zero
        kernels = torch.zeros(336, 1, 65536)
        kernels[:, :, 30_000:35_000] = torch.randn(336, 1, 5000)
        content["model"][f"encoder_cqt_model.spec_layer.cqt_kernels_{name}"] = kernels
    count = sum(tensor.numel() for tensor in content["model"].values())
    content["last_optimizer_state"] = {"state": {0: {"step": 1, "exp_avg": torch.zeros(count), "exp_avg_sq": 1.0}}}
    path = write_content(content, tmp_path / "checkpoint.pt")
    del content
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CONVERT, str(path), str(tmp_path / "ours")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{path.stat().st_size / 1e9:.2f} GB converted: {measured}")
    assert measured["parameters"] > 300e6
    assert measured["peak"] < 3e9
