"Time this package beside the network alone, the paper's loop and diffusers' RePaint, all in one run: see nbs/18_benchmark.ipynb."
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import pandas as pd
import torch

from lmd.study.benchmark import PAPER, benchmark_jobs, compare, interleave, score_generated
from lmd.data import load
from lmd.plots import save_table
from lmd.scoring import about_machine, load_params
from lmd.study.variants import save_metrics


@click.command(context_settings=dict(show_default=True))
@click.option("--model", default="checkpoints/mnist", help="Checkpoint, VP-linear.")
@click.option("--source", default="mnist", help="Registered set whose test images are scored.")
@click.option("-n", "images", default=50, type=click.IntRange(1), help="Images; batches are full if n x attempts is a multiple of the batch.")
@click.option("--batch", default=250, type=click.IntRange(1), help="(image, attempt) pairs per network evaluation.")
@click.option("--rounds", default=9, type=click.IntRange(1), help="How often each contestant is timed.")
@click.option("--part", default=10, type=click.IntRange(5), help="Steps of the paper's loop that are timed, of 1000; of RePaint's schedule four times as many entries.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda.")
@click.option("--root", default="data", help="Folder of the data sets.")
@click.option("--out", default="reports/benchmark", help="Where the table goes, without suffix.")
def main(model, source, images, batch, rounds, part, device, root, out):
    "Write OUT.csv and .md, OUT-machine.csv and .md, and metrics/NAME.json beside them."
    default, out = load_params("settings", "default"), Path(out)
    settings = {"default": default, "default, LPIPS alone": replace(default, distances=("lpips",)), "fast": load_params("settings", "fast")}
    jobs = benchmark_jobs(model, load(source, root=root), settings, images, batch, part, device)
    table = compare(interleave(jobs, rounds), jobs, PAPER)
    with tempfile.TemporaryDirectory() as folder: start = score_generated(folder, 1)["seconds"]      # of one image: the start alone
    out.parent.mkdir(parents=True, exist_ok=True)
    save_table(table, out)
    about = about_machine() | {
        "model": model, "images of": source, "images": images, "batch": f"{batch} pairs of image and attempt; {images} images for the paper's loop and RePaint",
        "rounds": rounds, "distances of lmd": ", ".join(default.distances), "distance of the paper's loop": "lpips",
        "extrapolated": f"the paper's loop from {part} of its 1000 steps, RePaint from {4*part} of the 4570 entries of its schedule, both linearly",
        "seconds to start": f"{start:.1f}"}
    save_table(pd.DataFrame({"what": list(about), "is": [str(v) for v in about.values()]}), f"{out}-machine")
    save_metrics({row["what"]: {k: row[k] for k in ("ms per image", "share of the limit", "times the paper")} for _, row in table.iterrows()}, out.parent / f"metrics/{out.name}.json")
    click.echo(Path(f"{out}.md").read_text())


if __name__ == "__main__":
    main()
