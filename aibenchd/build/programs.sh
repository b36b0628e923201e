#!/bin/sh
# The build script of programs that need no building. SOURCE_DIR holds one of these:
#   program      a program that is one file
#   programs/    a program with all that belongs to it: as <framework>_benchmark, or as the file whose name is in "main"
set -e
if [ -d "$1/programs" ]; then
    cp -R -p "$1/programs/." "$(dirname "$2")"
    [ -e "$2" ] || ln -s -- "$(cat "$1/main")" "$2"
else
    cp -p "$1/program" "$2"
fi
