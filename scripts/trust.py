"""Try what can go wrong: kills, a full disk, flipped bytes, several runs at once, and inputs of all kinds.

    python scripts/trust.py                          # all trials, and scores/trust/trust/table.csv
    python scripts/trust.py --only KIND [--trial N]  # the trials of one kind, or one of them

Data and models are made in a temporary folder, where each trial has a copy of them and a process of its own.
Nothing outside it is read or written but the table."""
import os

os.environ["OMP_NUM_THREADS"] = "1"         # the networks here are too small for more
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import click
import pandas as pd

from lmd.study.trust import OUTCOMES, trust_table

from trials.faults import at_once, disk_full, flips, killed
from trials.generated import generated
from trials.inputs import inputs
from trials.scores import scores
from trials.world import make_world, outcome, start

ROOT = Path(__file__).resolve().parents[1]
WRONG = OUTCOMES[2:]                        # after right and refused


def trials(about):
    "All trials: those of a kind in a fixed order, each by its number"
    for makers in (killed, disk_full, flips, at_once, inputs, scores, generated): yield from makers(about)


def numbered(about, only):
    count = {}
    for trial in trials(about):
        number = count[trial.kind] = count.get(trial.kind, -1) + 1
        if not only or any(part.lower() in trial.kind.lower() for part in only): yield number, trial


def run_all(chosen, world, folder, jobs):
    "Run trials, some at a time; yields (number, trial, outcome, why) as they end"
    waiting, running = list(chosen)[::-1], {}
    while waiting or running:
        while waiting and len(running) < jobs:
            number, trial = waiting.pop()
            place = folder/f"{len(waiting):05}"
            running[place] = number, trial, start(trial, world, place)
        time.sleep(.002)
        for place, (number, trial, process) in list(running.items()):
            if (said := outcome(*process)) is None: continue
            del running[place]
            shutil.rmtree(place, ignore_errors=True)
            yield number, trial, *said


def show(number, trial, said, why):
    print(f"{said:15} {trial.kind} {number}: {trial.fault}" + (f"\n                {why}" if why else ""),
        flush=True)


@click.command(context_settings=dict(help_option_names=["-h", "--help"]))
@click.option("--only", multiple=True,
    help="Trials of the kinds with this in their name; may be given several times.")
@click.option("--trial", type=int, help="One trial of that kind, by its number.")
@click.option("--all", "everything", is_flag=True, help="Print right and refused trials, too.")
@click.option("--jobs", default=2, help="Trials at the same time.", show_default=True)
@click.option("--out", default=str(ROOT/"scores/trust/trust/table.csv"),
    help="The table; of all trials only.", show_default=True)
def main(only, trial, everything, jobs, out):
    "Try what can go wrong, and say what came of it."
    warnings.simplefilter("ignore")
    began, home = time.monotonic(), os.getcwd()
    folder = Path(tempfile.mkdtemp(prefix="trust-"))
    try:
        (folder/"world").mkdir()
        os.environ |= {"HOME": str(folder), "LMD_MIRROR": "", "HF_HUB_OFFLINE": "1"}
        about = make_world(folder/"world")
        os.chdir(home)
        chosen = [(n, t) for n, t in numbered(about, only) if trial is None or n == trial]
        print(f"{len(chosen)} trials", flush=True)
        ended = []
        for number, done, said, why in run_all(chosen, folder/"world", folder, jobs):
            ended.append(dict(kind=done.kind, fault=done.fault, outcome=said))
            if everything or trial is not None or said not in ("right", "refused"): show(number, done, said,
                why)
        table = trust_table(pd.DataFrame(ended), [(t.kind, t.fault) for _, t in chosen])
        print(table.groupby("kind", sort=False)[["trials", *OUTCOMES]].sum().to_string())
        if not only:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(out, index=False)
        print(f"{time.monotonic() - began:.0f} seconds")
        sys.exit(bool(table[list(WRONG)].to_numpy().sum()))
    finally: shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__": main()
