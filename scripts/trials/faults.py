"""What happens to a run: it is killed, the disk is full, a byte is flipped, another run is at work."""
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from lmd.files import read_npz, write_npz

from .world import (CPU, DETECT, SCORE, TRAIN, Trial, changes, command, forked, judge, kept, more_moments,
    same_scores,
                    sane_scores, stopped_score, stopped_training, weights)

# ---- killed

def killed_before(args, which):
    "Run a command and end it, as kill -9 does, just before the given change to a file"
    left = [which]
    def hook(event, given):
        if changes(event, given):
            left[0] -= 1
            if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    command(*args)


def killed_after(args, seconds):
    "Run a command and end it after some time"
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
    command(*args)


def kill(name, args, share, by_time, about, right):
    "Kill a command at a share of its changes or of its time, start it again, and look at what it gives"
    def run():
        more_moments()
        Path("calibration.json").rename("made.json")     # an older calibration is in the place of the new one
        Path("calibration.safetensors").rename("made.safetensors")
        shutil.copy("made.json", "calibration.json")
        shutil.copy("made.safetensors", "calibration.safetensors")
        if by_time: forked(lambda: killed_after(args, max(share, .02)*about[name]["seconds"]))
        else:
            status = forked(lambda: killed_before(args, int(share*about[name]["changes"])))
            if status != -signal.SIGKILL: return "fault of the trial", "it was not killed"
        if (found := kept()) is not True: return "lost", found
        if (found := whole(name)) is not True: return "silently wrong", found
        outcome = judge(got := command(*args), lambda: right(got))
        if outcome[0] == "refused": return "lost", f"it does not go on: {outcome[1]}"
        if outcome[0] == "right" and (left := [str(p) for p in Path().rglob("*.tmp")]):
            return "silently wrong", f"left behind: {left}"
        return outcome
    return run


def whole(name):
    "After a kill: True, or what of an output is there in part"
    if name == "score" and Path("made.parquet").exists(): return sane_scores("made.parquet")
    if name == "calibrate":
        got = command("detect", "./pictures/00.png", "--model", "model", "--calibration", "made", *CPU)
        if got.error is None and got.code == 1: return True
        old = Path("calibration.safetensors").read_bytes() == Path("made.safetensors").read_bytes()
        if old != (Path("calibration.json").read_bytes() == Path("made.json").read_bytes()):
            return "detect takes half of one calibration and half of another"
    return True


def killed(about):
    report = *DETECT, "--report", "made.html"
    other = "calibrate", "val.parquet", "--out", "made", "--seed", "1"
    def trained(got): return weights("made/model") == about["weights"] or "other weights than without a kill"
    def calibrated(got): return sane_calibration("made")
    def detected(got):
        return (got.stdout == about["detect"]["stdout"]
            and Path("made.html").stat().st_size > 1000) or "another csv"
    ways = [("train", TRAIN, trained, 16), ("score", SCORE, lambda got: same_scores("made.parquet",
        about["scores"]), 16),
            ("calibrate", other, calibrated, 8), ("detect", report, detected, 10)]
    words = {"detect": "detect --report"}
    for name, args, right, trials in ways:
        for i in range(trials):
            run = kill(name, args, (i // 2 + .5)/(trials/2), i % 2, about, right)
            yield Trial("killed and started again", f"lmd {words.get(name, name)}", run)


def sane_calibration(path):
    got = command("detect", "./pictures", "--model", "model", "--calibration", path, *CPU)
    return got.code == 0 and got.stdout.count("\n") == 25 or f"detect cannot use it: {got.stderr[-200:]}"


# ---- disk full

def limited(args, bytes_left, small):
    "Run a command where files, or the whole disk, have no room for more"
    if not small: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left))
    got = command(*args)
    outcome = judge(got, lambda: True)
    said = outcome if isinstance(outcome, tuple) else (outcome, "")
    Path(os.environ["TRUST_NOTE"]).write_text("\n".join(said), encoding="utf-8")


def mounted(folder):
    "Mount a small disk in a folder; whether that worked, which takes root"
    folder.mkdir()
    if os.geteuid(): return False
    options = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    return subprocess.run(options, capture_output=True).returncode == 0


def full(args, room, right):
    "Run a command with `room` bytes left, and again when there is more"
    def run():
        more_moments()
        here, disk = Path.cwd(), Path.cwd()/"disk"
        os.environ["TRUST_NOTE"] = str(here/"note")
        small = mounted(disk)
        try:
            for path in here.iterdir():
                if path.name not in ("disk", "log", "data"):
                    (shutil.copytree if path.is_dir() else shutil.copy)(path, disk/path.name)
            os.chdir(disk)
            (disk/"data").symlink_to(here/"data")
            if small:
                free = os.statvfs(".").f_bavail*os.statvfs(".").f_frsize
                Path("ballast").write_bytes(bytes(max(free - room, 0)))
            forked(lambda: limited(args, room, small))
            said = ["traceback", "the process died"]
            if (here/"note").exists(): said = (here/"note").read_text(encoding="utf-8").split("\n")
            if (found := kept()) is not True: return "lost", found
            if said[0] not in ("right", "refused"): return said[0], said[-1]
            if said[0] == "refused" and (left := [str(p) for p in Path().rglob("*.tmp")]):
                return "silently wrong", f"left behind: {left}"
            Path("ballast").unlink(missing_ok=True)
            again = judge(got := command(*args), lambda: right(got))
            if again[0] == "refused": return "lost", f"it does not go on with room: {again[1]}"
            return again if again[0] != "right" else tuple(said[:2])
        finally:
            os.chdir(here)
            if small: subprocess.run(["umount", "-l", str(disk)], capture_output=True)
    return run


def disk_full(about):
    def trained(got): return weights("made/model") == about["weights"] or "other weights"
    def detected(got): return got.stdout == about["detect"]["stdout"] or "another csv"
    ways = {
        "lmd train": (TRAIN, trained),
        "lmd score": (SCORE, lambda got: same_scores("made.parquet", about["scores"])),
        "lmd score to a csv": ((*SCORE[:-4], "--out", "made.csv", *CPU),
        lambda got: Path("made.csv").stat().st_size > 99),
        "lmd calibrate": (("calibrate", "val.parquet", "--out", "made"),
        lambda got: sane_calibration("made")),
        "lmd detect --report": ((*DETECT, "--report", "made.html"), detected),
        "lmd detect --maps": (("detect", "digits", "--model", "model", "--calibration", "mapped", "--maps",
        "maps",
                               *CPU), lambda got: True),
        "lmd reconstruct": (("reconstruct", "digits", "--model", "model", "--setting", "quick", "--out",
        "made.npz",
                             *CPU), lambda got: bool(read_npz("made.npz"))),
        "lmd data fetch": (("data", "fetch", "letters", "--root", "sets"), lambda got: True)}
    for name, (args, right) in ways.items():
        for room in (0, 4096, 20_000, 70_000): yield Trial("disk full", name, full(args, room, right))


# ---- flipped bytes

def flip(path, rng):
    "Change one byte of a file, at a random place, to a random other value"
    data = bytearray(Path(path).read_bytes())
    place = rng.integers(len(data))
    data[place] ^= int(rng.integers(1, 256))
    Path(path).write_bytes(data)


def flipped(path, args, right, trial, before=None):
    "Flip a byte of one of the files that a pattern finds, then run a command"
    def run():
        more_moments()
        if before: forked(before)
        rng = np.random.default_rng([2, trial])
        found = sorted(p for pattern in path.split() for p in Path().glob(pattern) if p.is_file())
        if not found: return "fault of the trial", f"there is no {path}"
        flip(found[rng.integers(len(found))], rng)
        return judge(got := command(*args), lambda: right(got))
    return run


def flipped_npz(trial):
    def run():
        rng = np.random.default_rng([3, trial])
        arrays = dict(originals=rng.random((3, 1, 8, 8), np.float32), numbers=np.arange(40))
        write_npz("made.npz", **arrays)
        flip("made.npz", rng)
        try: found = read_npz("made.npz")
        except (ValueError, OSError) as error: return "refused", str(error)
        except Exception as error: return "traceback", repr(error)
        same = set(found) == set(arrays) and all(np.array_equal(found[k], arrays[k]) for k in arrays)
        return "right" if same else ("silently wrong", "other arrays")
    return run


def flips(about):
    evaluate = "eval", "inside.parquet", "pictures.parquet"
    inside = "score", "digits", "--model", "model", "--setting", "quick", "--out", "made.parquet", *CPU
    def evaluated(got): return got.stdout == about["eval"] or f"other numbers: {got.stdout}"
    def scored(got): return same_scores("made.parquet", about["scores"])
    def scored_inside(got): return same_scores("made.parquet", about["fingers"])
    def calibrated(got):
        made = [Path(f"made.{end}").read_bytes() for end in ("json", "safetensors")]
        return made == about["calibration"] or "another calibration"
    def detected(got): return got.stdout == about["detect"]["stdout"] or "other scores"
    def trained(got): return weights("made/model") == about["weights"] or "other weights"
    score = SCORE
    for what, path, args, right, trials, before in (
            ("scores, read by lmd eval", "inside.parquet", evaluate, evaluated, 40, None),
            ("scores, read by lmd calibrate", "val.parquet", ("calibrate", "val.parquet", "--out", "made"),
            calibrated, 25, None),
            ("shards, read by lmd score", "runs/*/*.parquet runs/*/*/*.parquet", score,
            scored, 40,
             stopped_score),
            ("training state, read by lmd train", "runs/*/state.pt", TRAIN, trained, 30, stopped_training),
            ("weights, read by lmd score", "model/unet/*.safetensors", score, scored, 30, None),
            ("weights, read by lmd detect", "model/unet/*.safetensors", DETECT, detected, 20, None),
            ("lmd.json of a checkpoint, read by lmd score", "model/lmd.json", score, scored, 25, None),
            ("config.json of a network, read by lmd score", "model/unet/config.json", score, scored, 20,
            None),
            ("calibration, json, read by lmd detect", "calibration.json", DETECT, detected, 20, None),
            ("calibration, tensors, read by lmd detect", "calibration.safetensors", DETECT, detected, 15,
            None),
            ("arrays of a set, read by lmd score", "data/digits/test.npy", inside, scored_inside, 10, None),
            ("meta.json of a set, read by lmd score", "data/digits/meta.json", inside, scored_inside, 10,
            None)):
        for i in range(trials): yield Trial("a byte flipped", what, flipped(path, args, right, i, before))
    for i in range(15): yield Trial("a byte flipped", "images, read by read_npz", flipped_npz(i))


# ---- at once

def together(all_args, right, outputs=None):
    "Run several commands at the same time: each must be right or refused, and the files right"
    def run():
        more_moments()
        here, pids = Path.cwd(), []
        for i, args in enumerate(all_args):
            pid = os.fork()
            if pid == 0:
                said = judge(command(*args), lambda: True)
                (here/f"said{i}").write_text("\n".join([said] if isinstance(said, str) else said),
                    encoding="utf-8")
                os._exit(0)
            pids.append(pid)
        for pid in pids: os.waitpid(pid, 0)
        said = [(here/f"said{i}").read_text(encoding="utf-8").split("\n") for i in range(len(pids))]
        for outcome in said:
            if outcome[0] not in ("right", "refused"): return outcome[0], outcome[-1]
        if (found := kept()) is not True: return "lost", found
        if not any(outcome[0] == "right"
            for outcome in said): return "lost", f"none of them went through: {said[0][-1]}"
        if (found := right()) is not True: return "silently wrong", str(found)
        refusals = [outcome[-1] for outcome in said if outcome[0] == "refused"]
        return ("refused", refusals[0]) if refusals else "right"
    return run


def at_once(about):
    def scored(path="made.parquet"): return same_scores(path, about["scores"])
    def out(n): return tuple(n if a == "made.parquet" else a for a in SCORE)
    def other(args): return tuple("other" if a == "quick" else a for a in args)
    def one_of_two():
        quick = same_scores("made.parquet", about["scores"])
        return quick is True or sane_scores("made.parquet")
    def two_files(n): return all(scored(f"made{i}.parquet") is True for i in range(n)) or "other scores"
    def trained(): return weights("made/model") == about["weights"] or "other weights"
    def calibrated(): return sane_calibration("made")
    def paged(): return Path("made.html").stat().st_size > 1000
    fetch = "data", "fetch", "letters", "--root", "sets"
    def fetched(): return Path("sets/letters/meta.json").exists()
    for n, words in ((2, "two"), (3, "three")):
        for what, args, right in (
                ("the same scores into one file", [SCORE]*n, scored),
                ("the same scores into files of their own", [out(f"made{i}.parquet") for i in range(n)],
                 lambda n=n: two_files(n)),
                ("several settings into one file", [SCORE, other(SCORE), SCORE][:n], one_of_two),
                ("the same training", [TRAIN]*n, trained),
                ("the same calibration", [("calibrate", "val.parquet", "--out", "made")]*n, calibrated),
                ("several calibrations into one file",
                 [("calibrate", "val.parquet", "--out", "made", "--seed", str(i)) for i in range(n)],
                 calibrated),
                ("the same page", [(*DETECT, "--report", "made.html")]*n, paged),
                ("the same set", [fetch]*n, fetched)):
            for _ in range(2): yield Trial("at once", f"{words}: {what}", together(args, right))
