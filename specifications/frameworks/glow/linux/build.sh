#!/bin/sh
# Builds Glow's programs for another machine with Linux: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# As host/build.sh, on this host, whose processor and libraries the machine must share.
set -eu

exec "$(dirname "$0")/../host/build.sh" "$@"
