# A fresh machine needs Python 3.11 and these two commands: `make train`, `make test`.
# The first interpreter of a list that really runs (a version manager's shim may not).
runs = $(shell for p in $(1); do $$p -c "" 2>/dev/null && echo $$p && break; done)
PYTHON ?= $(call runs,python3.11 python3)
BIN := .venv/bin

.PHONY: train test equivalence lint docs newest beam clean

train: .venv/runtime
	$(BIN)/python -m occjax.train --config configs/pinet.py

test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

# The page of differences from published code: the tests that compare, and no others.
equivalence: .venv/dev
	$(BIN)/python -m pytest --equivalence docs/equivalence.md

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The pages of docs/ as a site; a broken link or a page that the menu lacks is an error.
docs: .venv/dev
	$(BIN)/mkdocs build --quiet --strict

# The newest Python and jax to be had: imports, arithmetic, one training run.
NEWEST ?= $(call runs,python3.14 python3.13 $(HOME)/.pyenv/versions/3.13*/bin/python python3.12)
SMOKE := tests/ops tests/nn/test_pyramid.py tests/nn/test_graph_conv.py \
	tests/runtime/test_optim.py tests/runtime/test_metrics.py tests/data/test_pipeline.py \
	"tests/test_configs.py::test_smoke_variant_trains_and_is_scored[pinet]"
newest:
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager -e . pytest hypothesis scipy
	.venv-newest/bin/python -m pytest $(SMOKE)

# Data preparation with Apache Beam, which takes older packages than requirements.txt.
beam:
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/pip install --quiet --disable-pip-version-check -r requirements-beam.txt
	.venv-beam/bin/python -m pytest tests/data_prep/test_prep_beam.py

.venv/runtime: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/dev: .venv/runtime requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .venv-newest .venv-beam runs site
