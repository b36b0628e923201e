#!/bin/sh
# Builds ONNX Runtime's own onnxruntime_perf_test for Android: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# ONNX Runtime's sources are built by their tools/ci_build/build.py. Any other repository must have an executable build.sh of
# its own at its root. DESTINATION_PROGRAM runs onnxruntime_perf_test, and takes the options of onnxruntime_runner.py.
#
# From the environment (builds.env):
#   ANDROID_HOME       the directory of Android's SDK
#   ANDROID_NDK        the directory of Android's NDK
#   ANDROID_ABI        of the devices; default arm64-v8a
#   ANDROID_API        the oldest version of Android's interface that it must run on; default 27
#   ONNXRUNTIME_FLAGS  more of build.py's options, such as --use_nnapi; default --use_xnnpack
#   MAX_JOBS           compilers at the same time; default: as many as there are processors
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

if ! [ -f "$source/tools/ci_build/build.py" ]; then # ONNX Runtime has a build.sh at its root too
    build_by_its_own
    fail "no tools/ci_build/build.py: only ONNX Runtime itself is built for Android; give other repositories a build.sh"
fi

[ -d "${ANDROID_HOME:-}" ] || fail "ANDROID_HOME=${ANDROID_HOME:-}: set it in builds.env to the directory of Android's SDK"
[ -d "${ANDROID_NDK:-}" ] || fail "ANDROID_NDK=${ANDROID_NDK:-}: set it in builds.env to the directory of Android's NDK"

# shellcheck disable=SC2086  the flags are several words
"${AIBENCHD_PYTHON:-python3}" "$source/tools/ci_build/build.py" --build_dir "$source/build/aibenchd" --config Release \
    --update --build --parallel "${MAX_JOBS:-$(nproc)}" --skip_submodule_sync --skip_tests --allow_running_as_root \
    --android --android_sdk_path "$ANDROID_HOME" --android_ndk_path "$ANDROID_NDK" \
    --android_abi "${ANDROID_ABI:-arm64-v8a}" --android_api "${ANDROID_API:-27}" ${ONNXRUNTIME_FLAGS:---use_xnnpack}

cp "$source/build/aibenchd/Release/onnxruntime_perf_test" "$destination/"
{ echo '#!/system/bin/sh'; cat "$here/../perf_test.sh"; } > "$program"
chmod +x "$program"
