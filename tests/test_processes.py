"Processes that are stopped lose no work, and several give what one gives."
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file

from conftest import QUICKLY, TINY, begun, largest_relative_difference, wait_for
from forked import together
from lmd.data import load
from lmd.detector import LMD
from lmd.files import read_metadata, write_table

pytestmark = pytest.mark.slow
WHAT = "score", "./many", *QUICKLY, "--out"


@pytest.fixture
def several(place):
    "Start one run in several processes, as `torchrun` does"
    started = []
    def start(processes, *args):
        started.extend(runs := together(processes, *args, cwd=place))
        return runs
    yield start
    for p in started: p.end()


@pytest.fixture
def torchrun(place):
    "Start one run in two processes by `torchrun`"
    started = []
    def start(*args):
        command = [str(Path(sys.executable).with_name(p)) for p in ("torchrun", "lmd")]
        command[1:1] = ["--standalone", "--nproc-per-node", "2", "--no-python"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen([*command, *map(str, args)], cwd=place, text=True, stdout=pipe,
                                        stderr=pipe, start_new_session=True))
        return started[-1]
    yield start
    for p in started:
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
        print(*p.communicate())     # whole, below a test that fails


@pytest.fixture(scope="session")
def whole(place, many, model):
    "The scores of one process"
    run, = together(1, *WHAT, "alone.parquet", "--model", model, cwd=place)
    assert run.wait() == 0, run.communicate()
    run.end()
    return pd.read_parquet(place / "alone.parquet")


# ---- several

@pytest.mark.parametrize("processes", [2, 4])       # of three shards: one has two, one has none
def test_several_processes_give_the_scores_of_one(several, whole, place, model, processes):
    for run in several(processes, *WHAT, f"by{processes}.parquet", "--model", model):
        assert run.wait(300) == 0, run.communicate()
    assert pd.read_parquet(place / f"by{processes}.parquet").equals(whole)
    assert read_metadata(place / f"by{processes}.parquet")["processes"] == processes
    assert not list(place.glob("runs/*/*.parquet"))


def test_the_work_of_a_dead_worker_is_taken_up(torchrun, whole, place, model):
    run = torchrun(*WHAT, "dead.parquet", "--model", model)
    wait_for(lambda: list(place.glob("runs/*/*.parquet")), run)
    workers = [p for p in psutil.Process(run.pid).children(recursive=True) if "score" in p.cmdline()]
    workers[-1].kill()
    assert run.wait(300) != 0
    assert not (place / "dead.parquet").exists()

    shard = min(place.glob("runs/*/*.parquet"))
    frame, about = pd.read_parquet(shard), read_metadata(shard)
    row = (whole["image"] == frame.loc[0, "image"]) & (whole["attempt"] == 0)
    true, frame.loc[0, "mse"] = frame.loc[0, "mse"], 123    # to see that the shard is read and not made again
    write_table(frame, shard, **about)
    again = torchrun(*WHAT, "dead.parquet", "--model", model)
    assert again.wait(300) == 0
    scores = pd.read_parquet(place / "dead.parquet")
    assert scores.loc[row, "mse"].item() == 123
    scores.loc[row, "mse"] = true
    assert scores.equals(whole)


def test_two_processes_train_the_model_of_one(several, place):
    "The same images, times and noise in each step, shared out between the processes"
    losses = []
    for processes in (1, 2):
        out = f"trained/by{processes}"
        train = "train", "digits", "--config", "short", "--device", "cpu", "--out", out
        for run in several(processes, *train):
            assert run.wait(300) == 0, run.communicate()
        about = json.loads((place / out / "lmd.json").read_text())
        losses.append([about[k] for k in ("loss", "val_loss")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("stray", [{"WORLD_SIZE": "4"}, {"WORLD_SIZE": "many", "RANK": "0"}])
def test_stray_variables_are_named(process, place, model, stray):
    "A process that other processes are said to belong to does not wait for them for ever"
    run = process(*WHAT, "stray.parquet", "--model", model, **stray)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1 and not (place / "stray.parquet").exists()
    assert f"WORLD_SIZE={stray['WORLD_SIZE']}" in errors and "unset these variables" in errors
    assert "Traceback" not in errors


def test_two_equal_scorings_wait_for_each_other(process, place, many, model):
    "Both end well, and neither loses its work"
    for run in [process(*WHAT, "twice.parquet", "--model", model) for _ in range(2)]:
        assert run.wait(600) == 0, run.communicate()
    assert len(pd.read_parquet(place / "twice.parquet")) == 1100*2


def test_two_processes_fetch_one_set(process, place):
    runs = [process("data", "fetch", "letters", "--root", "shared") for _ in range(2)]
    for run in runs: assert run.wait(timeout=120) == 0, run.communicate()
    assert len(load("letters", root=place / "shared")) == 396


# ---- stopped

def test_killed_scoring_resumes(lmd, process, place, whole, model):
    score = *WHAT, "killed.parquet", "--model", model
    run = process(*score)
    wait_for(lambda: list(place.glob("runs/*/*.parquet")), run)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    assert not Path("killed.parquet").exists()

    shard = min(place.glob("runs/*/*.parquet"))
    frame, about = pd.read_parquet(shard), read_metadata(shard)
    true = frame.loc[0, "mse"]
    frame.loc[0, "mse"] = 123                       # to see that the shard is read and not made again
    write_table(frame, shard, **about)
    lmd(*score, "--batch", 60)
    resumed = pd.read_parquet("killed.parquet")
    assert resumed.loc[0, "mse"] == 123
    resumed.loc[0, "mse"] = true
    assert largest_relative_difference(whole, resumed) <= 1e-3
    assert not list(place.glob("runs/*/*.parquet"))


def stop(run):
    "Press Ctrl-C: the exit code is a shell's, and the last line says how to go on"
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in errors, errors
    assert errors.splitlines()[-1] == "stopped: the same command goes on where it was"


@pytest.fixture
def calibration(lmd, model):
    "A calibration of the quick setting"
    if not Path("stopped").exists():
        lmd("score", "digits:val", "--model", model, *QUICKLY, "--out", "stopped/val.parquet")
        lmd("calibrate", "stopped/val.parquet", "--out", "stopped/calibration")
    return "--model", model, "--calibration", "stopped/calibration", "--device", "cpu"


def test_interrupted_detection_goes_on(lmd, process, place, many, calibration, monkeypatch):
    detect = "detect", many, *calibration, "--batch", 100, "--report", "stopped/page.html"
    run = process(*detect)
    wait_for(lambda: list(place.glob("runs/detect-*/scores.txt")), run)
    stop(run)
    assert not Path("stopped/page.html").exists()
    kept = next(place.glob("runs/detect-*/scores.txt"))
    before, judged = len(kept.read_text().splitlines()), []
    measure = LMD.measure
    monkeypatch.setattr(LMD, "measure", lambda self, x, keys: judged.append(len(x)) or measure(self, x, keys))
    resumed = lmd(*detect).stdout
    page = Path("stopped/page.html").read_text()
    assert 0 < sum(judged) <= 1101 - before and not kept.exists()
    assert lmd(*detect).stdout == resumed and Path("stopped/page.html").read_text() == page


def test_a_detection_that_was_killed_goes_on(lmd, process, place, many, calibration):
    detect = "detect", many, *calibration, "--batch", "40", "--work", "halfway"
    run = process(*detect)
    wait_for(lambda: list(place.glob("halfway/*/scores.txt")), run)
    run.kill()
    run.wait()
    kept = next(place.glob("halfway/*/scores.txt")).read_bytes().count(b"\n")
    assert 0 < kept < 1100
    again, whole = lmd(*detect), lmd(*detect[:-1], "another")
    a, b = (pd.read_csv(io.StringIO(done.stdout)) for done in (again, whole))
    assert a["image"].equals(b["image"]) and len(a) == 1100
    assert (a["score"] - b["score"]).abs().max() < .01
    assert not list(place.glob("halfway/detect-*/"))


def test_interrupted_training_goes_on(lmd, process, place, model):
    train = "train", "digits", "--config", "tiny", "--out", "checkpoints/again", "--device", "cpu"
    run = process(*train)
    wait_for(begun(run, TINY["steps"]), run)
    stop(run)
    assert (place / "runs/again/state.pt").exists() and not Path("checkpoints/again").exists()

    lmd(*train)
    whole, resumed = (load_file(next(Path("checkpoints", name, "unet").glob("*.safetensors")))
                      for name in ("tiny", "again"))
    torch.testing.assert_close(resumed, whole, rtol=1e-2, atol=1e-3)
    losses = [json.loads(Path("checkpoints", name, "lmd.json").read_text())["val_loss"]
              for name in ("tiny", "again")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
