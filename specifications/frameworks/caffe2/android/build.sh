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
. "$here/../../building.sh"

build_by_its_own

for file in binaries/caffe2_benchmark.cc scripts/build_android.sh; do
    [ -f "$source/$file" ] || fail "no $file: only Caffe2 itself is built for Android; give other repositories a build.sh"
done
need_ndk
command -v cmake >/dev/null || fail "Caffe2 is built by cmake, and there is none on PATH; install cmake and ninja-build"

export ANDROID_NDK ANDROID_ABI="${ANDROID_ABI:-arm64-v8a}" PYTHON="${PYTHON:-python3}"
export BUILD_CAFFE2_MOBILE=1 BUILD_ROOT="$source/build_android"
bash "$source/scripts/build_android.sh" -DBUILD_BINARY=ON -DBUILD_OBSERVERS=ON -DUSE_OBSERVERS=ON

cp "$source/build_android/bin/caffe2_benchmark" "$destination/"
{ echo '#!/system/bin/sh'; cat "$here/../caffe2_benchmark.sh"; } > "$program"
chmod +x "$program"
