# Two commands do all the set-up from a bare clone: `make train` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

.PHONY: train test lint types docs clean

train: $(READY)          ## train a VAE on the embedded digits; ARGS="--epochs 5" adds options
	$(BIN)/pyrovae train $(ARGS)

test: $(READY)           ## the whole test suite, doctests included
	$(BIN)/python -m pytest -n 2 $(ARGS)

docs: $(READY)           ## the book in docs/_build/html; cells run once, and again where they changed
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/ty check

clean:
	rm -rf docs/_build .venv .pytest_cache .ruff_cache dist

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev]'
	@touch $@
