#!/bin/sh
# Builds a benchmark program on PyTorch for this host: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository is built in the first of three ways that fits it:
#   its own build.sh  where there is an executable one at its root: run with the same two arguments
#   PyTorch itself    where there is torch/csrc: its speed_benchmark_torch and the libraries that it needs, by cmake;
#                     DESTINATION_PROGRAM runs it, and takes the options of torch_runner.py
#   a Python engine   else: its top-level packages (directories with an __init__.py, also those below src/) and modules
#                     (*.py) are copied beside DESTINATION_PROGRAM, which runs torch_runner.py with them in reach.
#                     Nothing is compiled, so that equal sources give equal builds
#
# From the environment:
#   AIBENCHD_RUNNERS  the directory that torch_runner.py and common.py are in
#   AIBENCHD_PYTHON   the interpreter to use; for an engine it must have torch, for PyTorch what PyTorch is built with
#   USE_CUDA=ON       PyTorch with CUDA; default OFF
#   MAX_JOBS          compilers at the same time; default: as many as there are processors
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

build_pytorch() {
    [ -f "$source/binaries/speed_benchmark_torch.cc" ] ||
        fail "these are PyTorch's sources, but without binaries/speed_benchmark_torch.cc; give a build.sh to a branch of your own"
    command -v cmake >/dev/null || fail "PyTorch is built by cmake, and there is none on PATH; install cmake and ninja-build"
    generator="Unix Makefiles"
    if command -v ninja >/dev/null; then generator=Ninja; fi
    cmake -S "$source" -B "$source/build" -G "$generator" -DCMAKE_BUILD_TYPE=Release -DBUILD_BINARY=ON -DBUILD_PYTHON=OFF \
        -DBUILD_TEST=OFF -DUSE_DISTRIBUTED=OFF -DUSE_CUDA="${USE_CUDA:-OFF}" \
        -DPython_EXECUTABLE="$AIBENCHD_PYTHON" -DPYTHON_EXECUTABLE="$AIBENCHD_PYTHON"
    cmake --build "$source/build" --target speed_benchmark_torch --parallel "${MAX_JOBS:-$(nproc)}"
    cp "$source/build/bin/speed_benchmark_torch" "$destination/"
    find "$source/build/lib" -name 'lib*.so*' -exec cp -P {} "$destination/" \;
    { echo '#!/bin/sh'; cat "$here/../speed_benchmark.sh"; } > "$program"
    chmod +x "$program"
}

build_by_its_own
if [ -d "$source/torch/csrc" ]; then
    build_pytorch
else
    copy_engine
    write_program "$AIBENCHD_PYTHON" torch_runner
fi
