#!/usr/bin/env bash
# notebooks and modules agree, every chapter runs, pytest. `test.sh quick`: changed chapters, and the tests
# that take no time
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS=0
export OMP_NUM_THREADS=1

state() { # one line for each notebook and module: what a tool has changed is seen in two of these lists
  git ls-files -coz --exclude-standard -- lmd nbs | xargs -0 cksum 2>&1 || true     # a deleted file has none
}
unchanged() { # what was said before, and what to say if it is no longer so
  diff <(echo "$1") <(state) || { echo "make test: $2; it is now, look at git diff" >&2; exit 1; }
}

before=$(state)
nbdev_export
unchanged "$before" 'lmd/ was not what nbs/ exports'
nbdev_clean
unchanged "$before" 'nbs/ was not clean'

if [ "${1:-}" = quick ]; then
  changed=$(git diff --name-only --diff-filter=d HEAD -- 'nbs/*.ipynb' | grep -v '^nbs/paper/' || true)
  if [ -n "$changed" ]; then python scripts/chapters.py $changed; fi
  python -m pytest -q -m 'not slow' -n 2 tests
else
  python scripts/chapters.py
  python -m pytest -q -rs -n 2 tests
  lmd weights >/dev/null 2>&1 ||
    echo 'skipped: cells and tests of LPIPS (its weights are not here, lmd weights says how to get them)'
  for set in $(sed -n 's|^- path: data/||p' data.dvc); do
    [ -e "data/$set/meta.json" ] ||
      echo "skipped: pictures of $set in nbs/06_sources (not fetched, see make data)"
  done
fi
printf 'make test: passed in %d seconds\n' $SECONDS
