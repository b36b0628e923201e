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
source=$1
program=$2
destination=$(dirname "$program")

fail() {
    echo "$*" >&2
    exit 1
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
    for file in common torch_runner executorch_runner; do
        cp "$AIBENCHD_RUNNERS/$file.py" "$destination/runners/"
    done
    # The path of the interpreter as one word of the shell's, whatever is in it.
    python=$(printf '%s\n' "${AIBENCHD_EXECUTORCH_PYTHON:-$AIBENCHD_PYTHON}" | sed "s/'/'\\\\''/g")
    cat > "$program" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
PYTHONPATH=\$here exec '$python' -B "\$here/runners/executorch_runner.py" "\$@"
WRAPPER
    chmod +x "$program"
}

if [ -x "$source/build.sh" ]; then
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
elif [ -d "$source/examples/portable/executor_runner" ]; then
    exec "$here/../make_executor_runner.sh" "$source" "$program"
fi
copy_engine
copy_runners
