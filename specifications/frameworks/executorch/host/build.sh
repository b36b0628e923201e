#!/bin/sh
# Builds a benchmark program on ExecuTorch for this host: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository is built in the first of three ways that fits it:
#   its own build.sh   where there is an executable one at its root: run with the same two arguments
#   ExecuTorch itself  where there is examples/portable/executor_runner: its executor_runner; DESTINATION_PROGRAM runs it on
#                      .pte files, and takes the options of executorch_runner.py
#   a Python engine    else: its top-level packages (directories with an __init__.py, also those below src/) and modules
#                      (*.py) are copied beside DESTINATION_PROGRAM, which runs executorch_runner.py with them in reach.
#                      Nothing is compiled, so that equal sources give equal builds
#
# From the environment:
#   AIBENCHD_RUNNERS            the directory that the runners are in
#   AIBENCHD_EXECUTORCH_PYTHON  for an engine: an interpreter that has executorch and torch; default: AIBENCHD_PYTHON
#   and for ExecuTorch itself those of ../make_executor_runner.sh
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

build_by_its_own

if [ -d "$source/examples/portable/executor_runner" ]; then
    exec "$here/../make_executor_runner.sh" "$source" "$program"
fi

copy_engine
write_program "${AIBENCHD_EXECUTORCH_PYTHON:-$AIBENCHD_PYTHON}" executorch_runner torch_runner
