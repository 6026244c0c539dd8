"""A small world to do harm to, and what a trial is.

The world has digits, pictures, a trained network, scores and a calibration. Every trial gets a copy of it in
a folder of its own and a process of its own, which is a fork of this one: libraries are imported once, and
nothing that a trial does reaches another."""
import functools
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

import lmd.outliers
import lmd.scoring
from lmd.cli import main
from lmd.data import load
from lmd.training import Run, TrainSettings

SENTENCE = 3                                # words that an error needs at least
PARAMS = dict(
    train=dict(tiny=dict(size=16, width=[16, 16], steps=20, batch=16, warmup=4, dtype="no")),
    settings=dict(quick=dict(steps=2, attempts=2, dtype="float32", distances=["ssim", "mse"]),
                  other=dict(steps=3, attempts=2, dtype="float32", distances=["ssim", "mse"]),
                  mapped=dict(steps=2, attempts=4, dtype="float32", distances=["mse"])))
CPU = "--device", "cpu"
TRAIN = "train", "digits", "--config", "tiny", "--out", "made/model", *CPU
SCORE = "score", "./pictures", "--model", "model", "--setting", "quick", "--out", "made.parquet", *CPU
CALIBRATE = "calibrate", "val.parquet", "--out", "calibration"
DETECT = "detect", "./pictures", "--model", "model", "--calibration", "calibration", *CPU


@dataclass
class Trial:
    kind: str                               # a part of the table
    fault: str                              # a line of it
    run: Callable[[], str | tuple]          # in its folder: an outcome, or an outcome and why
    limit: int = 180                        # seconds after which it hangs: many, for a busy machine


@dataclass
class Result:
    "What a command came to"
    code: int                               # its exit status
    stdout: str
    stderr: str
    error: BaseException | None = None      # what a user would see as a traceback

    def refused(self):
        "None, or why this is no refusal: an error of one sentence"
        said = self.stderr[max(self.stderr.find("\nError: "), 0):].strip()
        if self.error is not None or "Traceback" in self.stderr: return f"traceback: {self.error!r}"
        if not said.startswith("Error: ") or len(said.split()) <= SENTENCE:
            return f"no sentence: {self.stderr[-200:]!r}"


def command(*args, stdin=None):
    "Run a command in this process"
    got = CliRunner().invoke(main, list(map(str, args)), input=stdin)
    error = None if got.exception is None or isinstance(got.exception, SystemExit) else got.exception
    return Result(got.exit_code, got.stdout, got.stderr, error)


def judge(got, right):
    "The outcome of a command; `right` is asked only if it says that all went well: True, or what is wrong"
    if got.error is None and got.code in (0, 3):
        try: found = right()
        except Exception as error: found = f"{type(error).__name__}: {error}"
        return "right" if is_true(found) else ("silently wrong", str(found or "not as it should be")[:300])
    if why := got.refused(): return "traceback", why[:300]
    return "refused", got.stderr[got.stderr.find("Error: "):].strip()


def call(function, right):
    "The outcome of a call from Python: what it returns must be right, what it raises must be said"
    try: made = function()
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        if len(str(error).split()) >= SENTENCE: return "refused", str(error)
        return "traceback", repr(error)
    except Exception as error: return "traceback", repr(error)[:300]
    try: found = right(made)
    except Exception as error: found = repr(error)
    return "right" if is_true(found) else ("silently wrong", str(found or "not as it should be")[:300])


def is_true(found): return isinstance(found, (bool, np.bool_)) and bool(found)


# ---- the world

def more_moments():
    "Save training states and shards more often than a user would, so that a small run has many moments"
    TrainSettings.train = functools.partialmethod(TrainSettings.train, save_every=4)
    lmd.outliers.score_set = functools.partial(lmd.scoring.score_set, shard=8)


def forked(function):
    "Run a function in a process of its own and wait: its exit status, negative for a signal"
    pid = os.fork()
    if pid == 0:
        try: function(); os._exit(0)
        except SystemExit as error: os._exit(error.code or 0)
        except BaseException: traceback.print_exc(); os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def must(*args):
    "Run a command that must go well; a training in a process of its own, as autograd does not outlive a fork"
    def run():
        got = command(*args)
        assert got.code == 0, (args, got)
        return got
    if args[0] != "train": return run()
    assert forked(run) == 0, args
    return Result(0, "", "")


def stopped_score():
    "Score until all shards are there, and not further"
    lmd.scoring.merge_shards = lambda *a, **k: os._exit(0)
    command(*SCORE)


def stopped_training():
    "Train until a state in the middle"
    save = Run.save
    def once(run):
        save(run)
        if run.step >= 8: os._exit(0)
    Run.save = once
    command(*TRAIN)


def make_world(folder):
    "Make the world in `folder`, and what its commands should give; returns the latter"
    os.chdir(folder)
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False), encoding="utf-8")
    must("data", "fetch", "digits")
    digits = load("digits", "train")
    Path("pictures").mkdir()
    for i in range(24): Image.fromarray(digits[i]).save(f"pictures/{i:02}.png")
    must("train", "digits", "--config", "tiny", "--out", "model", "--run", "elsewhere", *CPU)
    shutil.rmtree("elsewhere")
    for source, out in (("digits:val", "val"), ("digits", "inside"), ("./pictures", "pictures")):
        must("score", source, "--model", "model", "--setting", "quick", "--out", f"{out}.parquet", *CPU)
    must(*CALIBRATE)
    must("score", "digits:val", "--model", "model", "--setting", "mapped", "--out", "mapped.parquet", *CPU)
    must("calibrate", "mapped.parquet", "--out", "mapped")
    for mine in ("mine", "empty"): Path(mine).mkdir()
    for text in ("mine/letter.txt", "letter.txt"): Path(text).write_text("do not lose me\n", encoding="utf-8")
    return references(Path(folder))


EVENTS = "open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "shutil.rmtree"

def changes(event, args):
    "Whether an audit event is a change to the files below the working folder"
    if event not in EVENTS or not isinstance(args[0], (str, bytes, os.PathLike)): return False
    path = os.path.abspath(os.fsdecode(args[0]))
    if not path.startswith(os.getcwd() + os.sep): return False
    return event != "open" or bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def count_changes(args):
    "Run a command and write down in `changes` how many changes to files it makes"
    more_moments()
    seen = []
    sys.addaudithook(lambda event, given: seen.append(event) if changes(event, given) else None)
    command(*args)
    n = len(seen)
    Path("changes").write_text(str(n), encoding="utf-8")


def references(folder):
    "What the commands give when nothing goes wrong, and how long they take"
    about, copy = {}, folder.with_name("reference")
    shutil.copytree(folder, copy)
    os.chdir(copy)
    for name, args in dict(train=TRAIN, score=SCORE, calibrate=("calibrate", "val.parquet", "--out", "made"),
                           detect=(*DETECT, "--report", "made.html")).items():
        began = time.perf_counter()
        got = must(*args)
        about[name] = dict(stdout=got.stdout, seconds=time.perf_counter() - began)
        counted = folder.with_name("counted")
        shutil.copytree(folder, counted)
        os.chdir(counted)
        forked(lambda: count_changes(args))
        about[name]["changes"] = int(Path("changes").read_text(encoding="utf-8"))
        os.chdir(copy)
        shutil.rmtree(counted)
    about["eval"] = must("eval", "inside.parquet", "pictures.parquet").stdout
    about["weights"] = weights("made/model")
    about["scores"] = pd.read_parquet("made.parquet")
    about["calibration"] = [Path(f"made.{end}").read_bytes() for end in ("json", "safetensors")]
    about["fingers"] = pd.read_parquet("inside.parquet")
    os.chdir(folder)
    return about


def weights(folder):
    return {p.name: p.read_bytes() for p in sorted(Path(folder).rglob("*.safetensors"))}


def same_scores(path, frame):
    "True, or how a score file differs from a table"
    found = pd.read_parquet(path)
    if list(found) != list(frame): return f"columns {list(found)}"
    if found.equals(frame): return True
    return f"{(found != frame).any(axis=1).sum()} of {len(frame)} rows differ"


def sane_scores(path):
    "True, or what no score file should have"
    frame = pd.read_parquet(path)
    values = frame.drop(columns=["image", "attempt"], errors="ignore").to_numpy(float)
    if not len(frame) or not values.size: return "it is empty"
    return True if np.isfinite(values).all() else "there are numbers that are none"


def sane_csv(text):
    "True, or what no line of `lmd detect` should have"
    import io
    lines = pd.read_csv(io.StringIO(text), keep_default_na=False)
    if list(lines) != ["image", "score", "p_value", "flagged"]: return f"columns {list(lines)}"
    p = lines["p_value"].astype(float)
    good = np.isfinite(lines["score"].astype(float)).all() and ((p > 0) & (p <= 1)).all()
    return bool(len(lines)) and bool(good) or "scores or p-values that are none"


def kept(named=None):
    "True, or what of the user's is gone or changed; a file that was named as the output may be written anew"
    if Path("mine").is_symlink() or not Path("mine/letter.txt").exists(): return "mine/letter.txt is gone"
    for name in ("letter.txt", "mine/letter.txt"):
        if Path(name).is_symlink() or not Path(name).exists(): return f"{name} is gone"
        if name == named and Path(name).is_file(): continue
        if Path(name).read_text(encoding="utf-8") != "do not lose me\n": return f"{name} has changed"
    return True


# ---- running trials

def in_folder(trial, folder, pipe, quiet):
    "The child: do a trial in its folder, and write its outcome to a pipe"
    os.setsid()
    os.chdir(folder)
    if quiet:
        log = open("log", "wb")
        for stream in (1, 2): os.dup2(log.fileno(), stream)
    try: outcome = trial.run()
    except BaseException as error:
        traceback.print_exc()
        outcome = "fault of the trial", repr(error)[:500]
    with os.fdopen(pipe, "w", encoding="utf-8") as f: json.dump(outcome, f)
    os._exit(0)


def start(trial, world, folder, quiet=True):
    "Copy the world and start a trial: (pid, the end of its pipe, when it must be over)"
    shutil.copytree(world, folder, symlinks=True)
    end, pipe = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        in_folder(trial, folder, pipe, quiet)
    os.close(pipe)
    return pid, end, time.monotonic() + trial.limit


def outcome(pid, end, until):
    "What a trial has come to: (outcome, why), or None if it still runs"
    import signal
    done, status = os.waitpid(pid, os.WNOHANG)
    late = time.monotonic() > until
    if not done and not late: return None
    try: os.killpg(pid, signal.SIGKILL)                 # it, or what it has left running
    except ProcessLookupError: pass
    if not done: os.waitpid(pid, 0)
    with os.fdopen(end, encoding="utf-8") as f: said = f.read()
    if said: got = json.loads(said)
    elif late: got = "hang"
    else: got = "traceback", f"the process died ({status})"
    return (got, "") if isinstance(got, str) else tuple(got)


torch.set_num_threads(1)
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))     # before any thread looks at the pool
