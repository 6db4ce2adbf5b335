# `make demo` and `make test` need Python 3.11, git and make; everything else goes into .venv in this folder.
#
#   make demo                        denoise a synthetic tomogram in a Scipion project
#   make demo TOMO=/path/to/tomo.mrc the same with your own tomogram (VOXEL=10.5 when its header has no voxel size)
#   make test                        run all tests
#   make lint                        style and types
#   make bench                       say how the figures in benchmarks/RESULTS.md are made again
#   make clean                       remove .venv and what was built; demo/ is kept
#
# Variables: PYTHON=/path/to/python3.11 (which one .venv is made with), PIP_ARGS="options for pip install",
# DEMO_ARGS="options for the demonstration" (see .venv/bin/python docs/demo.py --help),
# PYTEST_ARGS="options for pytest".

TOMO ?=
VOXEL ?=
DEMO_ARGS ?=
PIP_ARGS ?=
PYTEST_ARGS ?=

IS_PYTHON_3_11 := import sys; sys.exit(sys.version_info[:2] != (3, 11))
PYTHON ?= $(shell for name in python3.11 python3 python; do \
	"$$name" -c '$(IS_PYTHON_3_11)' 2>/dev/null && command -v "$$name" && break; done)

# A virtual environment works only where it was made: in a checkout that was moved it is made again.
PLACE := $(shell pwd | cksum | cut -d ' ' -f 1)
VENV := .venv
RUN := $(VENV)/bin/python

# What the person's shell says about Python must not leak into the environment.
export PYTHONNOUSERSITE := 1
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH
unexport PYTHONHOME

# Paths go to the shell as variables, so that blanks in them do no harm.
export TOMO VOXEL

# Scipion imports tkinter even where it shows nothing; a Python without it gets a stand-in that draws nothing.
define WITH_OR_WITHOUT_TKINTER
if ! $(RUN) -c 'import tkinter' 2>/dev/null; then \
	echo "This Python has no tkinter; going on without it (Scipion's windows need it: python3-tk on Debian and Ubuntu)."; \
	export PYTHONPATH="$(CURDIR)/tests/without_tkinter"; fi
endef

.PHONY: demo tomogram-is-there folder-is-fit test lint bench clean
.SILENT:
.DELETE_ON_ERROR:

demo: tomogram-is-there folder-is-fit $(VENV)/demo.$(PLACE)
	$(WITH_OR_WITHOUT_TKINTER); \
	$(RUN) docs/demo.py $${TOMO:+--tomogram "$$TOMO"} $${VOXEL:+--voxel-size "$$VOXEL"} $(DEMO_ARGS)

tomogram-is-there:
	case "$$TOMO" in ''|'~'*) ;; *) \
		if [ ! -f "$$TOMO" ]; then echo "ERROR: there is no file $$TOMO." >&2; exit 2; fi ;; esac

test: folder-is-fit $(VENV)/test.$(PLACE)
	echo "Running all tests; this takes some minutes."
	$(WITH_OR_WITHOUT_TKINTER); \
	$(RUN) -m pytest $(PYTEST_ARGS)

lint: $(VENV)/test.$(PLACE)
	echo "Checking style, format and types."
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench:
	echo "Each script in benchmarks/ makes one table of benchmarks/RESULTS.md; the command stands above each table."
	echo "Install what they compare with by: .venv/bin/python -m pip install -c constraints.txt -e '.[bench]'"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	echo "Removed .venv and what was built.  demo/, with its Scipion project, was kept; delete it yourself if you wish."

folder-is-fit:
	case "$(CURDIR)" in *' '*) \
		echo "ERROR: Scipion does not run from a folder with blanks in its path ($(CURDIR)): move this one." >&2; exit 2 ;; esac

# The environment itself.
$(VENV)/made.$(PLACE):
	if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 was not found: install it, or name it with PYTHON=/path/to/python3.11." >&2; exit 1; fi
	if ! "$(PYTHON)" -c '$(IS_PYTHON_3_11)' 2>/dev/null; then \
		echo "$(PYTHON) is not Python 3.11, which Scipion's and the core's requirements together need: name one with PYTHON=/path/to/python3.11." >&2; exit 1; fi
	if ! "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian and Ubuntu: apt-get install python3.11-venv)." >&2; exit 1; fi
	echo "Creating a Python environment in $(CURDIR)/$(VENV)."
	rm -rf $(VENV)
	"$(PYTHON)" -m venv $(VENV)
	touch $@

# What is installed into it: .venv/demo.* with the extra [demo], .venv/test.* with the extra [test].
$(VENV)/%.$(PLACE): $(VENV)/made.$(PLACE) setup.py constraints.txt
	echo "Installing CryoDen with what '$*' needs into it: about a minute with a fast network (log: $(VENV)/pip.log)."
	if [ ! -e /proc/driver/nvidia ] && [ -z "$(PIP_ARGS)" ]; then \
		echo "No NVIDIA driver was found. To download the smaller torch without CUDA, stop this (Ctrl-C) and add: PIP_ARGS='--extra-index-url ADDRESS', with the address that pytorch.org gives for the CPU."; fi
	$(RUN) -m pip install --quiet --log $(VENV)/pip.log -c constraints.txt $(PIP_ARGS) -e '.[$*]'
	touch $@
