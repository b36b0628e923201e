#!/bin/sh
# Builds a benchmark program on ExecuTorch for another machine with Linux: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# As host/build.sh, on this host. executor_runner is built for another processor where CMAKE_TOOLCHAIN_FILE (builds.env) names
# cmake's description of its compiler; else the machine must share this host's processor and C library. A Python engine is run
# there by the interpreter DEVICE_PYTHON (set in builds.env; default python3), which must have executorch and torch.
set -eu

export AIBENCHD_EXECUTORCH_PYTHON="${DEVICE_PYTHON:-python3}"
exec "$(dirname "$0")/../host/build.sh" "$@"
