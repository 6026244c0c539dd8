"Score a million generated images by `lmd score` with a tiny network, beside a tenth of them: time and peak memory."
import tempfile
from pathlib import Path

import click
import pandas as pd

from lmd.study.benchmark import score_generated
from lmd.plots import save_table


@click.command(context_settings=dict(show_default=True))
@click.option("-n", "images", default=1_000_000, type=click.IntRange(10), help="Images.")
@click.option("--out", default="reports/benchmark-million", help="Where the table goes, without suffix.")
def main(images, out):
    "Write OUT.csv and .md: images, seconds and peak memory of two runs."
    rows = []
    for n in (images // 10, images):
        with tempfile.TemporaryDirectory() as folder: rows.append(score_generated(folder, n))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save_table(pd.DataFrame(rows), out)
    click.echo(Path(f"{out}.md").read_text())


if __name__ == "__main__":
    main()
