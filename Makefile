# `make demo` and `make test` do everything on a bare machine with Python 3.11+.
PYTHON ?= python3
BIN = .venv/bin
DEMO = build/demo
NANO = packages/core/deliberate/core/nano

.PHONY: install demo test check audit torture wheels elsewhere matrix bench nano small results

install: .venv/installed

.venv/installed: constraints.txt requirements.txt packages/*/pyproject.toml cli/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -r requirements.txt
	touch $@

# Train for a minute, then use what ships: read a text, think it over, go on from it, measure.
demo: install
	rm -rf $(DEMO) && mkdir -p $(DEMO)
	@echo "--- Training, for less than a minute: from the paper's literal start the loss falls, and"
	@echo "--- the base is still far better without these latents when the run ends."
	$(BIN)/deliberate train recipes/demo.yaml --output-dir $(DEMO)/run
	@echo "--- From here on, the coprocessor that ships (recipes/nano.yaml, 800 steps)."
	$(BIN)/deliberate prefill --file recipes/demo.txt -o $(DEMO)/cache.st
	$(BIN)/deliberate augment $(DEMO)/cache.st -o $(DEMO)/augmented.st
	$(BIN)/deliberate generate $(DEMO)/augmented.st --max-tokens 40
	@echo "--- What it buys on Python modules that neither it nor the base has seen."
	$(BIN)/deliberate eval nano --texts 96

# Tests side by side, each on one thread: tiny models gain nothing from more.
test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check
	$(MAKE) audit

# Known vulnerabilities of the tested versions, where the database can be asked.
audit: install
	$(BIN)/python .ci/audit.py

# Damaged and forged files until the time is over: TORTURE_SECONDS each, from TORTURE_SEED. Then
# lines of TORTURE_LINE megabytes, and commands that are killed at random moments: TORTURE_KILLS each.
TORTURE_SEED ?= 1
TORTURE_KILLS ?= 20
torture: install
	TORTURE_SEED=$(TORTURE_SEED) $(BIN)/pytest -q tests/hostile/torture.py tests/hostile/torture_texts.py
	$(BIN)/python tests/hostile/kills.py --forked --kills $(TORTURE_KILLS) --seed $(TORTURE_SEED)
	$(MAKE) elsewhere

# A wheel and a source archive of each package, in dist/, whole.
wheels: install
	$(BIN)/python .ci/wheels.py

# The wheels in an empty environment of another folder: the README's steps, a server, a report.
# ELSEWHERE names another interpreter or other versions, such as "--python python3.12".
elsewhere: wheels
	$(BIN)/python .ci/elsewhere.py $(ELSEWHERE)

# A small suite against other versions: VERSIONS=oldest, newest or tested; docs/compatibility.md.
VERSIONS ?= oldest
matrix: wheels
	OMP_NUM_THREADS=1 $(BIN)/python .ci/matrix.py $(VERSIONS) $(MATRIX)

bench: install
	for claim in startup cache_io decode one_pass utilisation memory head kinds serve load; do $(BIN)/python benchmarks/$$claim.py || exit 1; done

# The embedded base, its two coprocessors and its soft embedding, from the source on this machine.
nano: install
	$(BIN)/python recipes/nano_base.py --output $(NANO)/base --work build/nano-base
	$(BIN)/deliberate train nano --output-dir build/nano --resume
	$(BIN)/deliberate train nano --set coprocessor.latents=16 --output-dir build/nano-16 --resume
	$(BIN)/deliberate train nano --set coprocessor.kind=soft --set train.soft_learning_rate=1.0e-2 \
		--output-dir build/nano-soft --resume
	mkdir -p $(NANO)/coprocessor $(NANO)/coprocessor-16 $(NANO)/soft
	cp build/nano/config.json build/nano/model.safetensors $(NANO)/coprocessor
	cp build/nano-16/config.json build/nano-16/model.safetensors $(NANO)/coprocessor-16
	cp build/nano-soft/config.json build/nano-soft/model.safetensors $(NANO)/soft

# A base of 10 M parameters on books and arithmetic, and its coprocessor: an hour and a half on two
# cores; DATA is a folder with text/books/*.md, eval/gsm8k_icot and eval/svamp. docs/small.md
DATA ?= data
small: install
	$(BIN)/python recipes/small_texts.py $(DATA) build/small/texts
	$(BIN)/python recipes/nano_base.py --output build/small/base --work build/small/work \
		--hidden 352 --layers 6 --vocabulary 4096 --learning-rate 2e-3 --steps 1100 --batch 4 \
		--source books=build/small/texts/books.jsonl \
		--source arithmetic=build/small/texts/arithmetic.jsonl \
		--mixture books=7,arithmetic=2,problems=1
	$(BIN)/deliberate train recipes/small.yaml --output-dir build/small/run --resume

# docs/results.md: trains and measures what is missing, for hours; ONLY=table1,table6 for some tables.
results: install
	$(BIN)/python recipes/tables/make_results.py $(if $(ONLY),--only $(ONLY))
