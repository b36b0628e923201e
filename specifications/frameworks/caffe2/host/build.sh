#!/bin/sh
# Builds a benchmark program on Caffe2 for this host: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository is built in the first of three ways that fits it:
#   its own build.sh  where there is an executable one at its root: run with the same two arguments
#   Caffe2 itself     where there is caffe2/core: its caffe2_benchmark and the libraries that it needs, by cmake;
#                     DESTINATION_PROGRAM runs it, and takes the options of caffe2_runner.py
#   a Python engine   else: its top-level packages (directories with an __init__.py, also those below src/) and modules
#                     (*.py) are copied beside DESTINATION_PROGRAM, which runs caffe2_runner.py with them in reach, so that
#                     a package caffe2 among them is the one that is run. Nothing is compiled, so that equal sources give
#                     equal builds
#
# From the environment (builds.env):
#   AIBENCHD_RUNNERS        the directory that caffe2_runner.py and common.py are in
#   AIBENCHD_PYTHON         for Caffe2 itself: what it is built with
#   AIBENCHD_CAFFE2_PYTHON  for an engine: an interpreter that has caffe2, such as ../make_caffe2.sh makes
#   USE_CUDA=ON             Caffe2 with CUDA; default OFF
#   MAX_JOBS                compilers at the same time; default: as many as there are processors
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

build_caffe2() {
    [ -f "$source/binaries/caffe2_benchmark.cc" ] ||
        fail "these are Caffe2's sources, but without binaries/caffe2_benchmark.cc; give a build.sh to a branch of your own"
    command -v cmake >/dev/null || fail "Caffe2 is built by cmake, and there is none on PATH; install cmake and ninja-build"
    generator="Unix Makefiles"
    if command -v ninja >/dev/null; then generator=Ninja; fi
    cmake -S "$source" -B "$source/build" -G "$generator" -DCMAKE_BUILD_TYPE=Release -DBUILD_BINARY=ON -DBUILD_CAFFE2=ON \
        -DBUILD_CAFFE2_OPS=ON -DBUILD_OBSERVERS=ON -DUSE_OBSERVERS=ON -DBUILD_PYTHON=OFF -DBUILD_TEST=OFF \
        -DUSE_DISTRIBUTED=OFF -DUSE_CUDA="${USE_CUDA:-OFF}" \
        -DPython_EXECUTABLE="$AIBENCHD_PYTHON" -DPYTHON_EXECUTABLE="$AIBENCHD_PYTHON"
    cmake --build "$source/build" --target caffe2_benchmark --parallel "${MAX_JOBS:-$(nproc)}"
    cp "$source/build/bin/caffe2_benchmark" "$destination/"
    find "$source/build/lib" -name 'lib*.so*' -exec cp -P {} "$destination/" \;
    { echo '#!/bin/sh'; cat "$here/../caffe2_benchmark.sh"; } > "$program"
    chmod +x "$program"
}

build_by_its_own
if [ -d "$source/caffe2/core" ]; then
    build_caffe2
else
    [ -n "${AIBENCHD_CAFFE2_PYTHON:-}" ] || fail "AIBENCHD_CAFFE2_PYTHON is not set; set it in builds.env to an interpreter that" \
        "has caffe2, such as DIRECTORY/bin/python after $(cd "$here/.." && pwd)/make_caffe2.sh DIRECTORY"
    copy_engine
    write_program "$AIBENCHD_CAFFE2_PYTHON" caffe2_runner
fi
