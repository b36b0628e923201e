#!/bin/sh
# Builds a Python engine on PyTorch for this host: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository that has an executable build.sh of its own at its root is built by that, with the same two arguments.
# Else its top-level packages (directories with an __init__.py, also those below src/) and modules (*.py) are copied
# beside DESTINATION_PROGRAM, which runs torch_runner.py with them in reach. Nothing is compiled, so that equal sources
# give equal builds.
#
# From the environment:
#   AIBENCHD_RUNNERS  the directory that torch_runner.py is in
#   AIBENCHD_PYTHON   the interpreter to use; it must have torch
set -eu

source=$1
program=$2
destination=$(dirname "$program")

if [ -x "$source/build.sh" ]; then
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
fi

copy() {
    echo "taking ${1#"$source"/}"
    cp -R -P "$1" "$destination/"
}

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

if [ -z "$(ls -A "$destination")" ]; then
    echo "no Python package or module at the root of the repository or below src/, and no executable build.sh" >&2
    exit 1
fi

find "$destination" -type d -name __pycache__ -prune -exec rm -rf {} +
cp "$AIBENCHD_RUNNERS/torch_runner.py" "$destination/"

# The path of the interpreter as one word of the shell's, whatever is in it.
python=$(printf '%s\n' "$AIBENCHD_PYTHON" | sed "s/'/'\\\\''/g")
cat > "$program" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
PYTHONPATH=\$here exec '$python' -B "\$here/torch_runner.py" "\$@"
WRAPPER
chmod +x "$program"
