#!/usr/bin/env bash
# The first half hour with a GPU: throughput of both networks, CIFAR10 for $MINUTES minutes, complete test
# sets by `default`. In small on a processor:
# MINUTES=0.01 PROBE=2 SMALL='--set batch=4 --set width=[16,16]' N=4 OUTSIDE=cifar100 paper_scale/day.sh
set -euo pipefail
cd "$(dirname "$0")"
minutes=${MINUTES:-12} probe=${PROBE:-400} small=${SMALL:-} n=${N:-null}
root=${ROOT:-data} day=${DAY:-day} outside=${OUTSIDE:-cifar100 svhn}

said() { # of lmd.json: the steps of $minutes at the speed of the training $1, and this speed
  python - "$1" "$minutes" <<'END'
import json, sys
from pathlib import Path
about = json.loads(Path(sys.argv[1], "lmd.json").read_text(encoding="utf-8"))
speed, batch = about["speed"], about["training"]["batch"]*about["training"].get("accumulate", 1)
print(max(1, round(float(sys.argv[2])*60*speed["images_a_second"]/batch)),
      f"{speed['images_a_second']:.4g} images/s,",
      f"{speed['share_of_peak']:.1%} of the peak of {speed['device']}")
END
}

lmd data fetch cifar10 $outside --root $root
for network in cifar10 cifar10-day; do
  lmd train cifar10 --config $network --set steps=$probe $small --root $root \
    --out $day/probe-$network --run $day/runs/probe-$network
  read -r steps speed <<< "$(said $day/probe-$network)"
  echo "throughput of $network: $speed"
done
lmd train cifar10 --config cifar10-day --set steps=$steps $small --root $root \
  --out $day/cifar10 --run $day/runs/cifar10
lmd score cifar10 $outside --model $day/cifar10 --setting day --set n=$n --root $root \
  --out $day/scores --work $day/work
for set in $outside; do
  lmd eval $day/scores/cifar10.parquet $day/scores/$set.parquet
done
