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
source=$1
program=$2
destination=$(dirname "$program")

fail() {
    echo "$*" >&2
    exit 1
}

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
}

copy() {
    echo "taking ${1#"$source"/}"
    cp -R -P "$1" "$destination/"
}

copy_engine() {
    for root in "$source" "$source/src"; do
        for package in "$root"/*/; do
            package=${package%/}
            case ${package##*/} in test | tests | docs | examples) continue ;; esac
            if [ -f "$package/__init__.py" ]; then copy "$package"; fi
        done
        for module in "$root"/*.py; do
            case ${module##*/} in setup.py | conftest.py | test_*.py) continue ;; esac
            if [ -f "$module" ]; then copy "$module"; fi
        done
    done
    [ -n "$(ls -A "$destination")" ] ||
        fail "no Python package or module at the root of the repository or below src/, and no executable build.sh"
    find "$destination" -type d -name __pycache__ -prune -exec rm -rf {} +
}

# In a directory of its own: an engine may well have a module "common" too.
copy_runner() {
    mkdir "$destination/torch_runner"
    cp "$AIBENCHD_RUNNERS/torch_runner.py" "$AIBENCHD_RUNNERS/common.py" "$destination/torch_runner/"
    # The path of the interpreter as one word of the shell's, whatever is in it.
    python=$(printf '%s\n' "$AIBENCHD_PYTHON" | sed "s/'/'\\\\''/g")
    cat > "$program" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
PYTHONPATH=\$here exec '$python' -B "\$here/torch_runner/torch_runner.py" "\$@"
WRAPPER
}

if [ -x "$source/build.sh" ]; then
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
elif [ -d "$source/torch/csrc" ]; then
    build_pytorch
else
    copy_engine
    copy_runner
fi
chmod +x "$program"
