# All set-up happens by itself: a virtual environment, the packages and, for the tests, what Debian packages they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PREFIX ?= /opt/aibenchd
SYSCONFDIR ?= /etc
UNITDIR ?= /usr/lib/systemd/system
SHAREDIR ?= /usr/share
ZSHDIR ?= zsh/vendor-completions
INSTALLED = $(DESTDIR)$(PREFIX)/bin/python -m
DEBIAN := git git-lfs openssh-server iproute2 gcc make libegl1 libgl1-mesa-dri qemu-user clang lld linux-perf zsh fish \
    influxdb victoria-metrics prometheus chromium chromium-driver

# What the demo's engine runs on. ONNX Runtime is a far smaller download than PyTorch.
ENGINE ?= pytorch
EXTRA_pytorch := torch
EXTRA_onnxruntime := onnxruntime
EXTRA = $(or $(EXTRA_$(ENGINE)),$(error ENGINE=$(ENGINE): expected pytorch or onnxruntime))

.PHONY: setup demo test check bench bench-decide bench-search install clean

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aibenchd needs Python 3.11 or later; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# One for each engine, so that both can be there.
$(VENV)/.run-$(ENGINE): $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),plot]'
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[torch,onnxruntime,tflite,opengl,otlp,plot,dev]'
	touch $@

setup: $(VENV)/.run-$(ENGINE) ## the programs, in .venv/bin

demo: $(VENV)/.run-$(ENGINE) ## from a push to verdicts, on this machine, in a few minutes; with ENGINE=onnxruntime without PyTorch
	$(BIN)/aibenchd demo --engine $(ENGINE)

# As many at once as there are CPUs, then those that must be alone; `pytest` by itself runs all of them in turn. They run real
# daemons, phones' servers and browsers, which a crowded machine may starve: what fails in the crowd is named, and has to pass by itself.
test: $(VENV)/.dev debian ## all tests; some need packages of Debian's
	$(BIN)/pytest -n auto --dist worksteal -m 'not alone' || { [ $$? = 1 ] && \
	    echo 'what failed beside others, again by itself:' && $(BIN)/pytest -v --last-failed --maxfail 1 -m 'not alone'; }
	$(BIN)/pytest -m alone

check: $(VENV)/.dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev ## what it costs, as ratios to yardsticks run at the same time; PARTS='delivery cpu' for some of it
	PYTHONPATH=tests/support $(BIN)/python -m tests.bench $(PARTS)

.PHONY: debian
debian: # install what is missing where we are root, else say what it is; not every release has all
	@missing=; for package in $(DEBIAN); do \
	    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get -qq update || true; there=; absent=; \
	    for package in $$missing; do \
	        if apt-cache show $$package >/dev/null 2>&1; then there="$$there $$package"; else absent="$$absent $$package"; fi; \
	    done; \
	    if [ -n "$$there" ] && ! DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$there >/dev/null; \
	    then absent="$$absent$$there"; fi; \
	    missing=$$absent; \
	fi; \
	if [ -n "$$missing" ]; then echo "not installed:$$missing; the tests that need them are skipped, and say so"; fi

bench-decide: $(VENV)/.dev ## false alarms, power and trials to a verdict: ours, other rules, and the limit; takes minutes
	PYTHONPATH=tests/support $(BIN)/python -m tests.bench.bench_decide
	PYTHONPATH=tests/support $(BIN)/python -m tests.bench.bench_tail

bench-search: $(VENV)/.dev ## how often the right commits are named, at what price, on how many devices, and how soon a creep is seen; takes minutes
	PYTHONPATH=tests/support $(BIN)/python -m tests.bench.bench_bisect
	PYTHONPATH=tests/support $(BIN)/python -m tests.bench.bench_fleet
	PYTHONPATH=tests/support $(BIN)/python -m tests.bench.bench_creep

# As root. The configuration that is there is never written over. DESTDIR shows what would be installed, and where; the
# programs there would name it in their first line.
install: ## into $(PREFIX), with units and users for systemd
	install -d $(DESTDIR)$(PREFIX)/share $(DESTDIR)$(SYSCONFDIR)/aibenchd $(DESTDIR)$(UNITDIR)
	$(PYTHON) -m venv $(DESTDIR)$(PREFIX)
	$(DESTDIR)$(PREFIX)/bin/pip install --quiet --disable-pip-version-check --upgrade .
	rm -rf $(DESTDIR)$(PREFIX)/share/specifications && cp -R specifications $(DESTDIR)$(PREFIX)/share/
	install -m 644 README.md CHANGELOG.md config/aibenchd.yaml config/aibenchd.schema.json $(DESTDIR)$(PREFIX)/share/
	[ -e $(DESTDIR)$(SYSCONFDIR)/aibenchd/aibenchd.yaml ] || sed 's|\.\./specifications|$(PREFIX)/share/specifications|; s|\.\./results|/var/lib/aibenchd/results|' \
	    config/aibenchd.yaml > $(DESTDIR)$(SYSCONFDIR)/aibenchd/aibenchd.yaml
	install -m 644 config/aibenchd.schema.json $(DESTDIR)$(SYSCONFDIR)/aibenchd/
	install -m 644 systemd/*.service systemd/*.socket $(DESTDIR)$(UNITDIR)/
	install -D -m 644 systemd/sysusers.d/aibenchd.conf $(DESTDIR)/usr/lib/sysusers.d/aibenchd.conf
	install -D -m 644 systemd/tmpfiles.d/aibenchd.conf $(DESTDIR)/usr/lib/tmpfiles.d/aibenchd.conf
	install -d $(addprefix $(DESTDIR)$(SHAREDIR)/,bash-completion/completions $(ZSHDIR) fish/vendor_completions.d)
	$(INSTALLED) aibenchd completion bash > $(DESTDIR)$(SHAREDIR)/bash-completion/completions/aibenchd
	$(INSTALLED) aibenchd completion zsh > $(DESTDIR)$(SHAREDIR)/$(ZSHDIR)/_aibenchd
	$(INSTALLED) aibenchd completion fish > $(DESTDIR)$(SHAREDIR)/fish/vendor_completions.d/aibenchd.fish
	$(INSTALLED) aibenchd.api.client completion bash > $(DESTDIR)$(SHAREDIR)/bash-completion/completions/aibenchctl
	$(INSTALLED) aibenchd.api.client completion zsh > $(DESTDIR)$(SHAREDIR)/$(ZSHDIR)/_aibenchctl
	$(INSTALLED) aibenchd.api.client completion fish > $(DESTDIR)$(SHAREDIR)/fish/vendor_completions.d/aibenchctl.fish
	@echo "next: systemd-sysusers; systemd-tmpfiles --create; systemctl daemon-reload; edit $(SYSCONFDIR)/aibenchd/aibenchd.yaml;"
	@echo "      systemctl enable --now aibenchd-launcher.socket aibenchd.service"

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
