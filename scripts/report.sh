#!/usr/bin/env bash
# all pages of reports/ from the scores in git, as many at a time as there are cores; needs no data
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS=0
cores=$(nproc)
export OMP_NUM_THREADS=1     # of each process; nproc would heed it
pages=$(python -c 'import yaml
from pathlib import Path
pages = yaml.safe_load(open("params.yaml", encoding="utf-8"))["pages"]
print(*sorted(pages, key=lambda p: -Path(f"nbs/paper/{p}.ipynb").stat().st_size))')    # the longest first
lmd study page --processes "$cores" $pages
git diff --quiet -- reports || dvc commit --force page
printf 'make report: %d seconds\n' $SECONDS
