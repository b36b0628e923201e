#!/bin/sh
# Builds ExecuTorch's own executor_runner for Android: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository that has an executable build.sh of its own at its root is built by that. Else it must be ExecuTorch's sources,
# with submodules. DESTINATION_PROGRAM runs executor_runner on .pte files, and takes the options of executorch_runner.py.
#
# From the environment (builds.env):
#   ANDROID_NDK  the directory of Android's NDK
#   ANDROID_ABI  of the devices; default arm64-v8a
#   ANDROID_API  the oldest version of Android's interface that it must run on; default 26
#   and those of ../make_executor_runner.sh
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$1
program=$2

fail() {
    echo "$*" >&2
    exit 1
}

if [ -x "$source/build.sh" ]; then
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
fi

[ -d "$source/examples/portable/executor_runner" ] ||
    fail "no examples/portable/executor_runner: only ExecuTorch itself is built for Android; give other repositories a build.sh"
[ -n "${ANDROID_NDK:-}" ] || fail "ANDROID_NDK is not set; set it in builds.env to the directory of Android's NDK"
toolchain=$ANDROID_NDK/build/cmake/android.toolchain.cmake
[ -f "$toolchain" ] ||
    fail "ANDROID_NDK=$ANDROID_NDK: has no build/cmake/android.toolchain.cmake; it must be the directory of an unpacked NDK"

exec "$here/../make_executor_runner.sh" "$source" "$program" /system/bin/sh "-DCMAKE_TOOLCHAIN_FILE=$toolchain" \
    "-DANDROID_ABI=${ANDROID_ABI:-arm64-v8a}" "-DANDROID_PLATFORM=android-${ANDROID_API:-26}"
