#!/bin/sh
# Makes an environment that can run caffe2_runner.py: make_caffe2.sh DIRECTORY; its interpreter is DIRECTORY/bin/python
#
# Takes Caffe2 out of torch 1.8.1's wheel for Python 3.7, which is 800 MB, and leaves out what needs a GPU: 400 MB remain.
# The directory appears when it is complete. Where it is there already, nothing is done.
#
# From the environment:
#   PYTHON  an interpreter of Python 3.7; default: python3.7 on PATH, or of pyenv's
#
# Exit status: 0 done; 2 something is missing that it needs; 1 it failed.
set -eu

directory=$1

missing() {
    echo "$*" >&2
    exit 2
}

works() {
    [ "$("$1" -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)" = "3 7" ]
}

[ ! -x "$directory/bin/python" ] || exit 0
[ "$(uname -sm)" = "Linux x86_64" ] || missing "torch 1.8.1's wheel with Caffe2 is for Linux on x86-64"
for python in "${PYTHON:-python3.7}" "$HOME"/.pyenv/versions/3.7.*/bin/python3.7; do
    if works "$python"; then break; fi
done
works "$python" || missing "there is no Python 3.7 on PATH or of pyenv's; install it (pyenv install 3.7) or set PYTHON to it"
command -v cc >/dev/null || missing "there is no C compiler; install gcc"

mkdir -p "$(dirname "$directory")"
partial=$(mktemp -d "$directory.XXXXXX")
trap 'rm -rf "$partial"' EXIT
"$python" -m venv "$partial/made"
pip() {
    "$partial/made/bin/python" -m pip --quiet --disable-pip-version-check "$@" || missing "pip $1 failed: $*"
}
pip install --only-binary :all: numpy==1.21.6 protobuf==3.20.3 future==1.0.0 six==1.17.0
pip download --only-binary :all: --no-deps --dest "$partial/wheels" torch==1.8.1

site=$("$partial/made/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" - "$site" "$partial"/wheels/torch-*.whl <<'UNPACK'
import fnmatch, sys, zipfile

LIBRARIES = ("libtorch_cpu.so", "libc10.so", "libgomp-*", "libcudart-*")
LEFT_OUT = ("*_state_gpu*", "*_test.py", "caffe2/python/operator_test/*", "caffe2/python/ideep/*", "caffe2/python/mkl/*")

with zipfile.ZipFile(sys.argv[2]) as wheel:
    for name in wheel.namelist():
        library = name.startswith("torch/lib/") and any(fnmatch.fnmatch(name[10:], one) for one in LIBRARIES)
        python = name.startswith("caffe2/") and not any(fnmatch.fnmatch(name, one) for one in LEFT_OUT)
        if library or python:
            wheel.extract(name, sys.argv[1])
UNPACK
# Caffe2 is linked to these two, and takes nothing from them but where it computes on a GPU.
for library in libtorch.so libtorch_cuda.so; do
    echo | cc -shared -x c - -Wl,-soname,$library -o "$site/torch/lib/$library"
done
if command -v strip >/dev/null; then strip --strip-unneeded "$site/torch/lib/libtorch_cpu.so" "$site"/caffe2/python/*.so; fi
"$partial/made/bin/python" -c 'from caffe2.python import core, workspace' >/dev/null

mv -T "$partial/made" "$directory" || [ -x "$directory/bin/python" ]
