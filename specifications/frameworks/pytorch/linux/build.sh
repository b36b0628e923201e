#!/bin/sh
# Builds a benchmark program on PyTorch for another machine with Linux: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# As host/build.sh, on this host, whose processor and C library the machine must share. A Python engine is run there by
# the interpreter DEVICE_PYTHON (set in builds.env; default python3), which must have torch and numpy.
set -eu

if ! [ -d "$1/torch/csrc" ]; then AIBENCHD_PYTHON=${DEVICE_PYTHON:-python3}; fi
export AIBENCHD_PYTHON
exec "$(dirname "$0")/../host/build.sh" "$@"
