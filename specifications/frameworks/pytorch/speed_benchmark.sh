# Runs the speed_benchmark_torch beside it, and takes the options of torch_runner.py by which a model is run everywhere:
# those that it has go by its own names, what it cannot do is refused, or left out where that is only less. Its own
# options are passed on. It computes on the CPU unless it is told --vulkan, and does not say by which library. Threads are
# OMP_NUM_THREADS where --threads does not say, else one.

refuse() {
    echo "speed_benchmark_torch: $2" >&2
    exit "$1"
}

here=$(cd "$(dirname "$0")" && pwd)
[ "${1:-}" != "" ] || refuse 2 "expected --model FILE --input-dims DIMS --input-type TYPES"
left=$#
asked= vulkan= threads=${OMP_NUM_THREADS:-1}
while [ "$left" -gt 0 ]; do
    word=$1
    shift
    left=$((left - 1))
    case $word in
    --backend | --output-directory | --threads | --pthreadpool_size) # the same as one word
        [ "$left" -gt 0 ] || refuse 2 "$word: expected a value"
        word=$word=$1
        shift
        left=$((left - 1))
        ;;
    esac
    case $word in
    --backend= | --backend=cpu) asked=${word#*=} ;;
    --backend=*) refuse 3 "asked for ${word#*=}, but it says not by which library it computes; ask for cpu" ;;
    --vulkan | --vulkan=*) vulkan=yes; set -- "$@" "$word" ;;
    --operators | --output-directory=*) ;;
    --module* | --input-file* | --compile) refuse 2 "has no ${word%%=*}; it takes --model and --input-dims" ;;
    --input-dims*) set -- "$@" "--input_dims${word#--input-dims}" ;;
    --input-type*) set -- "$@" "--input_type${word#--input-type}" ;;
    --iterations*) set -- "$@" "--iter${word#--iterations}" ;;
    --threads=* | --pthreadpool_size=*) threads=${word#*=} ;;
    *) set -- "$@" "$word" ;;
    esac
done
[ -z "$asked" ] || [ -z "$vulkan" ] || refuse 3 "asked for cpu, and for Vulkan"
export OMP_NUM_THREADS="$threads" # which OpenMP reads, where it is built with that; else it has a pool of its own
if [ -n "$asked" ]; then echo 'PyTorchObserver {"type": "NET", "metric": "backend", "unit": "", "info_string": "cpu"}'; fi
LD_LIBRARY_PATH=$here${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/speed_benchmark_torch" "$@" \
    --pthreadpool_size="$threads" --report_pep true
