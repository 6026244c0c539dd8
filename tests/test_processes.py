"Several processes: the scores and the training of one, and the work of a dead worker is not lost."
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

from conftest import wait_for
from lmd.files import read_metadata, write_table

# in one group, so that there are no more processes at a time than cores
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]
WHAT = "score", "./many", "--setting", "longer", "--device", "cpu", "--out"
ALONE = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def several(place):
    "Start one run in several processes"
    started = []
    def start(processes, *args):
        command = [str(Path(sys.executable).with_name(p)) for p in ("torchrun", "lmd")]
        command[1:1] = ["--standalone", "--nproc-per-node", str(processes), "--no-python"]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen([*command, *map(str, args)], cwd=place, text=True, env=ALONE,
                                        stdout=pipe, stderr=pipe, start_new_session=True))
        return started[-1]
    yield start
    for p in started:
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
        p.communicate()


@pytest.fixture(scope="module")
def whole(place, many, model):
    "The scores of one process"
    command = [str(Path(sys.executable).with_name("lmd")), *WHAT, "alone.parquet", "--model", str(model)]
    subprocess.run(command, cwd=place, check=True, capture_output=True, env=ALONE)
    return pd.read_parquet(place / "alone.parquet")


@pytest.mark.parametrize("processes", [2, 4])       # of three shards: one has two, one has none
def test_several_processes_give_the_scores_of_one(several, whole, place, model, processes):
    run = several(processes, *WHAT, f"by{processes}.parquet", "--model", model)
    assert run.wait(300) == 0, run.communicate()
    assert pd.read_parquet(place / f"by{processes}.parquet").equals(whole)
    assert read_metadata(place / f"by{processes}.parquet")["processes"] == processes
    assert not list(place.glob("runs/*/*.parquet"))


def test_the_work_of_a_dead_worker_is_taken_up(several, whole, place, model):
    run = several(2, *WHAT, "dead.parquet", "--model", model)
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
    again = several(2, *WHAT, "dead.parquet", "--model", model)
    assert again.wait(300) == 0, again.communicate()
    scores = pd.read_parquet(place / "dead.parquet")
    assert scores.loc[row, "mse"].item() == 123
    scores.loc[row, "mse"] = true
    assert scores.equals(whole)


def test_two_processes_train_the_model_of_one(several, place):
    "The same images, times and noise in each step, shared out between the processes"
    losses = []
    for processes in (1, 2):
        out = f"trained/by{processes}"
        run = several(processes, "train", "digits", "--config", "short", "--device", "cpu", "--out", out)
        assert run.wait(300) == 0, run.communicate()
        about = json.loads((place / out / "lmd.json").read_text())
        losses.append([about[k] for k in ("loss", "val_loss")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("stray", [{"WORLD_SIZE": "4"}, {"WORLD_SIZE": "many", "RANK": "0"}])
def test_stray_variables_are_named(place, model, stray):
    "A process that other processes are said to belong to does not wait for them for ever"
    command = [str(Path(sys.executable).with_name("lmd")), *WHAT, "stray.parquet", "--model", str(model)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=ALONE | stray, timeout=120)
    assert done.returncode == 1 and not (place / "stray.parquet").exists()
    assert f"WORLD_SIZE={stray['WORLD_SIZE']}" in done.stderr and "unset these variables" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_equal_scorings_wait_for_each_other(place, many, model):
    "Both end well, and neither loses its work"
    command = [str(Path(sys.executable).with_name("lmd")), *WHAT, "twice.parquet", "--model", str(model)]
    runs = [subprocess.Popen(command, cwd=place, env=ALONE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True) for _ in range(2)]
    done = [(run.communicate(timeout=600), run.returncode) for run in runs]
    assert [code for _, code in done] == [0, 0], done
    assert len(pd.read_parquet(place / "twice.parquet")) == 1100*4


def test_a_detection_that_was_killed_goes_on(lmd, place, many, model):
    with_model = "--model", str(model), "--device", "cpu"
    for command in (
            ("score", "digits:val", *with_model, "--setting", "longer", "--out", "killed-val.parquet"),
            ("calibrate", "killed-val.parquet", "--out", "killed")):
        lmd(*command)
    detect = "detect", many, *with_model, "--calibration", "killed", "--batch", "40", "--work", "halfway"
    command = [str(Path(sys.executable).with_name("lmd")), *detect]
    process = subprocess.Popen(command, cwd=place, env=ALONE, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: list(place.glob("halfway/*/scores.txt")), process)
    process.kill()
    process.communicate()
    kept = next(place.glob("halfway/*/scores.txt")).read_bytes().count(b"\n")
    assert 0 < kept < 1100
    again, whole = lmd(*detect), lmd(*detect[:-1], "another")
    a, b = (pd.read_csv(io.StringIO(done.stdout)) for done in (again, whole))
    assert a["image"].equals(b["image"]) and len(a) == 1100
    assert (a["score"] - b["score"]).abs().max() < .01
    assert not list(place.glob("halfway/detect-*/"))
