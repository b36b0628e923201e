#!/bin/sh
# Builds TensorFlow Lite's benchmark_model for Android: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository that has an executable build.sh of its own at its root is built by that. Else it must be TensorFlow's sources.
# DESTINATION_PROGRAM runs benchmark_model, and takes the options of tflite_runner.py.
#
# From the environment (builds.env):
#   ANDROID_NDK   the directory of Android's NDK
#   ANDROID_ABI   of the devices; default arm64-v8a
#   ANDROID_API   the oldest version of Android's interface that it must run on; default 26
#   TFLITE_FLAGS  more of cmake's options; default -DTFLITE_ENABLE_GPU=ON, for the backend opengl
#   MAX_JOBS      compilers at the same time; default: as many as there are processors
#   BAZEL_FLAGS   for sources that are built by bazel, which their own configure must have prepared; default
#                 --config=android_arm64
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

build_by_its_own

[ -d "$source/tensorflow" ] ||
    fail "no tensorflow/: only TensorFlow itself is built for Android; give other repositories a build.sh"
need_ndk

export BAZEL_FLAGS="${BAZEL_FLAGS:---config=android_arm64}" ANDROID_NDK_HOME="$ANDROID_NDK"
# shellcheck disable=SC2086  the flags are several words
exec "$here/../make_benchmark_model.sh" "$source" "$program" /system/bin/sh "-DCMAKE_TOOLCHAIN_FILE=$toolchain" \
    "-DANDROID_ABI=${ANDROID_ABI:-arm64-v8a}" "-DANDROID_PLATFORM=android-${ANDROID_API:-26}" \
    ${TFLITE_FLAGS:--DTFLITE_ENABLE_GPU=ON}
