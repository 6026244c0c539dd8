# Everything goes through .venv, which makes itself from requirements.lock at the first call (Python 3.11 or 3.12, pip, make, git).
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.PHONY: demo test data reproduce report verify bench readme notebooks lab clean

STAMP := .venv/.stamp
SETS := $(shell sed -n 's|^- path: data/||p' data.dvc)  # the versioned data sets
PAPER := table1 table2 table3 table4 figure1 figure2 figure3 figure4 figure5 figure6 figure7 fidelity adaptive choice detector localisation frontier relatives klip repairing outlier_aware benchmark # the stages that render the scores in git
# without the remarks of the kernels on how they talk to papermill
QUIET := 2> >(grep -v IPKernelApp >&2)
DEMO := digits letters digits-flipped photo-patches     # in-domain first; made on the spot, no download
# one line for each tracked notebook and module: what a tool has changed is seen by comparing two of these lists
STATE = git ls-files -co --exclude-standard -- lmd nbs | sort -u | while read -r f; do echo "$$(git hash-object "$$f") $$f"; done

$(STAMP): requirements.lock settings.ini
	@for p in python3.11 python3.12 python3; do \
	  $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && break; \
	  [ $$p != python3 ] || { echo 'make: Python 3.11 or 3.12 is needed, and neither is on the PATH' >&2; exit 1; }; \
	done; set -ex; \
	$$p -m venv .venv || { $$p -m venv --without-pip .venv && $$p -m pip --python .venv/bin/python install pip; }; \
	.venv/bin/python -m pip install --disable-pip-version-check -r requirements.lock; \
	.venv/bin/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

## demo: train on handwritten digits, score them and three other sets, print the table; all of it in demo/
demo: $(STAMP)
	@set -e; SECONDS=0; rm -rf demo; mkdir -p demo/reports; \
	if lmd weights >/dev/null 2>&1; then setting=demo; else setting=demo-no-lpips; \
	  echo 'The weights of LPIPS are not on this machine (lmd weights says how to get them): the demo reports SSIM and MSE alone.'; fi; \
	lmd data fetch $(DEMO) --root demo/data; \
	lmd train digits --out demo/checkpoints/digits --run demo/runs/digits --root demo/data --device cpu; \
	for set in $(DEMO); do \
	  with="$$set --model demo/checkpoints/digits --setting $$setting --root demo/data --device cpu"; \
	  lmd score $$with --out demo/scores/digits/$$set/$$setting.parquet; \
	  lmd reconstruct $$with --out demo/scores/digits/$$set/$$setting.npz -n 2; \
	done; \
	for name in table1 figure5 figure7; do \
	  papermill --cwd nbs/paper --no-progress-bar --log-level WARNING nbs/paper/$$name.ipynb demo/$$name.ipynb \
	    -p scores ../../demo/scores -p reports ../../demo/reports -p setting $$setting \
	    -y 'pairs: [[digits, letters], [digits, digits-flipped], [digits, photo-patches]]' $(QUIET); \
	done; \
	printf '\nDigits (in-domain) against other images: ROC-AUC of each distance, and its 95 %% interval\n\n'; cat demo/reports/table1.md; \
	printf '\nPictures:\n'; ls demo/checkpoints/digits/*.png demo/reports/*.png; \
	printf '\nThe demo took %d seconds on %d cores.\n' $$SECONDS $$(python -c 'import os; print(os.cpu_count())')

## test: notebooks and modules agree, every chapter runs, pytest; says what was skipped for want of data or weights
test: $(STAMP)
	@set -e; SECONDS=0; before=$$($(STATE)); nbdev_export; \
	if ! diff <(echo "$$before") <($(STATE)); then echo 'make test: lmd/ was not what nbs/ exports; it is now, look at git diff' >&2; exit 1; fi; \
	nbdev_clean; \
	if ! diff <(echo "$$before") <($(STATE)); then echo 'make test: nbs/ was not clean; it is now, look at git diff' >&2; exit 1; fi; \
	OMP_NUM_THREADS=1 nbdev_test --n_workers 2 --timing; \
	python -m pytest -q -rs -n 2 --dist loadgroup tests; \
	lmd weights >/dev/null 2>&1 || echo 'skipped: cells and tests of LPIPS (its weights are not here, lmd weights says how to get them)'; \
	for set in $(SETS); do [ -e data/$$set/meta.json ] || echo "skipped: pictures of $$set in nbs/00_data (not fetched, see make data)"; done; \
	printf 'make test: passed in %d seconds\n' $$SECONDS

## data: all versioned sets, from $$LMD_MIRROR if that is set, else from their official addresses
data: $(STAMP)
	lmd data fetch $(SETS)

## reproduce: train, score and report whatever is not up to date (after `make data`)
reproduce: $(STAMP)
	dvc repro

## report: all tables and figures from the scores in git, as many at a time as there are cores; needs no data
report: $(STAMP)
	@set -e; SECONDS=0; \
	dvc repro --dry --force --single-item $(PAPER) | sed -n 's/^> //p' \
	  | xargs -d '\n' -n 1 -P $$(python -c 'import os; print(os.cpu_count())') bash -c $(QUIET); \
	git diff --quiet -- reports || dvc commit --force $(PAPER); \
	dvc repro --force --single-item report $(QUIET); \
	printf 'make report: %d seconds\n' $$SECONDS

## verify: 100 images of every score file once more, in float32 (after `make data`)
verify: $(STAMP)
	lmd verify scores/*/*/*.parquet -n 100

## bench: this package beside its network alone, the paper's loop and diffusers' RePaint, timed in turn; and a million images (after `make data`)
bench: $(STAMP)
	python benchmarks/bench.py
	python benchmarks/million.py

## readme: README.md from nbs/index.ipynb
readme: $(STAMP)
	jupyter nbconvert --to markdown --stdout --log-level ERROR nbs/index.ipynb | sed -E 's#\]\(([a-z0-9_/]+\.ipynb)\)#](nbs/\1)#g; s#\.\./##g' > README.md

## notebooks: run all chapters and keep their outputs
notebooks: $(STAMP)
	for f in nbs/[0-9]*.ipynb nbs/index.ipynb; do jupyter nbconvert --to notebook --execute --inplace $$f || exit 1; done
	nbdev_clean

## lab: JupyterLab, with nbdev's hooks that keep notebooks clean in git
lab: $(STAMP)
	nbdev_install_hooks
	jupyter lab nbs

## clean: what the targets above make again in minutes; keeps data, runs, checkpoints and scores in progress
clean:
	rm -rf demo reports/notebooks reports/chapters dvc_plots _docs _proc .pytest_cache .hypothesis nbs/.hypothesis
	find lmd nbs tests -name __pycache__ -prune -exec rm -rf {} +
