#!/usr/bin/env bash
# train on handwritten digits, score them and three other sets, make the table and two figures, all in demo/
set -euo pipefail
cd "$(dirname "$0")/.."
sets='digits letters digits-flipped photo-patches'     # in-domain first; made on the spot, no download
pairs='[[digits, letters], [digits, digits-flipped], [digits, photo-patches]]'
SECONDS=0
setting=demo
if ! lmd weights fetch alexnet; then
  setting=demo-no-lpips
  echo 'The weights of LPIPS cannot be had on this machine: the demo reports SSIM and MSE alone.'
fi
rm -rf demo
lmd data fetch $sets --root demo/data
lmd train digits --out demo/checkpoints/digits --run demo/runs/digits --root demo/data --device cpu
with="--model demo/checkpoints/digits --setting $setting --root demo/data --device cpu"
lmd score $sets $with --out demo/scores/digits/$setting
lmd reconstruct $sets $with -n 2 --out demo/images/digits/$setting
page="--reports demo/reports --set setting=$setting"
lmd study page table1 figure7 $page --set "pairs=$pairs" --set scores=../../demo/scores
lmd study page figure5 $page --set "pairs=$pairs" --set images=../../demo/images
printf '\nDigits (in-domain) against other images: ROC-AUC of each distance, and its 95 %% interval\n\n'
python - <<'END'
import pandas as pd
table = pd.read_csv("demo/reports/table1/table1.csv", dtype={"NFE": str})
table = table[[c for c in table if "AUPR" not in c and "FPR95" not in c]]
print(table.fillna("").to_markdown(index=False, floatfmt=".3f"))
END
printf '\nPictures:\n'
ls demo/checkpoints/digits/*.png demo/reports/*/*.png
printf '\nThe demo took %d seconds on %d cores.\n' $SECONDS "$(nproc)"
