#!/bin/sh
# Builds PyTorch's own speed_benchmark_torch for Android: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository that has an executable build.sh of its own at its root is built by that. Else it must be PyTorch's sources,
# with submodules. DESTINATION_PROGRAM runs speed_benchmark_torch, and takes the options of torch_runner.py.
#
# From the environment (builds.env):
#   ANDROID_NDK  the directory of Android's NDK
#   ANDROID_ABI  of the devices; default arm64-v8a
#   PYTHON       what PyTorch's build runs, with PyYAML and typing_extensions; default python3
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

build_by_its_own

for file in binaries/speed_benchmark_torch.cc scripts/build_android.sh; do
    [ -f "$source/$file" ] || fail "no $file: only PyTorch itself is built for Android; give other repositories a build.sh"
done
need_ndk
command -v cmake >/dev/null || fail "PyTorch is built by cmake, and there is none on PATH; install cmake and ninja-build"
export PYTHON="${PYTHON:-python3}"
"$PYTHON" -c 'import yaml, typing_extensions' ||
    fail "PYTHON=$PYTHON: lacks what PyTorch's build needs; give it PyYAML and typing_extensions, or set PYTHON in builds.env"

# The whole of TorchScript, so that phones run the same files as all else; not only those made for its small interpreter.
export ANDROID_NDK ANDROID_ABI="${ANDROID_ABI:-arm64-v8a}" BUILD_PYTORCH_MOBILE=1 BUILD_ROOT="$source/build_android"
bash "$source/scripts/build_android.sh" -DBUILD_BINARY=ON -DBUILD_LITE_INTERPRETER=OFF

cp "$source/build_android/bin/speed_benchmark_torch" "$destination/"
{ echo '#!/system/bin/sh'; cat "$here/../speed_benchmark.sh"; } > "$program"
chmod +x "$program"
