"Memory does not grow with the number of images: ten times as many through the same command."
import numpy as np
import pandas as pd
import pytest

from lmd.study.benchmark import score_generated

FEW, MANY = 5_000, 50_000
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    folders = {n: tmp_path_factory.mktemp(f"images{n}") for n in (FEW, MANY)}
    return {n: score_generated(folder, n) | {"folder": folder} for n, folder in folders.items()}


@pytest.mark.parametrize("n", [FEW, MANY])
def test_every_image_is_scored(costs, n):
    scores = pd.read_parquet(costs[n]["folder"] / "scores.parquet")
    assert np.array_equal(scores["image"], np.arange(n)) and scores["mse"].gt(0).all()
    assert not list(costs[n]["folder"].glob("runs/*/*.parquet"))


def test_memory_is_that_of_few_images(costs):
    """45 000 images more may add 30 MiB: their 3 MiB on disk, which are mapped, indices, and what a second
    run of the same differs by"""
    assert abs(costs[MANY]["MiB"] - costs[FEW]["MiB"]) < 30
