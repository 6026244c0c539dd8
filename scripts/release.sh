#!/usr/bin/env bash
# wheel, sdist and the list of what they bring along (SBOM) in dist/; the wheel is tried in an empty
# environment, with no repository in sight. `release.sh beside`: tried beside the packages of .venv instead,
# which takes no download
set -euo pipefail
cd "$(dirname "$0")/.."
how=${1:-empty}
export OMP_NUM_THREADS=1     # the network is too small for more
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

rm -rf dist
python -m build --no-isolation --outdir dist . >"$place/build.log" 2>&1 ||
  { cat "$place/build.log" >&2; exit 1; }
rm -rf build lmd.egg-info/.release
wheel=$(ls dist/*.whl)

if [ "$how" = beside ]; then
  python -m pip install --quiet --no-deps --target "$place/site" "$wheel"
  export PYTHONPATH="$place/site"
  tried=$(command -v python)
else
  python -m venv "$place/env"
  # the lock's versions, and only what the wheel asks for
  sed -nE 's/^([^ #]+==[^;\\]+[^\\]*)( \\)?$/\1/p' requirements.lock >"$place/versions"
  "$place/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$place/versions" "$wheel"
  tried="$place/env/bin/python"
  bom=dist/$(basename "$wheel" | cut -d- -f1,2).cdx.json
  cyclonedx-py environment --output-reproducible --of JSON -o "$bom" "$tried"
fi

mkdir "$place/elsewhere"
wheel=$(realpath "$wheel")
cd "$place/elsewhere"
"$tried" -c "import lmd; assert '$PWD' not in lmd.__file__ and 'site' in lmd.__file__, lmd.__file__"
"$(dirname "$tried")/lmd" --version
cat >params.yaml <<'END'
train: {small: {size: 16, width: [16, 16], steps: 100, batch: 32, warmup: 10, dtype: 'no'}}
settings: {quick: {steps: 2, attempts: 2, dtype: float32, distances: [ssim, mse]}}
END
"$tried" - >said <<'END' || { cat said; exit 1; }
from lmd.cli import main
for command in ("data fetch digits",
                "train digits --config small --out model --device cpu",
                "score digits:val --model model --setting quick --out val.parquet --device cpu",
                "calibrate val.parquet --out calibration",
                "detect digits --model model --calibration calibration --device cpu --report report.html"):
    main(command.split(), standalone_mode=False)
END
lines=$(sed -n '/^image,score,/,$p' said | wc -l)
[ "$lines" -eq 198 ] && [ -s report.html ] || { echo "detect wrote $lines lines for 197 digits" >&2; exit 1; }
printf 'make release: %s detects on digits, tried %s\n' "$(basename "$wheel")" \
  "$([ "$how" = beside ] && echo 'beside the packages of .venv' || echo 'in an empty environment')"
