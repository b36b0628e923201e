"""A shell script that runs one program on a device, kills all that it started, and says how it ended.

It wants a POSIX shell (Android's mksh, dash, busybox), ``env``, ``grep`` and ``sleep``; ``taskset`` only where CPUs are
named, ``read -t`` only where silence is to end a run. Where ``setsid`` is missing programs are found by their environment alone.
"""

from __future__ import annotations

import dataclasses
import math
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from aibenchd import errors
from aibenchd.devices import base

TAG = "AIBENCHD_RUN"  # a variable in the environment of all that a program starts, by which it is found again
GRACE = 10.0  # seconds beyond a program's timeout, after which the device kills it whoever asks
SIGN_OF_LIFE = b".\n"  # to a run's standard input; any other line kills it
LONGEST = 60_000  # bytes of a command line; adb carries no more
TERMINATED = 128  # a shell's status of what a signal ended is this and the signal's number
LAST_SIGNAL = 64

# A function of the shell's. It looks until nothing is found twice: what is being executed has no environment for a moment.
KILL_ALL = r"""
kill_all() {
    [ -z "$group" ] || kill -9 "-$group" 2>/dev/null
    clean=0 rounds=0
    while [ $clean -lt 2 ] && [ $rounds -lt 50 ]; do
        found=$(grep -lsF "AIBENCHD_RUN=$tag" /proc/[0-9]*/environ)
        clean=$((clean + 1)) rounds=$((rounds + 1))
        for one in $found; do
            clean=0
            one=${one#/proc/}
            # Some of what Android's SELinux lets adb's user end, it does not let it kill: Perfetto.
            kill -9 "${one%/environ}" 2>/dev/null || kill "${one%/environ}" 2>/dev/null
        done
    done
}
"""

_SCRIPT = r"""# Arguments: the run's tag, the word its account begins with, seconds after which it is killed whoever asks,
# seconds of silence after which the caller is gone (- where it gives no signs of life), the CPUs as a hexadecimal mask
# (- for all), its directory, a command and its arguments.
# Standard input stays open while it runs. A dot is a sign of life; another line, the end of it, or silence kills the run.
tag=$1 mark=$2 limit=$3 silence=$4 mask=$5 directory=$6
shift 6
exec 3<&0 </dev/null
patience=
if [ "$silence" != - ]; then
    read -t 1 line 2>/dev/null
    [ $? -gt 1 ] || patience="-t $silence" # dash knows no such option
fi
account=${0%/*}/account
: >"$account"
cd "$directory" || exit 125

{KILL_ALL}
group= child= over= heard= gone=
end() {
    over=yes
    [ -z "$child" ] || kill -9 $child 2>/dev/null
}
trap end HUP # as adbd sends where its line is gone
trap 'heard=yes; end' USR1
trap 'heard=yes gone=yes; end' USR2
launch= isolated=
[ "$mask" = - ] || launch="taskset $mask"
if command -v setsid >/dev/null; then launch="$launch setsid" isolated=yes; fi
# These two come first: where this shell is killed, they are what is left. They must hold none of its outputs open.
(
    trap '' HUP
    nap= over=
    trap 'over=yes; [ -z "$nap" ] || kill -9 $nap' TERM
    exec 3<&-
    [ ! -s "$account" ] || exit # told before it could hear: mksh forgets what reaches a subshell that only just begins
    AIBENCHD_RUN=$tag sleep "$limit" &
    nap=$! # which only this one knows until it is executed, and has the environment that it is found by
    [ -z "$over" ] || kill -9 $nap
    wait $nap
    if [ -n "$over" ]; then wait $nap; else kill_all; fi # a signal ended the first
) >/dev/null 2>&1 &
sleeper=$!
(
    trap '' HUP
    while read $patience line <&3; code=$?; [ $code = 0 ] && [ "$line" = . ]; do :; done
    if [ $code = 0 ]; then kill -USR1 $$; else kill -USR2 $$; fi
    kill_all # in any case: that one may have been killed
) >/dev/null 2>&1 &
listener=$!
exec 3<&-
read began rest </proc/uptime
AIBENCHD_RUN=$tag $launch env "$@" &
child=$!
[ -z "$isolated" ] || group=$child
[ -z "$over" ] || kill -9 $child
while :; do # a signal ends a wait too
    wait $child
    code=$?
    kill -0 $child 2>/dev/null || break
done
child=
read ended rest </proc/uptime
times >"$account"
kill $sleeper 2>/dev/null
kill_all
{
    [ -n "$heard" ] || kill -9 $listener # it reads, where not every shell dies of a lesser signal; else it ends what it has begun
    wait $sleeper $listener
} 2>/dev/null
[ -z "$gone" ] || exit # a caller that is heard again must not take this for the program's own end
echo
echo "$mark $code $began $ended"
cat "$account"
"""
SCRIPT = _SCRIPT.replace("{KILL_ALL}", KILL_ALL).encode()

_TIME = re.compile(rb"(\d+)m([\d.]+)s")


@dataclasses.dataclass(frozen=True, slots=True)
class Supervised:
    """A command line for the device's shell, and the word that its account begins with."""

    text: str
    mark: bytes


def supervised(script: PurePosixPath, owner: str, command: base.Command, silence: float = 0) -> Supervised:
    """What a command is run by.

    Args:
        script: where :data:`SCRIPT` lies on the device, in a directory that it may write to.
        owner: a word without spaces that tells whose run it is.
        silence: seconds without :data:`SIGN_OF_LIFE` after which the run is killed; 0 where none is given.

    Raises:
        CommandError: it is too long.
    """
    run, mark = secrets.token_hex(8), secrets.token_hex(8)
    argv = ("sh", "-c", *command.argv) if command.shell else command.argv
    words = (
        "sh",
        str(script),
        f"{owner}:{run}",
        mark,
        str(math.ceil(command.timeout + GRACE)),
        str(math.ceil(silence) or "-"),
        mask(command.cpus),
        str(command.cwd),
        *(f"{name}={value}" for name, value in command.env.items()),
        *argv,
    )
    text = shlex.join(words)
    if len(text.encode(errors="surrogateescape")) > LONGEST:
        raise errors.CommandError(f"the command is {len(text)} characters long; a device is handed {LONGEST} at most")
    return Supervised(text, mark.encode())


def mask(cpus: Sequence[int]) -> str:
    """CPUs as ``taskset`` takes them; a hyphen where none is named."""
    return f"{sum(1 << cpu for cpu in set(cpus)):x}" if cpus else "-"


def sweep(owner: str) -> str:
    """A shell's text that kills what earlier runs of ``owner`` have left."""
    return f"group= tag={shlex.quote(owner)}:\n{KILL_ALL}\nkill_all"


def completed(stdout: bytes, stderr: bytes, mark: bytes, *, killed: bool) -> base.Completed:
    """What the script says of a run.

    A shell cannot tell a status over 128 from a signal: it is told as the signal.

    Args:
        stdout: with the script's account at its end.
        killed: whether it was told to, because the program's time was over.

    Raises:
        HarnessError: there is no account of it.
    """
    printed, _, account = stdout.rpartition(b"\n" + mark + b" ")
    head, _, times = account.partition(b"\n")
    try:
        code, began, ended = (float(word) for word in head.split())
    except ValueError:
        said = (stderr or stdout)[-base.LAST_WORDS :].decode(errors="replace").strip()
        raise errors.HarnessError(f"what supervises programs on the device was killed, or could not begin: {said}") from None
    status = int(code)
    ending, status = (
        (base.Ending.TIMED_OUT, 9)
        if killed
        else (base.Ending.SIGNALLED, status - TERMINATED)
        if TERMINATED < status <= TERMINATED + LAST_SIGNAL
        else (base.Ending.EXITED, status)
    )
    return base.Completed(
        ending,
        status,
        printed.decode(errors="replace"),
        stderr.decode(errors="replace"),
        seconds=ended - began,
        cpu_seconds=_cpu_seconds(times),
    )


def _cpu_seconds(times: bytes) -> float:
    """Of the children, which the second row of the shell's ``times`` is about; NaN where it says nothing."""
    found = [60 * int(minutes) + float(seconds) for minutes, seconds in _TIME.findall(times)]
    return sum(found[2:4]) if len(found) == 4 else math.nan


def environment(env: Mapping[str, str], libraries: Sequence[str]) -> dict[str, str]:
    """``env`` with directories that shared libraries are looked for in after those that it names itself."""
    directories = [*filter(None, [env.get("LD_LIBRARY_PATH", "")]), *libraries]
    return {**env, "LD_LIBRARY_PATH": ":".join(directories)} if directories else dict(env)
