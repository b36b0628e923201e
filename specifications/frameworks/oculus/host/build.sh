#!/bin/sh
# Builds a program for oculus: build.sh SOURCE_DIR DESTINATION_PROGRAM
#
# The repository's own build.sh, an executable at its root, is run with the same two arguments. What it leaves beside
# DESTINATION_PROGRAM is pushed too.
set -eu

if ! [ -x "$1/build.sh" ]; then
    echo "no executable build.sh at the root of the repository: a program for oculus is built by the repository's own" >&2
    exit 1
fi
exec "$1/build.sh" "$@"
