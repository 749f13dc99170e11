PYTHON ?= python3
TARGET ?= kind
CRITERION ?=
PLATFORMS ?=
TESTS ?= tests
EXHIBIT = ./exhibit
# Under which licence the detectors' and explainers' libraries are to come: bsl-1.1 (current) or apache-2.0 (of 2023).
LICENCE ?= bsl-1.1
export EXHIBIT_LICENCE ?= $(LICENCE)

.DEFAULT_GOAL := help
.PHONY: help demo test prepare model retrain status down report sync lock lint

help: ## Show this help
	@sed -n 's/^\([a-z%-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

demo: .work/engine/.ready ## Train the model, start the servers, send traffic, answer the criteria, write report.html (PLATFORMS="a b": only these)
	@$(EXHIBIT) demo $(PLATFORMS)

test: .work/engine/.ready ## Run all tests (TESTS=tests/unit for a part of them)
	@$(EXHIBIT) prepare && .work/engine/bin/python -m pytest $(TESTS)

prepare: .work/engine/.ready ## Build everything that needs the network or time: a demo then works offline
	@$(EXHIBIT) prepare

model: .work/engine/.ready ## Train and export the model, if it is not current
	@$(EXHIBIT) model

retrain: .work/engine/.ready ## Train and export the model anew
	@$(EXHIBIT) model --retrain

deploy-%: .work/engine/.ready ## Start one platform (TARGET=local: as a process of this machine)
	@$(EXHIBIT) deploy $* --target $(TARGET)

check-%: .work/engine/.ready ## Answer the criteria for a deployed platform (TARGET=local; CRITERION=group/name for one)
	@$(EXHIBIT) check $* --target $(TARGET) --criterion "$(CRITERION)"

down-%: .work/engine/.ready ## Stop one platform (TARGET=local)
	@$(EXHIBIT) down $* --target $(TARGET)

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

lint: .work/engine/.ready ## Check style and types
	@.work/engine/bin/ruff check . && .work/engine/bin/ruff format --check . && .work/engine/bin/mypy

.work/engine/.ready: requirements.txt bootstrap.py
	@$(PYTHON) bootstrap.py
