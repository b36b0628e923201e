#!/bin/sh
# Builds a benchmark program on Caffe2 for another machine with Linux: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# As host/build.sh, on this host, whose processor and C library the machine must share. A Python engine is run there by
# the interpreter DEVICE_PYTHON (set in builds.env; default python3.7), which must have caffe2.
set -eu

export AIBENCHD_CAFFE2_PYTHON="${DEVICE_PYTHON:-python3.7}"
exec "$(dirname "$0")/../host/build.sh" "$@"
