#!/bin/sh
# Builds a benchmark program on ONNX files for this host: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository is built in the first of three ways that fits it:
#   ONNX Runtime itself  where there is tools/ci_build/build.py: its wheel, unpacked beside DESTINATION_PROGRAM, which runs
#                        onnxruntime_runner.py with it
#   its own build.sh     where there is an executable one at its root: run with the same two arguments
#   a Python engine      else: its top-level packages (directories with an __init__.py, also those below src/) and modules
#                        (*.py) are copied beside DESTINATION_PROGRAM, which runs onnxruntime_runner.py with them in reach.
#                        Nothing is compiled, so that equal sources give equal builds
#
# Asked for the backend opengl, the program runs opengl_runner.py instead.
#
# From the environment:
#   AIBENCHD_RUNNERS   the directory that the runners are in
#   AIBENCHD_PYTHON    the interpreter that ONNX Runtime is built with
#   DEVICE_PYTHON      the interpreter that runs the program, with numpy, for an engine onnxruntime, for opengl moderngl;
#                      default: that of AIBENCHD_PYTHON
#   ONNXRUNTIME_FLAGS  more of build.py's options, such as --use_xnnpack
#   MAX_JOBS           compilers at the same time; default: as many as there are processors
set -eu

source=$1
program=$2
destination=$(dirname "$program")

fail() {
    echo "$*" >&2
    exit 1
}

build_onnxruntime() {
    # shellcheck disable=SC2086  the flags are several words
    "$AIBENCHD_PYTHON" "$source/tools/ci_build/build.py" --build_dir "$source/build/aibenchd" --config Release --update --build \
        --parallel "${MAX_JOBS:-$(nproc)}" --skip_submodule_sync --skip_tests --allow_running_as_root --build_shared_lib \
        --build_wheel ${ONNXRUNTIME_FLAGS:-}
    wheel=$(find "$source/build/aibenchd/Release/dist" -name '*.whl' | head -n 1)
    [ -n "$wheel" ] || fail "build.py left no wheel in build/aibenchd/Release/dist"
    "$AIBENCHD_PYTHON" -m zipfile -e "$wheel" "$destination"
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

# In a directory of their own: an engine may well have a module "common" too.
copy_runners() {
    mkdir "$destination/runners"
    for file in common onnx_file onnx_model onnxruntime_runner opengl_operators opengl_runner; do
        cp "$AIBENCHD_RUNNERS/$file.py" "$destination/runners/"
    done
    # The path of the interpreter as one word of the shell's, whatever is in it.
    python=$(printf '%s\n' "${DEVICE_PYTHON:-$AIBENCHD_PYTHON}" | sed "s/'/'\\\\''/g")
    cat > "$program" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
runner=onnxruntime_runner
case " \$* " in *" --backend=opengl "* | *" --backend opengl "*) runner=opengl_runner ;; esac
PYTHONPATH=\$here exec '$python' -B "\$here/runners/\$runner.py" "\$@"
WRAPPER
}

if [ -f "$source/tools/ci_build/build.py" ]; then
    build_onnxruntime
elif [ -x "$source/build.sh" ]; then
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
else
    copy_engine
fi
copy_runners
chmod +x "$program"
