#!/bin/sh
# Builds a benchmark program on Glow for Android: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# Glow's own programs are not built for Android, for they hold its compiler. A repository must have an executable build.sh of
# its own at its root, which links a network that Glow compiled ahead of time into a program.
set -eu

if ! [ -x "$1/build.sh" ]; then
    echo "no executable build.sh at the root of the repository: Glow's own programs are not built for Android" >&2
    exit 1
fi
exec "$1/build.sh" "$@"
