#!/usr/bin/env bash
# run all chapters and keep their outputs
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 IN_TEST=1     # as in a test, the last cell of a chapter exports nothing
for notebook in nbs/[0-9]*.ipynb nbs/methods/*.ipynb nbs/study/*.ipynb nbs/index.ipynb; do
  jupyter nbconvert --to notebook --execute --inplace --log-level ERROR "$notebook"
done
nbdev_clean
