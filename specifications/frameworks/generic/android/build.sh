#!/bin/sh
# Builds a benchmark program for Android, as the host's build.sh does, with the NDK's compilers in CC, CXX and AR:
# build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# What the repository's own build.sh leaves beside the program, such as shared libraries, goes along to the phone, and is found
# there (LD_LIBRARY_PATH). The NDK's C++ library is linked into the program.
#
# From the environment (builds.env):
#   ANDROID_NDK     the directory of Android's NDK; not needed where CC is set, or the repository's build.sh finds its own
#   ANDROID_TARGET  of the phones; default aarch64-linux-android
#   ANDROID_API     the oldest version of Android's interface that it must run on; default 26
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

if [ -n "${ANDROID_NDK:-}" ]; then
    tools=$ANDROID_NDK/toolchains/llvm/prebuilt/linux-x86_64/bin
    compiler=$tools/${ANDROID_TARGET:-aarch64-linux-android}${ANDROID_API:-26}-clang
    [ -x "$compiler" ] || fail "ANDROID_NDK=$ANDROID_NDK: has no $compiler; it must be the directory of an unpacked NDK"
    export CC="${CC:-$compiler}" CXX="${CXX:-$compiler++ -static-libstdc++}" AR="${AR:-$tools/llvm-ar}"
elif [ -z "${CC:-}" ] && [ ! -x "$source/build.sh" ]; then
    fail "ANDROID_NDK is not set; set it in builds.env to the directory of Android's NDK"
fi

exec "$here/../host/build.sh" "$source" "$program"
