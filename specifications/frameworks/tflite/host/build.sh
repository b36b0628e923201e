#!/bin/sh
# Builds a benchmark program on TensorFlow Lite's files for this host: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository is built in the first of three ways that fits it:
#   its own build.sh  where there is an executable one at its root: run with the same two arguments
#   TensorFlow itself where there is tensorflow/lite or tensorflow/contrib/lite: its benchmark_model; DESTINATION_PROGRAM runs
#                     it, and takes the options of tflite_runner.py
#   anything else     a Python package ai_edge_litert at its root or below src/ is copied beside DESTINATION_PROGRAM, which runs
#                     tflite_runner.py with it; without one, it runs on the LiteRT that the interpreter has, and the builds of
#                     all revisions are equal
#
# From the environment:
#   AIBENCHD_RUNNERS  the directory that tflite_runner.py and common.py are in
#   AIBENCHD_PYTHON   this host's interpreter
#   DEVICE_PYTHON     the interpreter that runs the program, with numpy and ai-edge-litert; default: that of AIBENCHD_PYTHON
#   MAX_JOBS          compilers at the same time; default: as many as there are processors
#   BAZEL_FLAGS       for sources of TensorFlow that are built by bazel
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

build_by_its_own

if [ -d "$source/tensorflow/lite" ] || [ -d "$source/tensorflow/contrib/lite" ]; then
    exec "$here/../make_benchmark_model.sh" "$source" "$program"
fi

for root in "$source" "$source/src"; do
    if [ -f "$root/ai_edge_litert/__init__.py" ]; then
        copy "$root/ai_edge_litert"
        leave_out_compiled
    fi
done
[ -d "$destination/ai_edge_litert" ] || echo "no package ai_edge_litert: the program runs on the LiteRT that its interpreter has"

write_program "${DEVICE_PYTHON:-$AIBENCHD_PYTHON}" tflite_runner
