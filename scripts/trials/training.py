"""Does training in several processes pay on one machine? python scripts/trials/training.py

Seconds a step in one process with all its threads, and in processes with a thread each (`torchrun`, gloo),
which share every batch.
"""

import argparse, os, subprocess, sys, tempfile, time
from pathlib import Path
from statistics import median


def seconds(processes, threads, steps, name, root):
    "Wall seconds of a training from its start to its release"
    bin = Path(sys.executable).parent
    several = [bin / "torchrun", "--standalone", f"--nproc-per-node={processes}", "--no-python", "--"]
    start = several if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        run = [bin / "lmd", "train", name, "--set", f"steps={steps}", "--root", root, "--device", "cpu",
               "--out", f"{folder}/out", "--run", f"{folder}/run"]
        began = time.perf_counter()
        subprocess.run([*map(str, [*start, *run])], check=True, capture_output=True,
                       env=os.environ | {"OMP_NUM_THREADS": str(threads)})
        return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", dest="name", default="mnist", help="an entry of train in params.yaml")
    parser.add_argument("--root", default="data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs=2, default=(5, 25), help="their difference is timed")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    ratios, (few, many) = [], given.steps
    for k in range(given.rounds):
        step = {}
        for way in [(1, cores), (cores, 1)][:: -1 if k % 2 else 1]:
            part = [seconds(*way, steps, given.name, given.root) for steps in (few, many)]
            step[way] = (part[1] - part[0]) / (many - few)
        ratios.append(step[1, cores] / step[cores, 1])
        print(f"round {k}: {step[1, cores]:.3f} s a step in one process, {step[cores, 1]:.3f} s in {cores}: "
              f"{ratios[-1]:.2f} times as fast", flush=True)
    print(f"median {median(ratios):.2f}")


if __name__ == "__main__": main()
