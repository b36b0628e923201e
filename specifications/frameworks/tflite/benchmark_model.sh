# Runs the benchmark_model beside it, and takes the options of tflite_runner.py by which a model is run everywhere. Its own
# options are passed on. The program draws numbers of its own for inputs, of the network's own shapes, and keeps no outputs: a
# cell that it measures can be compared in time, and not in what it computed. Threads are OMP_NUM_THREADS where options do not
# say, else one.

refuse() {
    echo "benchmark_model: $2" >&2
    exit "$1"
}

here=$(cd "$(dirname "$0")" && pwd)
left=$# threads=${OMP_NUM_THREADS:-1}
while [ "$left" -gt 0 ]; do
    word=$1
    shift
    left=$((left - 1))
    case $word in
    --model | --backend | --warmup | --iterations | --threads | --input-dims | --input-type | --input-layout | --output-directory)
        [ "$left" -gt 0 ] || refuse 2 "$word: expected a value"
        word=$word=$1 # the same as one word
        shift
        left=$((left - 1))
        ;;
    esac
    case $word in
    --backend=) ;;
    --backend=cpu) set -- "$@" --use_xnnpack=false ;;
    --backend=xnnpack) set -- "$@" --use_xnnpack=true ;;
    --backend=opengl) set -- "$@" --use_gpu=true --gpu_backend=gl ;;
    --backend=dsp) set -- "$@" --use_hexagon=true ;;
    --backend=*) refuse 3 "asked for ${word#*=}; here are cpu, xnnpack, opengl and dsp" ;;
    --input-file*) refuse 2 "has no --input-file; it draws numbers of its own" ;;
    --input-dims=* | --input-type=* | --input-layout=* | --output-directory=*) ;;
    --operators) set -- "$@" --enable_op_profiling=true ;;
    --model=*) set -- "$@" "--graph=${word#*=}" ;;
    --warmup=*) set -- "$@" "--warmup_runs=${word#*=}" ;;
    --iterations=*) set -- "$@" "--num_runs=${word#*=}" ;;
    --threads=* | --num_threads=*) threads=${word#*=} ;;
    *) set -- "$@" "$word" ;;
    esac
done
exec "$here/benchmark_model" "$@" --num_threads="$threads"
