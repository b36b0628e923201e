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

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

build_onnxruntime() {
    # shellcheck disable=SC2086  the flags are several words
    "$AIBENCHD_PYTHON" "$source/tools/ci_build/build.py" --build_dir "$source/build/aibenchd" --config Release --update --build \
        --parallel "${MAX_JOBS:-$(nproc)}" --skip_submodule_sync --skip_tests --allow_running_as_root --build_shared_lib \
        --build_wheel ${ONNXRUNTIME_FLAGS:-}
    wheel=$(find "$source/build/aibenchd/Release/dist" -name '*.whl' | head -n 1)
    [ -n "$wheel" ] || fail "build.py left no wheel in build/aibenchd/Release/dist"
    "$AIBENCHD_PYTHON" -m zipfile -e "$wheel" "$destination"
}

if [ -f "$source/tools/ci_build/build.py" ]; then # which has a build.sh at its root too
    build_onnxruntime
else
    build_by_its_own
    copy_engine
fi
choice='case " $* " in *" --backend=opengl "* | *" --backend opengl "*) runner=opengl_runner ;; esac'
write_program "${DEVICE_PYTHON:-$AIBENCHD_PYTHON}" onnxruntime_runner onnx_file onnx_model opengl_operators opengl_runner
