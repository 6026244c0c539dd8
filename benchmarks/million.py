"Score a million generated images by `lmd score` with a tiny network, beside a tenth of them: time and peak memory."
import tempfile

import click
import pandas as pd

from lmd.benchmark import score_generated


@click.command(context_settings=dict(show_default=True))
@click.option("-n", "images", default=1_000_000, type=click.IntRange(10), help="Images.")
def main(images):
    "Print images, seconds and peak memory of two runs."
    rows = []
    for n in (images // 10, images):
        with tempfile.TemporaryDirectory() as folder: rows.append(score_generated(folder, n))
    click.echo(pd.DataFrame(rows).to_markdown(index=False, floatfmt=",.1f"))


if __name__ == "__main__":
    main()
