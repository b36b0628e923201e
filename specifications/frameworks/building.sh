# What build scripts share; they read it by ". …/building.sh SOURCE_DIR DESTINATION_PROGRAM", which sets source, program and
# destination, the program's directory.

source=$1
program=$2
destination=$(dirname "$program")
choice=

fail() {
    echo "$*" >&2
    exit 1
}

# Where the repository has an executable build.sh of its own at its root, that builds it, and this does not return.
build_by_its_own() {
    [ -x "$source/build.sh" ] || return 0
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
}

need_ndk() {
    [ -n "${ANDROID_NDK:-}" ] || fail "ANDROID_NDK is not set; set it in builds.env to the directory of Android's NDK"
    toolchain=$ANDROID_NDK/build/cmake/android.toolchain.cmake
    [ -f "$toolchain" ] ||
        fail "ANDROID_NDK=$ANDROID_NDK: has no build/cmake/android.toolchain.cmake; it must be the directory of an unpacked NDK"
}

copy() {
    echo "taking ${1#"$source"/}"
    cp -R -P "$1" "$destination/"
}

# A Python engine: top-level packages (directories with an __init__.py, also those below src/) and modules (*.py). Nothing is
# compiled, so that equal sources give equal builds.
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
    leave_out_compiled
}

leave_out_compiled() {
    find "$destination" -type d -name __pycache__ -prune -exec rm -rf {} +
}

# The program runs the first of the RUNNERS with the others in reach, and what lies beside the program:
# write_program PYTHON RUNNER…; a line of shell in $choice may set $runner to another.
# They go to a directory of their own: an engine may well have a module "common" too.
write_program() {
    # The path of the interpreter as one word of the shell's, whatever is in it.
    python=$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")
    shift
    [ ! -e "$destination/runners" ] ||
        fail "the repository has a package called runners, which is where this program's own runners go; rename it"
    mkdir "$destination/runners"
    for name in common "$@"; do
        cp "$AIBENCHD_RUNNERS/$name.py" "$destination/runners/"
    done
    cat > "$program" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
runner=$1
$choice
PYTHONPATH=\$here exec '$python' -B "\$here/runners/\$runner.py" "\$@"
WRAPPER
    chmod +x "$program"
}
