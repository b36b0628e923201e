#!/bin/sh
# As host/build.sh: the repository's own build.sh knows what it builds for.
set -eu

exec "$(dirname "$0")/../host/build.sh" "$@"
