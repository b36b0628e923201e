#!/bin/sh
# Builds ExecuTorch's executor_runner from its sources: make_executor_runner.sh SOURCE_DIR DESTINATION_PROGRAM [SHELL [OPTION…]]
#
# DESTINATION_PROGRAM is a script for SHELL, the device's, that runs the executor_runner beside it. OPTIONs are cmake's.
#
# From the environment (builds.env):
#   AIBENCHD_PYTHON   an interpreter that has what ExecuTorch's build needs: torch, PyYAML
#   EXECUTORCH_FLAGS  more of cmake's options; default -DEXECUTORCH_BUILD_KERNELS_OPTIMIZED=ON
#   MAX_JOBS          compilers at the same time; default: as many as there are processors
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$1
program=$2
shell=${3:-/bin/sh}
shift 2
[ $# -eq 0 ] || shift
destination=$(dirname "$program")

fail() {
    echo "$*" >&2
    exit 1
}

command -v cmake > /dev/null || fail "ExecuTorch is built by cmake, and there is none on PATH; install cmake"
"$AIBENCHD_PYTHON" -c 'import torch, yaml' ||
    fail "AIBENCHD_PYTHON=$AIBENCHD_PYTHON: lacks what ExecuTorch's build needs; set it in builds.env to one with torch and PyYAML"

# Times are rows of its log, which a release is else built without.
# shellcheck disable=SC2086  the flags are several words
cmake -S "$source" -B "$source/build_aibenchd" -DCMAKE_BUILD_TYPE=Release -DEXECUTORCH_ENABLE_LOGGING=ON \
    -DEXECUTORCH_PAL_DEFAULT=posix -DEXECUTORCH_BUILD_EXECUTOR_RUNNER=ON -DEXECUTORCH_BUILD_EXTENSION_EVALUE_UTIL=ON \
    -DEXECUTORCH_BUILD_EXTENSION_RUNNER_UTIL=ON -DEXECUTORCH_BUILD_EXTENSION_DATA_LOADER=ON \
    -DEXECUTORCH_BUILD_EXTENSION_FLAT_TENSOR=ON -DEXECUTORCH_BUILD_XNNPACK=ON "-DPYTHON_EXECUTABLE=$AIBENCHD_PYTHON" \
    ${EXECUTORCH_FLAGS:--DEXECUTORCH_BUILD_KERNELS_OPTIMIZED=ON} "$@"
cmake --build "$source/build_aibenchd" --parallel "${MAX_JOBS:-$(nproc)}" --target executor_runner
found=$(find "$source/build_aibenchd" -name executor_runner -type f | head -n 1)
[ -n "$found" ] || fail "cmake left no executor_runner in build_aibenchd"

cp "$found" "$destination/executor_runner"
{ echo "#!$shell"; cat "$here/executor_runner.sh"; } > "$program"
chmod +x "$program"
