#!/usr/bin/env bash
# all pages of reports/ from the scores in git, as many at a time as there are cores; needs no data
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS=0
export OMP_NUM_THREADS=1     # one thread for each of the processes
pages=$(python -c 'import yaml; print(*yaml.safe_load(open("params.yaml", encoding="utf-8"))["grids"]["pages"], sep="\n")')
xargs -n 1 -P "$(nproc)" lmd study page <<< "$pages"
git diff --quiet -- reports || dvc commit --force page
printf 'make report: %d seconds\n' $SECONDS
