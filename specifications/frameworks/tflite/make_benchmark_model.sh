#!/bin/sh
# Builds TensorFlow Lite's benchmark_model from TensorFlow's sources:
# make_benchmark_model.sh SOURCE_DIR DESTINATION_PROGRAM [SHELL [OPTION…]]
#
# DESTINATION_PROGRAM is a script for SHELL, the device's, that runs the benchmark_model beside it. OPTIONs are cmake's. Sources
# from before TensorFlow Lite was built by cmake are built by bazel, with the flags BAZEL_FLAGS.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$1
program=$2
shell=${3:-/bin/sh}
shift 2
[ $# -eq 0 ] || shift
destination=$(dirname "$program")
jobs=${MAX_JOBS:-$(nproc)}

fail() {
    echo "$*" >&2
    exit 1
}

by_cmake() {
    command -v cmake > /dev/null || fail "TensorFlow Lite is built by cmake, and there is none on PATH; install cmake"
    cmake -S "$source/tensorflow/lite" -B "$source/build_aibenchd" -DCMAKE_BUILD_TYPE=Release -DTFLITE_ENABLE_XNNPACK=ON "$@"
    cmake --build "$source/build_aibenchd" --parallel "$jobs" --target benchmark_model
    found=$(find "$source/build_aibenchd" -name benchmark_model -type f | head -n 1)
    [ -n "$found" ] || fail "cmake left no benchmark_model in build_aibenchd"
}

by_bazel() {
    command -v bazel > /dev/null ||
        fail "these sources are built by bazel, and there is none on PATH; install the version that they ask for"
    # shellcheck disable=SC2086  the flags are several words
    (cd "$source" && bazel build -c opt --jobs "$jobs" ${BAZEL_FLAGS:-} "$1:benchmark_model")
    found=$source/bazel-bin/$1/benchmark_model
}

if [ -f "$source/tensorflow/lite/tools/benchmark/CMakeLists.txt" ]; then
    by_cmake "$@"
elif [ -d "$source/tensorflow/lite/tools/benchmark" ]; then
    by_bazel tensorflow/lite/tools/benchmark
elif [ -d "$source/tensorflow/contrib/lite/tools/benchmark" ]; then
    by_bazel tensorflow/contrib/lite/tools/benchmark
else
    fail "no tensorflow/lite/tools/benchmark: these are not TensorFlow's sources"
fi

cp "$found" "$destination/benchmark_model"
{ echo "#!$shell"; cat "$here/benchmark_model.sh"; } > "$program"
chmod +x "$program"
