"""Android apps as benchmarks, as FAI-PEP has them: installed, handed their options, started, and read in the phone's log.

An app reads its options in ``benchmark.json`` beside this house's directory (/data/local/tmp/benchmark.json), logs what it
measures as a program would print it, and at its end logs its package, its activity and ``BENCHMARK_DONE``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from aibenchd.devices import base
from aibenchd.devices.adbphone import quoted

OPTIONS = "benchmark.json"
INSTALLED = "app"  # the file that names the package which is to be stopped, if it still runs

# It is installed anew for each trial, whichever arm's the last one was. The second's rest keeps what the log says of that out.
_SCRIPT = """
echo {package} >{installed}
pm uninstall {package} >/dev/null 2>&1
cp {program} {copy} && chmod 644 {copy} && pm install -t {copy} >&2 || exit
rm -f {copy}
printf '%s\\n' {options} >{file} && chmod 644 {file} || exit
sleep 1
since=$(date '+%m-%d %H:%M:%S.000')
said=$(am start -S -W -n {component} 2>&1)
echo "$said" >&2
case $said in *Error*) exit 1 ;; esac
logcat -v threadtime -T "$since" >logcat &
log=$!
ended=0
until grep -qE {done} logcat; do
    if grep -qE {died} logcat; then grep -qE {done} logcat; ended=$?; break; fi  # it may have done both since the look above
    sleep 0.2
done
kill $log
cat logcat
exit $ended
"""


def command(app: base.App, asked: base.Command, directory: PurePosixPath) -> base.Command:
    """What is run in place of a command whose program is an app's package file."""
    program, *words = asked.argv
    package = re.escape(app.package)
    values = {
        "package": app.package,
        "installed": directory / INSTALLED,
        "program": program,
        "copy": directory / "app.apk",  # by its name Android knows what it is
        "options": json.dumps(options(words), sort_keys=True),
        "file": directory.parent / OPTIONS,
        "component": f"{app.package}/{app.activity}",
        "done": f"{package}.*{re.escape(app.activity)}.*BENCHMARK_DONE",
        "died": f"ActivityManager *: (Killing .*|Process ){package}( |/)",
    }
    text = _SCRIPT.format(**{name: quoted(value) for name, value in values.items()})
    return dataclasses.replace(asked, argv=(text,), shell=True)  # noqa: S604  a script of ours


def options(words: Sequence[str]) -> dict[str, str]:
    """``--name value``, ``--name=value`` and ``--name`` alone, which is ``true``; words of no option are left out."""
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, given, value = word.removeprefix("--").partition("=")
            found[name] = value if given else "true"
            name = "" if given else name
        elif name:
            found[name], name = word, ""
    return found
