#!/bin/sh
# Builds Caffe2's own caffe2_benchmark for Android: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository that has an executable build.sh of its own at its root is built by that. Else it must be the sources of
# Caffe2, or of a PyTorch that still has it, with submodules. DESTINATION_PROGRAM runs caffe2_benchmark, and takes the
# options of caffe2_runner.py.
#
# From the environment (builds.env):
#   ANDROID_NDK  the directory of Android's NDK
#   ANDROID_ABI  of the devices; default arm64-v8a
#   PYTHON       what Caffe2's build runs; default python3
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$1
program=$2
destination=$(dirname "$program")

fail() {
    echo "$*" >&2
    exit 1
}

if [ -x "$source/build.sh" ]; then
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
fi

for file in binaries/caffe2_benchmark.cc scripts/build_android.sh; do
    [ -f "$source/$file" ] || fail "no $file: only Caffe2 itself is built for Android; give other repositories a build.sh"
done
[ -n "${ANDROID_NDK:-}" ] || fail "ANDROID_NDK is not set; set it in builds.env to the directory of Android's NDK"
[ -f "$ANDROID_NDK/build/cmake/android.toolchain.cmake" ] ||
    fail "ANDROID_NDK=$ANDROID_NDK: has no build/cmake/android.toolchain.cmake; it must be the directory of an unpacked NDK"
command -v cmake >/dev/null || fail "Caffe2 is built by cmake, and there is none on PATH; install cmake and ninja-build"

export ANDROID_NDK ANDROID_ABI="${ANDROID_ABI:-arm64-v8a}" PYTHON="${PYTHON:-python3}"
export BUILD_CAFFE2_MOBILE=1 BUILD_ROOT="$source/build_android"
bash "$source/scripts/build_android.sh" -DBUILD_BINARY=ON -DBUILD_OBSERVERS=ON -DUSE_OBSERVERS=ON

cp "$source/build_android/bin/caffe2_benchmark" "$destination/"
{ echo '#!/system/bin/sh'; cat "$here/../caffe2_benchmark.sh"; } > "$program"
chmod +x "$program"
