"What the tests share: the command, in this process and in one of its own, and a small trained model."
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from forked import Forked
from lmd.cli import main

ROOT = Path(__file__).resolve().parents[1]
os.environ["OMP_NUM_THREADS"] = "1"      # the networks here are too small for more; torch is not there yet
signal.signal(signal.SIGINT, signal.default_int_handler)     # a job in the background ignores Ctrl-C

TINY = dict(size=16, width=[16, 16], steps=150, batch=32, warmup=20, dtype="no")
QUICK = dict(steps=2, attempts=2, dtype="float32", distances=["ssim", "mse"])
SETTINGS = {
    "quick": QUICK,
    "other": QUICK | dict(steps=3),
    "longer": QUICK | dict(steps=4, attempts=4),
    "half": dict(steps=2, attempts=2, distances=["ssim", "mse"]),                 # in bfloat16
    "klip": dict(method="klip", steps=6, start=3.0, chains=2),
    "repairing": dict(method="repairing", erosions=["downsample-2", "identity"], distances=["mse"],
                      dtype="float32"),
}

# one of each kind
TRAININGS = {
    "tiny": TINY,
    "short": TINY | dict(steps=20, warmup=5),
    "digits-vae": dict(kind="vae", size=16, steps=5, batch=16),
    "digits-repair": dict(kind="repairer", size=16, width=[8, 8, 8], code=2, steps=5, batch=16, lpips=0),
    "digits-teacher": dict(kind="classifier", network="vit", size=16, width=32, layers=1, optimizer="adamw",
                           lr=.001, steps=10, batch=16),
    "digits-latent": dict(kind="latent", size=16, vae_width=[8, 8], vae_steps=5, unet_width=[16, 16], steps=5,
                          batch=16),
    "digits-outliers": dict(kind="outliers", k=5, boundary=4, candidates=20, latents=20, steps=2, draws=100),
    "digits-student": dict(kind="student", size=16, width=16, stem=1, steps=5, batch=16),
}

# settings that cannot be scored, and what the message must say
BAD_SETTINGS = {
    "typo": (dict(step=2), "unknown setting step"),
    "nothing": (None, "nothing"),
    "no-attempts": (dict(attempts=0), "attempts must be a whole number, at least 1"),
    "no-steps": (dict(steps=0), "steps must be a whole number, at least 1"),
    "no-images": (dict(n=0), "n must be a whole number, at least 1"),
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

# trainings that cannot be done, and what the message must say
BAD_TRAININGS = {
    "typo": (dict(stepz=3), "unknown setting stepz"),
    "odd-size": (dict(size=18), "18 is not divisible by"),
    "unknown-schedule": (dict(schedule=dict(name="linear")), "unknown schedule 'linear'"),
    "unknown-kind": (dict(kind="transformer"), "transformer"),
}


# tests that share what takes long to make, in one worker each
GROUPS = {"test_cli.py": "model", "test_refusals.py": "model", "test_study.py": "model",
          "test_fit.py": "processes", "test_processes.py": "processes", "test_scale.py": "processes",
          "test_paper_scale.py": "pages", "test_pipeline.py": "pipeline"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Larger groups first; with pytest 9.2 the groups of pytest-xdist 3.8 itself are lost (its issue 1386)"
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return GROUPS.get(Path(nodeid.split("::")[0]).name, nodeid)

    return Grouped(config, log)


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    "A folder to work in: generated sets, pictures and a parameter file"
    place = tmp_path_factory.mktemp("place")
    trainings = TRAININGS | {name: TINY | bad for name, (bad, _) in BAD_TRAININGS.items()}
    settings = SETTINGS | {name: bad and QUICK | bad for name, (bad, _) in BAD_SETTINGS.items()}
    params = dict(train=trainings, settings=settings)
    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    fetched = CliRunner().invoke(main, ["data", "fetch", "digits", "letters", "--root", f"{place}/data"])
    assert fetched.exit_code == 0, fetched.output
    assert fetched.output.split() == [f"{place}/data/{name}" for name in ("digits", "letters")]
    save_pictures(place, "pictures", 4)
    return place


def save_pictures(place, folder, n):
    "The first training digits as pictures in a folder of their own"
    from lmd.data import load
    (place / folder).mkdir()
    digits = load("digits", "train", root=place / "data")
    for i in range(n): Image.fromarray(digits[i]).save(place / folder / f"{i:04}.png")


@pytest.fixture(scope="session")
def many(place):
    "A folder of 1 100 pictures, which are three shards"
    save_pictures(place, "many", 1100)
    return "./many"


@pytest.fixture
def lmd(place, monkeypatch):
    "Run a command in this process; where a user would see a traceback, so does pytest"
    monkeypatch.chdir(place)
    def run(*args, code=0, stdin=None):
        got = CliRunner().invoke(main, [str(a) for a in args], input=stdin, catch_exceptions=False)
        assert got.exit_code == code, got.output
        return got
    return run


@pytest.fixture
def process(place):
    "Start a command in a process of its own, which does not outlive the test"
    started = []
    def start(*args, **variables):
        started.append(Forked(*args, cwd=place, **variables))
        return started[-1]
    yield start
    for p in started: p.end()


def train(place, name, out):
    "Train an entry on the digits, once a session"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        args = ["train", "digits", "--config", name, "--out", f"checkpoints/{out}", "--device", "cpu"]
        got = CliRunner().invoke(main, args, catch_exceptions=False)
    assert got.exit_code == 0, got.output
    assert f"checkpoints/{out}: loss" in got.stdout
    return Path(f"checkpoints/{out}")


@pytest.fixture(scope="session")
def model(place):
    "A network of 70 thousand parameters that has seen digits for some seconds"
    return train(place, "tiny", "tiny")


@pytest.fixture(scope="session")
def repairer(place):
    "A network that repairs digits, badly"
    return train(place, "digits-repair", "digits-repair")


QUICKLY = "--setting", "quick", "--device", "cpu"


@pytest.fixture
def scored(lmd, place, model):
    "Score files of two sets, in the folder of their model and setting"
    folder = Path("scores/tiny/quick")
    if not folder.exists(): lmd("score", "digits", "letters", "--model", model, *QUICKLY, "--out", folder)
    return str(folder / "digits.parquet"), str(folder / "letters.parquet")


def message(got):
    "The message of a failed command: one line, and the last one"
    errors = [line for line in got.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == got.stderr.splitlines()[-1:], got.stderr
    return errors[0]


def wait_for(condition, process, seconds=120):
    "Wait until something is true while a process runs; what it printed if it ended too early"
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "waited too long"
        time.sleep(.01)


def begun(run, steps):
    "Whether a training of so many steps has done some of them, by its bar: to be asked again and again"
    return lambda: re.search(rf"[1-9]\d*/{steps} ", run.said()[1])


def largest_relative_difference(a, b):
    "Of two score tables with the same rows"
    assert a[["image", "attempt"]].equals(b[["image", "attempt"]])
    a, b = (t.drop(columns=["image", "attempt"]).to_numpy(np.float64) for t in (a, b))
    return (np.abs(a - b) / np.abs(a)).max()
