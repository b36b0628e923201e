#!/bin/sh
# Builds a benchmark program for Qualcomm's Hexagon, as the host's build.sh does, with a cross compiler in CC:
# build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# What comes of it runs without an operating system's libraries: on a simulator, or on qemu-hexagon. For a board, set CC in the
# configuration's builds.env to its vendor's compiler.
set -eu

: "${CC:=clang --target=hexagon -fuse-ld=lld -nostdlib -ffreestanding -static}"
export CC

exec "$(dirname "$0")/../host/build.sh" "$1" "$2"
