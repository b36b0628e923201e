#!/bin/sh
# Builds Glow's programs for this host: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository that has an executable build.sh of its own at its root is built by that. Else it must be Glow's sources, with
# submodules. DESTINATION_PROGRAM is the first of GLOW_PROGRAMS; all of them lie beside it, and commands call them by their
# names: {AddBench}.
#
# From the environment (builds.env):
#   GLOW_PROGRAMS  targets of Glow's build; default "image-classifier AddBench GemmBench SLSBench"
#   GLOW_FLAGS     more of cmake's options, such as -DLLVM_DIR=/opt/llvm/lib/cmake/llvm or -DGLOW_WITH_OPENCL=ON
#   MAX_JOBS       compilers at the same time; default: as many as there are processors
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../building.sh"

build_by_its_own

[ -f "$source/tools/loader/CMakeLists.txt" ] ||
    fail "no tools/loader/CMakeLists.txt: only Glow itself is built here; give other repositories a build.sh"
for tool in cmake ninja; do
    command -v "$tool" > /dev/null || fail "Glow is built by $tool, and there is none on PATH; install cmake and ninja-build"
done

programs=${GLOW_PROGRAMS:-image-classifier AddBench GemmBench SLSBench}
# shellcheck disable=SC2086  the flags and programs are several words
{
    cmake -G Ninja -S "$source" -B "$source/build_aibenchd" -DCMAKE_BUILD_TYPE=Release -DGLOW_WITH_CPU=ON ${GLOW_FLAGS:-}
    cmake --build "$source/build_aibenchd" --parallel "${MAX_JOBS:-$(nproc)}" --target $programs
}

main=
for name in $programs; do
    found=$(find "$source/build_aibenchd" -name "$name" -type f -perm -u+x | head -n 1)
    [ -n "$found" ] || fail "cmake left no $name in build_aibenchd"
    cp "$found" "$destination/$name"
    main=${main:-$destination/$name}
done
[ "$main" = "$program" ] || cp "$main" "$program"
