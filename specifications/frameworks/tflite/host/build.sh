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
source=$1
program=$2
destination=$(dirname "$program")

if [ -x "$source/build.sh" ]; then
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
fi

if [ -d "$source/tensorflow/lite" ] || [ -d "$source/tensorflow/contrib/lite" ]; then
    exec "$here/../make_benchmark_model.sh" "$source" "$program"
fi

for root in "$source" "$source/src"; do
    if [ -f "$root/ai_edge_litert/__init__.py" ]; then
        echo "taking ${root#"$source"}/ai_edge_litert"
        cp -R -P "$root/ai_edge_litert" "$destination/"
        find "$destination" -type d -name __pycache__ -prune -exec rm -rf {} +
    fi
done
[ -d "$destination/ai_edge_litert" ] || echo "no package ai_edge_litert: the program runs on the LiteRT that its interpreter has"

mkdir "$destination/runners"
cp "$AIBENCHD_RUNNERS/common.py" "$AIBENCHD_RUNNERS/tflite_runner.py" "$destination/runners/"

# The path of the interpreter as one word of the shell's, whatever is in it.
python=$(printf '%s\n' "${DEVICE_PYTHON:-$AIBENCHD_PYTHON}" | sed "s/'/'\\\\''/g")
cat > "$program" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
PYTHONPATH=\$here exec '$python' -B "\$here/runners/tflite_runner.py" "\$@"
WRAPPER
chmod +x "$program"
