# `make reproduce` and `make test` each set everything up by themselves: Python 3.11+ and make suffice.
PYTHON ?= python3
UV_VERSION = 0.13.9
BIN = .venv/bin
READY = .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup reproduce open-questions test lint lab train model-report bench soak schema lock docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

# The whole pinned set, checked by hash. uv installs it in a fraction of pip's time; sam2 comes as a
# source archive, whose build sees the same pinned torch and leaves the CUDA extension out (with it,
# hole filling would depend on the machine). TORCH=cpu takes PyTorch's builds without CUDA, several GB less, from its
# own index: the same versions, not checked by hash (no test installs it).
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; use make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
ifeq ($(TORCH),cpu)
	sed -E '/^ +--hash/d; s/ \\$$//; /^(nvidia|cuda|triton)/d' requirements.txt > .venv/requirements-cpu.txt
	SAM2_BUILD_CUDA=0 $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --torch-backend cpu --build-constraints .venv/requirements-cpu.txt -r .venv/requirements-cpu.txt
else
	SAM2_BUILD_CUDA=0 $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --build-constraints requirements.txt -r requirements.txt
endif
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

setup: $(READY)  ## create .venv with the pinned packages

reproduce: $(READY)  ## run the demo study; the report is runs/demo/index.html
	$(BIN)/medsam-nb run studies/demo.yaml

open-questions: $(READY)  ## run the open questions; the report is runs/open_questions/index.html
	$(BIN)/medsam-nb run studies/open_questions.yaml

test: $(READY)  ## run all tests
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY)  ## check style, import directions and that notebooks hold no outputs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/nbstripout --verify notebooks/*.ipynb

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

train: $(READY)  ## train the miniature SAM 2 from scratch (resumes where it stopped)
	$(BIN)/python -m training train training/plans/sam2.yaml

model-report: $(READY)  ## measure the miniature models; writes runs/miniature/results.json
	$(BIN)/python -m training report

bench: $(READY)  ## compare the sweep engine with the study's own loop; writes runs/bench/results.json
	$(BIN)/python -m benchmarks.bench_engine

MINUTES ?= 30
soak: $(READY)  ## kill, fill, damage and race a small study for MINUTES; the last line counts the losses
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

schema: $(READY)  ## write the schemas with which editors check a manifest and a file of prompts
	$(BIN)/medsam-nb schema > data_manifest.schema.json
	$(BIN)/medsam-nb schema --prompts > data_prompts.schema.json

lock: $(READY)  ## pin the newest versions that pyproject.toml allows into requirements.txt
	$(BIN)/uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --generate-hashes --no-header -o requirements.txt

# MkDocs in an environment of its own: it reads the docstrings without importing anything, and moves no pinned version.
DOCS = .venv/docs/bin
docs: $(READY)  ## build the documentation as a site: runs/docs/site/index.html (with the demonstration, if it was run)
	@test -x $(DOCS)/mkdocs || { $(PYTHON) -m venv .venv/docs && $(DOCS)/pip install --quiet --disable-pip-version-check "mkdocs-material>=9.6,<10" "mkdocstrings[python]>=0.29,<2"; }
	$(BIN)/python -m docs.site
	NO_MKDOCS_2_WARNING=1 $(DOCS)/mkdocs build --strict --quiet -f runs/docs/mkdocs.yml

clean:  ## remove .venv and results (not downloaded data)
	rm -rf .venv runs
