# Runs the caffe2_benchmark beside it, and takes the options of caffe2_runner.py by which a model is run everywhere: what it
# cannot do is refused. It leaves its seeded inputs as the memory was, says not by which library it computes, and writes
# outputs that are no .npy: outputs are only to be compared with --input_file and --text_output true. Threads are OMP_NUM_THREADS
# where --threads does not say, else one.

refuse() {
    echo "caffe2_benchmark: $2" >&2
    exit "$1"
}

here=$(cd "$(dirname "$0")" && pwd)
left=$#
while [ "$left" -gt 0 ]; do
    word=$1
    shift
    left=$((left - 1))
    case $word in
    --backend | --threads | --input_layout) # the same as one word
        [ "$left" -gt 0 ] || refuse 2 "$word: expected a value"
        word=$word=$1
        shift
        left=$((left - 1))
        ;;
    esac
    case $word in
    --backend= | --backend=cpu | --input_layout=nchw | --input_layout=nhwc) ;;
    --backend=builtin | --backend=default) set -- "$@" "$word" ;;
    --backend=*) refuse 3 "asked for ${word#*=}, but it says not by which library it computes; ask for cpu" ;;
    --threads=*) set -- "$@" "--caffe2_omp_num_threads=${word#*=}" ;;
    *) set -- "$@" "$word" ;;
    esac
done
LD_LIBRARY_PATH=$here${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec "$here/caffe2_benchmark" "$@"
