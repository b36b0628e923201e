# Runs the executor_runner beside it, and takes the options of executorch_runner.py by which a model is run everywhere. The
# program fills inputs with ones, of the shapes that the .pte file fixes, and keeps no outputs: a cell that it measures can be
# compared in time, and not in what it computed.
#
# A .pte file names the delegates that it was lowered to, and ExecuTorch runs it on them or fails: what the file of a run that
# succeeded names is what executed.

refuse() {
    echo "executor_runner: $2" >&2
    exit "$1"
}

value() { # of an option, as one word or two
    case $1 in *=*) echo "${1#*=}" ;; *) echo "$2" ;; esac
}

model= warmup=1 iterations=10 threads=${OMP_NUM_THREADS:-1} backend=
while [ $# -gt 0 ]; do
    case $1 in
    --operators) shift && continue ;;
    --module* | --input-file*) refuse 2 "has no ${1%%=*}; it takes --model" ;;
    --model* | --iterations* | --threads* | --backend* | --warmup* | --input-* | --output-directory*) ;;
    *) refuse 2 "does not know $1" ;;
    esac
    given=$(value "$@")
    case $1 in
    --model*) model=$given ;;
    --warmup*) warmup=$given ;;
    --iterations*) iterations=$given ;;
    --threads*) threads=$given ;;
    --backend*) backend=$given ;;
    esac
    case $1 in *=*) ;; *) shift ;; esac
    [ $# -gt 0 ] && shift
done
[ -n "$model" ] || refuse 2 "expected --model FILE"
[ -f "$model" ] || refuse 2 "$model: there is no such file"

found=
for delegate in $(tr -c 'A-Za-z0-9_' '\n' < "$model" | grep 'Backend$' | sort -u); do
    case $delegate in XnnpackBackend) delegate=xnnpack ;; esac
    found=${found:+$found+}$delegate
done
found=${found:-cpu}
case ${backend:-$found} in "$found") ;; *) refuse 3 "asked for $backend, but $model was lowered to $found when it was exported" ;; esac

here=$(cd "$(dirname "$0")" && pwd)
before=$((warmup + 1)) # the first run, and the warm-up
log=$(mktemp) || refuse 1 "there is no room for a log"
trap 'rm -f "$log"' EXIT
"$here/executor_runner" "--model_path=$model" "--num_executions=$((before + iterations))" \
    "--cpu_threads=$threads" > "$log" 2>&1 || { cat "$log" >&2; refuse 1 "failed with $model"; }
while IFS= read -r row; do
    case $row in
    *"] Iteration "*" of "*)
        number=${row##*] Iteration }
        number=${number%% *}
        [ "$number" -eq 1 ] || [ "$number" -gt "$before" ] || continue
        ;;
    esac
    printf '%s\n' "$row"
done < "$log"
echo "PyTorchObserver {\"type\": \"NET\", \"metric\": \"backend\", \"unit\": \"\", \"info_string\": \"$found\"}"
echo "PyTorchObserver {\"type\": \"NET\", \"metric\": \"evidence\", \"unit\": \"\", \"info_string\": \"lowered to $found, and executed\"}"
