PYTHON ?= python3
# Where: local or kind. If empty: a demo on local, all else on kind.
TARGET ?=
CRITERION ?=
PLATFORMS ?=
TESTS ?= tests
OPERATORS ?=
# Which kind cluster; if empty, that of kind-config.yaml.
CLUSTER ?= $(EXHIBIT_CLUSTER)
export EXHIBIT_CLUSTER := $(CLUSTER)
EXHIBIT = ./exhibit
# Under which licence the detectors' and explainers' libraries are to come: bsl-1.1 (current) or apache-2.0 (of 2023).
LICENCE ?= bsl-1.1
export EXHIBIT_LICENCE ?= $(LICENCE)

.DEFAULT_GOAL := help
.PHONY: help demo test test-kind prepare model retrain cluster cluster-down status down report sync lock bundle lint

help: ## Show this help
	@sed -n 's/^\([a-z%-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

demo: .work/engine/.ready ## Train the model, start the servers, send traffic, answer the criteria, write report.html (PLATFORMS="a b": only these; TARGET=kind)
	@$(EXHIBIT) demo $(PLATFORMS) --target "$(TARGET)"

test: .work/engine/.ready ## Run all tests (TESTS=tests/unit for a part of them) but those that need a cluster
	@$(EXHIBIT) prepare && .work/engine/bin/python -m pytest -n 3 $(TESTS)
test-kind: .work/engine/.ready ## Run the tests that need Docker: they make kind clusters of their own, and remove them
	@$(EXHIBIT) model && .work/engine/bin/python -m pytest tests/docker tests/kind

prepare: .work/engine/.ready ## Build everything that needs the network or time: a demo then works offline
	@$(EXHIBIT) prepare --target "$(TARGET)"

model: .work/engine/.ready ## Train and export the model, if it is not current
	@$(EXHIBIT) model
retrain: .work/engine/.ready ## Train and export the model anew
	@$(EXHIBIT) model --retrain

cluster: .work/engine/.ready ## Make the kind cluster, or mend it (CLUSTER=name for another than that of kind-config.yaml)
	@$(EXHIBIT) cluster
cluster-down: .work/engine/.ready ## Remove the kind cluster and all in it
	@$(EXHIBIT) cluster-down

deploy-%: .work/engine/.ready ## Start one platform (TARGET=local: as a process of this machine)
	@$(EXHIBIT) deploy $* --target "$(TARGET)"
check-%: .work/engine/.ready ## Answer the criteria for a deployed platform (TARGET=local; CRITERION=group/name for one)
	@$(EXHIBIT) check $* --target "$(TARGET)" --criterion "$(CRITERION)"
down-%: .work/engine/.ready ## Stop one platform (TARGET=local)
	@$(EXHIBIT) down $* --target "$(TARGET)"
down: .work/engine/.ready ## Stop everything this checkout started
	@$(EXHIBIT) down
status: .work/engine/.ready ## Show what runs
	@$(EXHIBIT) status

report: .work/engine/.ready ## Write report.html from the evidence
	@$(EXHIBIT) report

sync: .work/engine/.ready ## Generate scorecard, README table, CI include and criteria page anew
	@$(EXHIBIT) sync

lock: .work/engine/.ready ## Lock every requirements.in anew (needs the package index)
	@$(EXHIBIT) lock

bundle: .work/engine/.ready ## Pull what clusters need, for machines without a registry (OPERATORS="a b": only these)
	@$(EXHIBIT) bundle $(OPERATORS)

lint: .work/engine/.ready ## Check style and types
	@.work/engine/bin/ruff check . && .work/engine/bin/ruff format --check . && .work/engine/bin/mypy

.work/engine/.ready: requirements.txt bootstrap.py
	@$(PYTHON) bootstrap.py
