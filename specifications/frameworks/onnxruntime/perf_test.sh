# Runs the onnxruntime_perf_test beside it, and takes the options of onnxruntime_runner.py by which a model is run everywhere.
# The program draws numbers of its own for inputs, of the shapes that the file fixes, and keeps no outputs: a cell that it
# measures can be compared in time, and not in what it computed. It warms up once. Threads are OMP_NUM_THREADS where --threads
# does not say, else one. Which execution provider took the nodes is read from the profile of one more run.

refuse() {
    echo "onnxruntime_perf_test: $2" >&2
    exit "$1"
}

value() { # of an option, as one word or two
    case $1 in *=*) echo "${1#*=}" ;; *) echo "$2" ;; esac
}

model= iterations=10 threads=${OMP_NUM_THREADS:-1} backend=
while [ $# -gt 0 ]; do
    case $1 in
    --operators) shift && continue ;;
    --module* | --input-file*) refuse 2 "has no ${1%%=*}; it takes --model" ;;
    --model* | --iterations* | --threads* | --backend* | --warmup* | --input-dims* | --input-type* | --output-directory*) ;;
    *) refuse 2 "does not know $1" ;;
    esac
    given=$(value "$@")
    case $1 in
    --model*) model=$given ;;
    --iterations*) iterations=$given ;;
    --threads*) threads=$given ;;
    --backend*) backend=$given ;;
    esac
    case $1 in *=*) ;; *) shift ;; esac
    [ $# -gt 0 ] && shift
done
[ -n "$model" ] || refuse 2 "expected --model FILE"
case ${backend:-cpu} in
cpu) provider=CPUExecutionProvider kind=cpu ;;
xnnpack) provider=XnnpackExecutionProvider kind=xnnpack ;;
dsp) provider=QNNExecutionProvider kind=qnn ;;
*) refuse 3 "asked for $backend; here are cpu, xnnpack and dsp" ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
measure() {
    LD_LIBRARY_PATH=$here${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
        "$here/onnxruntime_perf_test" -I -s -m times -e "$kind" -x "$threads" "$@" "$model"
}

measure -r "$iterations" || refuse 1 "failed with $model"
profile=$(mktemp -d) || refuse 1 "there is no room for a profile"
trap 'rm -rf "$profile"' EXIT
measure -r 1 -p "$profile/run" > /dev/null || refuse 1 "failed with a profile of $model"
count=$(cat "$profile"/run* | tr ',' '\n' | grep -c "\"provider\" *: *\"$provider\"")
[ "$count" -gt 0 ] || refuse 3 "asked for ${backend:-cpu}, and $provider executed no node"
echo "PyTorchObserver {\"type\": \"NET\", \"metric\": \"backend\", \"unit\": \"\", \"info_string\": \"${backend:-cpu}\"}"
echo "PyTorchObserver {\"type\": \"NET\", \"metric\": \"evidence\", \"unit\": \"\", \"info_string\": \"$provider x $count\"}"
