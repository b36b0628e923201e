"""What a specification asks around the program, and what becomes of outputs: the real daemon, an engine of a few lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import lab
import launchers
import numpy as np
import pytest

BENCH = """#!/bin/sh
# bench INPUT OUTPUT: does its work, and says how long that took
{work}
awk -v seed="$(od -An -N3 -tu4 /dev/urandom)" 'BEGIN {{ srand(seed)
    say = "PyTorchObserver {{\\"type\\": \\"NET\\", \\"metric\\": \\"latency\\", \\"unit\\": \\"us\\", \\"value\\": "
    for (i = 0; i < 8; i++) print say 100 + rand() "}}" }}'
"""
COUNT = 'wc -l < "$1" > "$2"'
FIRST = "no control: nothing older on the branch has been measured"  # of what is measured alone, and well
WRITE = 'printf "%s\\n" {values} > "$2"'

ACCURACY: dict[str, Any] = {
    "model": {
        "name": "net",
        "format": "generic",
        "repeat": 3,
        "total": 12,
        "each": "{total}/{repeat}",
        "preprocess": {"commands": ["mkdir -p {HOSTDIR}/inputs", "seq {total} > {HOSTDIR}/all.txt"]},
        "postprocess": {
            "commands": [
                "test ! -e {HOSTDIR}/left_over && touch {HOSTDIR}/left_over",
                'cat {HOSTDIR}/found_*.txt | awk \'{ sum += $1 } END { printf "PyTorchObserver {\\"type\\": \\"NET\\", '
                '\\"metric\\": \\"accuracy\\", \\"unit\\": \\"\\", \\"value\\": %s}\\n", sum / {total} }\'',
            ]
        },
    },
    "tests": [
        {
            "identifier": "{ID}",
            "metric": "accuracy",
            "iter": 1,
            "preprocess": {
                "commands": [
                    "awk '(NR>{INDEX}*{each})&&(NR<={INDEX}*{each}+{each}) {print > \"{HOSTDIR}/inputs/{INDEX}.txt\"}'"
                    " {HOSTDIR}/all.txt",
                    "cp {HOSTDIR}/inputs/{INDEX}.txt {input_files.lines}",
                ]
            },
            "input_files": {"lines": {"filename": "lines.txt", "location": "{HOSTDIR}/lines.txt"}},
            "commands": ["{program} {input_files.lines} {TGTDIR}/count.txt"],
            "output_files": {"count": {"filename": "count.txt", "location": "{TGTDIR}/count.txt"}},
            "postprocess": {"commands": ["cp {output_files.count} {HOSTDIR}/found_{INDEX}.txt"]},
        }
    ],
}


def outputs(**file: Any) -> dict[str, Any]:
    """A model file whose program writes one output."""
    test = {
        "identifier": "net",
        "metric": "delay",
        "iter": 1,
        "commands": ["{program} - {output_files.out}"],
        "output_files": {"out": {"filename": "out.txt", "type": "float", "shape": [3], **file}},
    }
    return {"model": {"name": "net", "format": "generic"}, "tests": [test]}


def make(directory: Path, specification: dict[str, Any], *works: str) -> lab.Lab:
    """A lab on an engine that did each of these works in turn, watched from the first on."""
    made = lab.make(directory)
    made.write_specification("net.json", specification)
    for number, work in enumerate(works):
        made.commit(f"work {number}", bench=BENCH.format(work=work))
    (chosen,) = made.configuration["repositories"]
    rule = {"rule": "pinned", "commit": made.commits[0]}
    made.configure(
        repositories=[chosen | {"start_at": made.commits[0], "baseline": rule}],
        experiment=made.configuration["experiment"] | {"alpha": 0.01, "beta": 0.05, "min_effect": 0.2, "max_blocks": 12},
    )
    return made


VERDICTS = "SELECT e.verdict FROM experiments e JOIN pairs p ON p.id = e.pair ORDER BY e.id"
REASONS = "SELECT coalesce(e.reason, '') FROM experiments e ORDER BY e.id"


async def ended(made: lab.Lab, *verdicts: str | None) -> list[str]:
    """The reasons of all experiments, once they have ended so."""
    await made.until(f"SELECT count(*) = {len(verdicts)} FROM experiments WHERE state IN ('decided', 'skipped')")
    assert made.rows(VERDICTS) == [(verdict,) for verdict in verdicts], made.rows(REASONS)
    return [reason for (reason,) in made.rows(REASONS)]


async def test_an_accuracy_flow_runs_around_the_program_and_decides(tmp_path: Path) -> None:
    made = make(tmp_path, ACCURACY, COUNT, "head -n 2 < $1 | wc -l > $2")
    async with made.daemon():
        await ended(made, "measured", "regressed")
        found = made.rows(
            'SELECT DISTINCT e.id, t.arm, s."values" FROM samples s JOIN trials t ON t.id = s.trial'
            " JOIN experiments e ON e.id = t.experiment WHERE s.metric = 'accuracy' ORDER BY e.id, t.arm"
        )
        assert found == [(1, "treatment", "[1.0]"), (2, "control", "[1.0]"), (2, "treatment", "[0.5]")]
        ((estimate,),) = made.rows("SELECT estimate FROM experiments WHERE id = 2")
        assert estimate == pytest.approx(1.0)  # half the accuracy is twice as bad


async def test_a_preprocess_that_fails_says_which_command(tmp_path: Path) -> None:
    test = {**ACCURACY["tests"][0], "preprocess": {"commands": ["ls {HOSTDIR}/nothing-here"]}}
    made = make(tmp_path, {**ACCURACY, "tests": [test]}, COUNT)
    async with made.daemon():
        (reason,) = await ended(made, "broken")
        assert "preprocess: ls " in reason
        assert "nothing-here" in reason


async def test_an_input_that_nobody_made_is_named(tmp_path: Path) -> None:
    test = {**ACCURACY["tests"][0], "preprocess": {"commands": ["true"]}}
    made = make(tmp_path, {**ACCURACY, "tests": [test]}, COUNT)
    async with made.daemon():
        (reason,) = await ended(made, "broken")
        assert "input_files.lines" in reason
        assert "a preprocess command is to make it" in reason


async def test_a_commit_that_changes_the_numbers_is_flagged_and_what_is_wrong_with_them_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "golden.npy", np.array([0.5, 0.25, 0.25], np.float32))
    golden = {"filename": "golden.npy", "location": "golden.npy"}
    made = make(
        tmp_path,
        outputs(golden=golden, tolerance={"max_relative": 1e-4}),
        WRITE.format(values="0.5 0.25 0.25"),
        WRITE.format(values="0.5 0.25 0.250001"),
        WRITE.format(values="0.5 0.26 0.25"),
        WRITE.format(values="0.5 nan 0.25"),
        WRITE.format(values="0.5 0.25"),
        'echo computed > "$2"',
        "true",
    )
    async with made.daemon():
        reasons = await ended(made, "measured", "unchanged", "regressed", "regressed", "broken", "broken", "broken")
        assert reasons[2].startswith("wrong output: out: max_relative 0.04 (at most 0.0001)")
        assert "wrong output: out: holds nan at [1], 1 such in all" in reasons[3]
        assert "output out: cannot be read as text: holds 2 numbers, expected the shape [3]" in reasons[4]
        assert "output out: cannot be read as text: 'computed' is no number" in reasons[5]
        assert "output out: " in reasons[6]
        measured = made.rows("SELECT type || ' ' || metric FROM results WHERE experiment = 3 AND type LIKE 'ERROR%' ORDER BY 1")
        assert [name for (name,) in measured] == [
            f"ERROR out {one}" for one in ("cosine", "max_absolute", "max_relative", "rmse", "top1_flips", "ulp")
        ]


async def test_a_golden_output_of_another_shape_is_wrong_and_one_that_is_missing_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "golden.npy", np.zeros((3, 1), np.float32))
    golden = {"filename": "golden.npy", "location": "golden.npy"}
    made = make(tmp_path, outputs(golden=golden), WRITE.format(values="0 0 0"))
    async with made.daemon():
        (reason,) = await ended(made, "measured")
        assert reason == "wrong output: out: shape [3], expected [3, 1]"


async def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    golden = {"filename": "golden.npy", "location": "golden.npy"}
    made = make(tmp_path, outputs(golden=golden), WRITE.format(values="0 0 0"))
    async with made.daemon():
        await made.ready()
        with anyio.fail_after(lab.WAIT):
            while not (faults := (await made.ctl("status"))["faults"]):
                await anyio.sleep(0.1)
        assert "golden.out" in faults[0]["reason"]
        assert "golden.npy is not there" in faults[0]["reason"]
        np.save(tmp_path / "golden.npy", np.zeros(3, np.float32))
        assert await ended(made, "measured") == [FIRST]


async def test_a_model_that_is_replaced_in_place_is_not_two_models_in_one_experiment(tmp_path: Path) -> None:
    specification = outputs()
    specification["model"]["files"] = {"net": {"filename": "net.bin", "location": "net.bin"}}
    (tmp_path / "net.bin").write_text("one")
    made = make(tmp_path, specification, "sleep 0.3; touch $2")
    made.configure(experiment=made.configuration["experiment"] | {"blocks": 30})
    async with made.daemon():
        await made.until("SELECT count(*) > 1 FROM blocks")
    (tmp_path / "net.bin").write_text("two")
    async with made.daemon():
        await made.until("SELECT state FROM experiments", [("skipped",)])
        assert "a model file was replaced while it was measured" in made.rows(REASONS)[0][0]


async def test_without_a_golden_output_the_arms_are_laid_beside_each_other(tmp_path: Path) -> None:
    random = 'awk -v seed="$(od -An -N3 -tu4 /dev/urandom)" \'BEGIN { srand(seed); print rand(), 0, 1 }\' > "$2"'
    specification = outputs(tolerance={"max_absolute": 0.01})
    specification["tests"][0]["metric"] = "error"
    values = ("1 2 3", "1 2 3.001", "1 2 4")
    made = make(tmp_path, specification, *(WRITE.format(values=text) for text in values), random)
    async with made.daemon():
        reasons = await ended(made, "measured", "unchanged", "regressed", "unchanged")
        assert reasons[2] == "other output than the control's: out: max_absolute 1 (at most 0.01)"
        assert "differ from block to block" in reasons[3]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run programs as another user")
async def test_no_link_of_a_program_leads_the_daemon_astray() -> None:
    """What it would follow: where a pulled file is made, and an input that is pushed."""
    with launchers.reachable_directory() as directory:
        secret = directory / "secret"
        secret.write_text("root's own\n")
        secret.chmod(0o600)
        test = {**ACCURACY["tests"][0], "preprocess": {"commands": [f"ln -s {secret} {{input_files.lines}}"]}}
        made = make(directory, {**ACCURACY, "tests": [test]}, COUNT)
        made.configure(run={"user": "nobody"})
        async with made.daemon():
            (reason,) = await ended(made, "broken")
            assert "input_files.lines" in reason
            assert "not inside" in reason
    with launchers.reachable_directory() as directory:
        secret = directory / "secret"
        secret.write_text("root's own\n")
        pulled = directory / "state/host/host/work/pulled"
        hostile = f'echo 7 > "$2"; for name in 0-out.txt .0-out.txt.partial; do ln -sf {secret} {pulled}/$name; done'
        specification = outputs(tolerance={"max_absolute": 1}, shape=[1])
        specification["tests"][0] |= {"postprocess": {"commands": [f"ln -sf {secret} {{output_files.out}} || true"]}}
        made = make(directory, specification, hostile)
        made.configure(run={"user": "nobody"})
        async with made.daemon():
            assert await ended(made, "measured") == [FIRST]
        assert secret.read_text() == "root's own\n"


async def test_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    golden = {}
    for number in (1, 2):
        np.save(tmp_path / f"golden{number}.npy", np.full(1, number, np.float32))
        golden[number] = {"filename": f"golden{number}.npy", "location": f"golden{number}.npy"}
    specification = outputs()
    specification["tests"][0] |= {
        "commands": ["mkdir {TGTDIR}/a {TGTDIR}/b", "{program} {output_files.one} {output_files.two}"],
        "output_files": {
            "one": {"filename": "out.txt", "location": "{TGTDIR}a/out.txt", "golden": golden[1]},
            "two": {"filename": "out.txt", "location": "{TGTDIR}b/out.txt", "golden": golden[2]},
        },
    }
    made = make(tmp_path, specification, 'echo 1 > "$1"; echo 2 > "$2"')
    async with made.daemon():
        assert await ended(made, "measured") == [FIRST]


async def test_what_a_try_printed_that_failed_does_not_count(tmp_path: Path) -> None:
    specification = outputs()
    del specification["tests"][0]["output_files"]
    specification["tests"][0] |= {"platform_args": {"retry": 1}, "commands": ["{program} -"]}
    record = '{"type": "NET", "metric": "latency", "unit": "us", "value": 7}'
    made = make(tmp_path, specification, f"[ -e tried ] || {{ touch tried; echo 'PyTorchObserver {record}'; exit 5; }}")
    async with made.daemon():
        assert await ended(made, "measured") == [FIRST]
        assert made.rows("SELECT count(*) FROM samples WHERE \"values\" LIKE '%[7.0%' AND type = 'NET'") == [(0,)]


async def test_commands_around_the_program_share_the_timeout(tmp_path: Path) -> None:
    test = {**ACCURACY["tests"][0], "timeout": 2, "preprocess": {"commands": ["sleep 1.5", "sleep 1.5"]}}
    made = make(tmp_path, {**ACCURACY, "tests": [test]}, COUNT)
    async with made.daemon():
        (reason,) = await ended(made, "broken")
        assert "preprocess: sleep 1.5: timed out" in reason


async def test_platform_arguments_and_converters_do_what_they_say(tmp_path: Path) -> None:
    record = '{\\"type\\": \\"NET\\", \\"metric\\": \\"size\\", \\"unit\\": \\"B\\", \\"value\\": 7}'
    flaky = f'if [ ! -e tried ]; then touch tried; exit 5; fi; echo "{record}" > "$2"'
    specification = outputs(converter={"name": "json_converter"}, upload=True)
    specification["tests"][0] |= {
        "platform_args": {"retry": 1, "log_output": True, "shell": True},
        "commands": ["{program} - {output_files.out}; exit $?"],
    }
    del specification["tests"][0]["output_files"]["out"]["shape"], specification["tests"][0]["output_files"]["out"]["type"]
    made = make(tmp_path, specification, flaky, "exit 3")
    async with made.daemon():
        reasons = await ended(made, "measured", "broken")
        assert "exit code 3" in reasons[1]
        assert made.rows("SELECT DISTINCT \"values\" FROM samples WHERE metric = 'size'") == [("[7.0]",)]
        ((log,),) = made.rows("SELECT log FROM trials WHERE experiment = 1 AND block = 0")
        assert "PyTorchObserver" in (tmp_path / "state" / log).read_text()
        assert '"size"' in (tmp_path / "state" / log.replace(".log", "-out.txt")).read_text()


async def test_a_cell_that_the_others_of_its_row_contradict_is_wrong(tmp_path: Path) -> None:
    work = 'case "$3" in eigen) n=4 ;; *) n=3 ;; esac; printf "%s\\n" 1 2 $n > "$2"\n'
    work += """echo 'PyTorchObserver {"type": "NET", "metric": "backend", "info_string": "'$3'"}'"""
    specification = outputs(tolerance={"max_absolute": 0.01})
    specification["tests"][0]["commands"] = ["{program} - {output_files.out} {backend}"]
    made = make(tmp_path, specification, work, f"{work}\n# harmless")
    made.configure(benchmarks=[{"specification": "net.json", "backends": ["cpu", "mkl", "eigen"]}])
    async with made.daemon():
        await made.until("SELECT count(*) = 6 FROM experiments WHERE state = 'decided'")
        reasons = dict(made.rows("SELECT backend, reason FROM experiments ORDER BY decided_at"))  # the last of each stays
        assert reasons["eigen"].startswith("wrong output: out: max_absolute 1 (at most 0.01) from generic@host/")
        assert {reasons["cpu"], reasons["mkl"]} <= {FIRST, ""}


async def test_a_commit_that_changes_the_numbers_of_a_whole_row_has_improved_nothing(tmp_path: Path) -> None:
    says = """echo 'PyTorchObserver {"type": "NET", "metric": "backend", "info_string": "'$3'"}'"""
    specification = outputs(tolerance={"max_absolute": 0.01})
    specification["tests"][0] |= {"metric": "error", "commands": ["{program} - {output_files.out} {backend}"]}
    made = make(tmp_path, specification, *(f"{WRITE.format(values=text)}\n{says}" for text in ("1 2 3", "1 2 4")))
    made.configure(benchmarks=[{"specification": "net.json", "backends": ["cpu", "mkl", "eigen"]}])
    made.configure(sinks=[{"name": "nobody", "kind": "http", "url": "http://127.0.0.1:9/"}])
    async with made.daemon():
        await made.until("SELECT count(*) = 6 FROM experiments WHERE state = 'decided'")
        said = "SELECT DISTINCT payload ->> 'key' FROM outbox WHERE payload ->> 'verdict' = 'regressed'"
        assert made.rows(said) == [("ARMS out max_absolute",)]
        assert made.rows(VERDICTS) == [("measured",)] * 3 + [("regressed",)] * 3, made.rows(REASONS)


async def test_energy_is_no_sample_of_a_program_that_prints_none(tmp_path: Path) -> None:
    specification = outputs()
    del specification["tests"][0]["output_files"]
    specification["tests"][0] |= {"metric": "generic", "commands": ["{program}"]}
    made = make(tmp_path, specification, "exit 0")
    meter = {"kind": "program", "command": ["/bin/sh", "-c", "while :; do echo 2.0; sleep 0.01; done"]}
    made.configure(devices=[{"name": "host", "kind": "local", "meter": meter}])
    async with made.daemon():
        (reason,) = await ended(made, "broken")
        assert "printed no sample" in reason


async def test_the_first_number_that_a_program_prints_is_decided_on_whatever_its_name(tmp_path: Path) -> None:
    says = 'echo \'PyTorchObserver {{"type": "{type}", "metric": "size", "unit": "B", "value": {value}}}\''
    works = (f"{says.format(type='B', value=size)}; {says.format(type='A', value=7)}; exit 0" for size in (10, 20))
    specification = outputs()
    del specification["tests"][0]["output_files"]
    specification["tests"][0] |= {"metric": "generic", "commands": ["{program}"]}
    made = make(tmp_path, specification, *works)
    made.configure(sinks=[{"name": "nobody", "kind": "http", "url": "http://127.0.0.1:9/"}])
    async with made.daemon():
        await ended(made, "measured", "regressed")
        said = "SELECT payload ->> 'key' FROM outbox WHERE payload ->> 'verdict' = 'regressed'"
        assert made.rows(said) == [("B size",)]


async def test_power_is_decided_on_what_a_meter_says(tmp_path: Path) -> None:
    meter = tmp_path / "meter"
    meter.write_text("#!/bin/sh\nwhile :; do cat watts; sleep 0.01; done\n")
    meter.chmod(0o755)
    specification = outputs()
    specification["tests"][0] |= {"metric": "power", "voltage": 4.2}
    works = [f"echo {watts} > {tmp_path}/watts; sleep 0.05" for watts in ("2.0", "3.0")]
    made = make(tmp_path, specification, *(f"{work}; touch $2" for work in works))
    (tmp_path / "watts").write_text("1.0\n")
    made.configure(devices=[{"name": "host", "kind": "local", "meter": {"kind": "program", "command": [str(meter)]}}])
    async with made.daemon():
        await ended(made, "measured", "regressed")
        assert made.rows("SELECT count(*) > 0 FROM results WHERE type = 'PROCESS' AND metric = 'energy'") == [(1,)]
