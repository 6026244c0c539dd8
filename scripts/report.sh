#!/usr/bin/env bash
# all pages of reports/ from the scores in git, as many at a time as there are cores; needs no data
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS=0
cores=$(nproc)
export OMP_NUM_THREADS=1     # of each process; nproc would heed it
pages=$(python -c 'import yaml
print(*yaml.safe_load(open("params.yaml", encoding="utf-8"))["pages"], sep="\n")')
xargs -P "$cores" -n 4 lmd study page <<< "$pages"     # four a process: who is done takes the next
git diff --quiet -- reports || dvc commit --force page
printf 'make report: %d seconds\n' $SECONDS
