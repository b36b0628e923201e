#!/bin/sh
# Builds a benchmark program of any kind for this host: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# A repository is built in one of two ways:
#   its own build.sh   where there is an executable one at its root: run with the same two arguments. It must write
#                      DESTINATION_PROGRAM; what else it leaves beside that belongs to the build, and goes along to devices.
#   make benchmark     else: must leave the program as the file "benchmark" at the root, which is copied.
set -eu

source=$1
program=$2

if [ -x "$source/build.sh" ]; then
    echo "building by the repository's own build.sh"
    exec "$source/build.sh" "$source" "$program"
fi

if [ -e "$source/build.sh" ]; then
    echo "there is a build.sh, but it is not executable (chmod +x build.sh, and commit that); trying make" >&2
fi

make -C "$source" -j "$(nproc)" benchmark
cp "$source/benchmark" "$program"
