#!/bin/sh
# Builds a benchmark program on ONNX files for another machine with Linux: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# As host/build.sh, on this host, whose processor and C library the machine must share. The program is run there by the
# interpreter DEVICE_PYTHON (set in builds.env; default python3).
set -eu

export DEVICE_PYTHON="${DEVICE_PYTHON:-python3}"
exec "$(dirname "$0")/../host/build.sh" "$@"
