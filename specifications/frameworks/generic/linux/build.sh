#!/bin/sh
# Builds a benchmark program for another machine with Linux, as the host's build.sh does: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# It is built on this host. Where the machine has another processor, name a cross compiler in CC and CXX (builds.env), which make
# and the repository's own build.sh see; else it must share this host's processor, and have its C library or a newer one.
set -eu

exec "$(dirname "$0")/../host/build.sh" "$1" "$2"
