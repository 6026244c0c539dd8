# Everything goes through .venv, which makes itself at the first call (Python 3.11 or 3.12, pip, make, git).
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
STAMP := .venv/.stamp
.PHONY: help demo test quick data reproduce report verify bench paper-scale docs readme notebooks lab trust \
  release clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

$(STAMP): requirements.lock settings.ini scripts/setup.sh
	scripts/setup.sh

demo: $(STAMP) ## train on digits, score them and three other sets, print the table; all of it in demo/
	@scripts/demo.sh

test: $(STAMP) ## notebooks fit modules, every chapter runs, pytest; says what was skipped for want of data
	@scripts/test.sh

quick: $(STAMP) ## while writing: the chapters that have changed, and the tests that take no time
	@scripts/test.sh quick

data: $(STAMP) ## all versioned sets, from $LMD_MIRROR or their official addresses; names those without one
	lmd data fetch --skip-unavailable $$(sed -n 's|^- path: data/||p' data.dvc)

reproduce: $(STAMP) ## train, score and report whatever is not up to date (after `make data`)
	dvc repro

report: $(STAMP) ## all tables and figures from the scores in git; needs no data
	@scripts/report.sh

verify: $(STAMP) ## 100 images of every score file once more, in float32 (after `make data`)
	lmd verify scores/*/*/*.parquet -n 100

bench: $(STAMP) ## lmd beside its network, the paper's loop, RePaint; panels; many images (after `make data`)
	lmd study bench
	lmd study panel-seconds $(addprefix checkpoints/,mnist kmnist7k-early fashionmnist fashionmnist-early \
	  cifar10 cifar100)
	lmd study million

paper-scale: $(STAMP) ## the paper at its own size, for a GPU; with DRY=1 only what would run, and its cost
	$(if $(DRY),lmd study plan paper_scale,cd paper_scale && dvc repro)

docs: $(STAMP) ## the documentation: chapters, pages, tutorials, as a web site in _site/
	@python scripts/docs.py

readme: $(STAMP) ## README.md from nbs/index.ipynb
	@python scripts/readme.py

notebooks: $(STAMP) ## run all chapters and keep their outputs
	@scripts/notebooks.sh

lab: $(STAMP) ## JupyterLab; what it saves stays clean in git
	@scripts/lab.sh

trust: $(STAMP) ## what can go wrong: kills, a full disk, flipped bytes, bad input; writes its table and page
	@python scripts/trust.py; wrong=$$?; lmd study page trust; exit $$wrong

release: $(STAMP) ## wheel, sdist and SBOM in dist/; the wheel judges digits in an empty environment
	@scripts/release.sh

clean: ## what the targets above make again in minutes; keeps data, runs, checkpoints and scores in progress
	rm -rf demo _site dist dvc_plots .pytest_cache .hypothesis nbs/.hypothesis
	find lmd nbs tests -name __pycache__ -prune -exec rm -rf {} +
