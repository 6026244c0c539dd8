"What the tests share: the command, in this process and in one of its own, and a small trained model."
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from lmd.cli import main
from lmd.data import load

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)      # the networks here are too small for more

SETTINGS = {
    "quick": dict(steps=2, attempts=2, dtype="float32", distances=["ssim", "mse"]),
    "other": dict(steps=3, attempts=2, dtype="float32", distances=["ssim", "mse"]),
    "longer": dict(steps=4, attempts=4, dtype="float32", distances=["ssim", "mse"]),
}

# settings that cannot be scored, and what the message must say
BAD_SETTINGS = {
    "typo": (dict(step=2), "unknown setting step"),
    "nothing": (None, "nothing"),
    "no-attempts": (dict(attempts=0), "attempts must be a whole number of at least 1"),
    "no-steps": (dict(steps=0), "steps must be a whole number of at least 1"),
    "no-images": (dict(n=0), "n must be at least 1"),
    "start-after-the-end": (dict(t0=1.5), "t0 must lie in"),
    "start-in-words": (dict(t0="high"), "t0"),
    "seed-in-words": (dict(seed="lucky"), "seed"),
    "negative-seed": (dict(seed=-1), "seed"),
    "unknown-mask": (dict(mask="chequerboard-8"), "there is no mask 'chequerboard-8'"),
    "cells-that-do-not-divide": (dict(mask="alternating-checkerboard-7"), "7"),
    "unknown-sampler": (dict(sampler="runge-kutta"), "unknown sampler 'runge-kutta'"),
    "unknown-dtype": (dict(dtype="fp8"), "unknown dtype 'fp8'"),
    "unknown-distance": (dict(distances=["ssim", "psnr"]), "there is no distance 'psnr'"),
    "distance-not-in-a-list": (dict(distances="ssim"), "distances"),
    "no-distance": (dict(distances=[]), "distance"),
}

# trainings that cannot be done
BAD_TRAININGS = {
    "typo": (dict(stepz=3), "unknown setting stepz"),
    "odd-size": (dict(size=18), "18 is not divisible by"),
    "unknown-schedule": (dict(schedule=dict(name="linear")), "unknown schedule 'linear'"),
}


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    "A folder to work in: generated sets, pictures and a parameter file"
    place = tmp_path_factory.mktemp("place")
    tiny = dict(size=16, width=[16, 16], steps=300, batch=32, warmup=20, dtype="no")
    params = dict(
        train=dict(tiny=tiny, short=tiny | dict(steps=20, warmup=5)) | {name: tiny | bad for name, (bad, _) in BAD_TRAININGS.items()},
        settings=SETTINGS | {name: bad if bad is None else SETTINGS["quick"] | bad for name, (bad, _) in BAD_SETTINGS.items()})
    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert CliRunner().invoke(main, ["data", "fetch", "digits", "letters", "--root", f"{place}/data"]).exit_code == 0
    for folder, n in dict(pictures=4, many=1100).items():     # 1 100 pictures are three shards
        (place / folder).mkdir()
        digits = load("digits", "train", root=place / "data")
        for i in range(n): Image.fromarray(digits[i]).save(place / folder / f"{i:04}.png")
    return place


@pytest.fixture
def lmd(place, monkeypatch):
    "Run a command in this process; where a user would see a traceback, so does pytest"
    monkeypatch.chdir(place)
    def run(*args, code=0):
        got = CliRunner().invoke(main, [str(a) for a in args], catch_exceptions=False)
        assert got.exit_code == code, got.output
        return got
    return run


@pytest.fixture
def process(place):
    "Start a command in a process of its own, which does not outlive the test"
    started = []
    def start(*args):
        command = [str(Path(sys.executable).with_name("lmd")), *map(str, args)]
        started.append(subprocess.Popen(command, cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"},
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]
    yield start
    for p in started:
        p.kill()
        p.communicate()


@pytest.fixture(scope="session")
def model(place):
    "A network of 70 thousand parameters that has seen digits for some seconds"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        args = ["train", "digits", "--config", "tiny", "--out", "checkpoints/tiny", "--device", "cpu"]
        got = CliRunner().invoke(main, args, catch_exceptions=False)
    assert got.exit_code == 0, got.output
    return Path("checkpoints/tiny")


def wait_for(condition, process, seconds=120):
    "Wait until something is true while a process runs; what it printed if it ended too early"
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "waited too long"
        time.sleep(.01)


def largest_relative_difference(a, b):
    "Of two score tables with the same rows"
    assert a[["image", "attempt"]].equals(b[["image", "attempt"]])
    a, b = (t.drop(columns=["image", "attempt"]).to_numpy(np.float64) for t in (a, b))
    return (np.abs(a - b) / np.abs(a)).max()
