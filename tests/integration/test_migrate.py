"""FAI-PEP's old command line to a configuration, which is checked, served, and comes to a verdict."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import lab
import pytest
import receiver
from ruamel import yaml

PUBLISHED = Path(__file__).parents[1] / "data" / "faipep"
OLD = '*"--net "*predict_net.pb*"--warmup 1 --iter 8 --input data --label lab-7 --threads 1"'


def specification(weights: bytes) -> dict[str, object]:
    """A model file in FAI-PEP's words; its network lies beside it."""
    file = {"filename": "predict_net.pb", "location": "//predict_net.pb", "md5": hashlib.md5(weights).hexdigest()}
    command = '{program} --net {files.predict} --warmup {warmup} --iter {iter} --input "data" --label {label}'
    test = {"identifier": "net-{ID}", "metric": "delay", "iter": 8, "warmup": 1, "commands": [command]}
    about = {"category": "CNN", "description": "Trained net", "kind": "deployment", "name": "net", "format": "generic"}
    return {"model": {**about, "files": {"predict": file}}, "tests": [test]}


def picky(latency: float) -> str:
    """A program that refuses all but what FAI-PEP would have called it with."""
    guard = f'case "$*" in {OLD}) ;; *) echo "$*" >&2; exit 9 ;; esac\ntest "$FLAVOUR" = plain || exit 8\n'
    return lab.BENCH.format(latency=latency).replace("#!/bin/sh\n", f"#!/bin/sh\n{guard}")


def aibenchd(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aibenchd", *words]
    home = os.environ | {"HOME": str(directory)}
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env=home)


def messages(request: receiver.Request) -> list[dict[str, dict[str, object]]]:
    """What FAI-PEP's receiver is sent, unpacked."""
    return [json.loads(log["message"]) for log in json.loads(request.json["logs"])]


def taken(request: receiver.Request) -> receiver.Reply:
    return receiver.Reply(200, {}, json.dumps({"count": len(messages(request))}).encode())


def hastened(made: lab.Lab, text: str) -> None:
    """The file as it was printed, but for the socket and pauses: the lab does not wait a second."""
    round_trip = yaml.YAML()
    held = round_trip.load(text)
    held["status"] = {"socket": "aibenchd.sock"}
    held["repositories"][0] |= {"poll_interval": "200ms", "min_run_interval": "0s"}
    held["selfcheck"] = {"share": 0}
    with made.config.open("w") as file:
        round_trip.dump(held, file)


async def test_an_old_command_line_comes_to_a_verdict(tmp_path: Path) -> None:
    made = lab.Lab(tmp_path)
    first = made.commit("first", bench=picky(100))
    lab.git(tmp_path, "clone", "-q", "-b", "main", str(made.remote), "engine")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "predict_net.pb").write_bytes(b"net")
    made.write_specification("net.json", specification(b"net"))
    answers = tmp_path / ".aibench" / "git"
    answers.mkdir(parents=True)
    (answers / "processed_commit").write_text(first)
    saved = {
        "--repo_dir": str(tmp_path / "engine"), "--remote_repository": "origin", "--branch": "main", "--commit": "master",
        "--commit_file": str(answers / "processed_commit"), "--status_file": str(answers / "status"), "--framework": "generic",
        "--local_reporter": str(answers / "reporter"), "--exec_dir": str(answers / "exec"), "--repo": "git", "--timeout": 300,
        "--model_cache": str(answers / "model_cache"), "--root_model_dir": str(tmp_path / "models"), "--platforms": "host",
    }  # fmt: skip
    (answers / "config.txt").write_text(json.dumps(saved, indent=2, sort_keys=True))
    (answers / "status").write_text("1")
    async with receiver.Receiver().listening() as sink:
        sink.answer = taken
        words = ["-b", "net.json", "--ab_testing", "--interval", "30", "--wipe_cache", "false", "--command_args=--threads 1"]
        words += ["--string_map", '{"label": "lab-7"}', "--env", "FLAVOUR=plain", "--remote_reporter", f"{sink.url}|lab"]
        done = aibenchd(tmp_path, "migrate", "--", "python", "benchmarking/run_bench.py", *words)
        assert done.returncode == 0, done.stderr
        made.config.write_text(done.stdout)
        checked = aibenchd(tmp_path, "check", "aibenchd.yaml")
        assert (checked.returncode, checked.stdout) == (0, "aibenchd.yaml: good\n"), checked.stderr
        hastened(made, done.stdout)
        async with made.daemon():
            await made.ready()
            await until_verdicts(made, ["measured"])
            made.commit("slower", bench=picky(150))
            await until_verdicts(made, ["measured", "regressed"])
            await until_sent(sink, first)
        assert (answers / "exec" / "aibenchd" / "journal.db").exists()
    written = (answers / "reporter" / "host" / "generic" / "net" / "delay" / "net-0").rglob("NET latency.txt")
    assert len(list(written)) >= 2


async def until_verdicts(made: lab.Lab, wanted: list[str]) -> None:
    """By the client: the journal lies where FAI-PEP kept its executables."""
    found: list[str] = []
    with anyio.move_on_after(lab.WAIT):
        while found != wanted:
            await anyio.sleep(0.1)
            found = [one["verdict"] for one in reversed((await made.ctl("experiments"))["experiments"])]
    assert found == wanted, made.log()[-4000:]


async def until_sent(sink: receiver.Receiver, control: str) -> None:
    """A record of a regression against this commit, in the words of FAI-PEP's receiver; it leaves a moment after the verdict."""
    sent: list[dict[str, dict[str, object]]] = []
    with anyio.move_on_after(lab.WAIT):
        while not any(one["int"]["regressed"] and one["normal"]["control_commit"] == control for one in sent):
            await anyio.sleep(0.1)
            sent = [message for request in sink.requests for message in messages(request)]
    assert any(one["int"]["regressed"] and one["normal"]["control_commit"] == control for one in sent), sent


@pytest.mark.parametrize(
    ("where", "framework"),
    [
        ("benchmarks/caffe2/cnn.json", "caffe2"),
        ("benchmarks/caffe2/cnn-mobile.json", "caffe2"),
        ("models/caffe2/squeezenet/squeezenet.json", "caffe2"),
        ("models/tflite/squeezenet/squeezenet_taskset_3.json", "tflite"),
    ],
)
def test_published_specifications_pass_the_check(tmp_path: Path, where: str, framework: str) -> None:
    made = lab.Lab(tmp_path)
    made.commit("first")
    lab.git(tmp_path, "clone", "-q", "-b", "main", str(made.remote), "engine")
    line = f"repo_driver.py -b {PUBLISHED / where} --framework {framework} --platforms linux --repo_dir engine --branch main"
    done = aibenchd(tmp_path, "migrate", "--", line)
    assert done.returncode == 0, done.stderr
    made.config.write_text(done.stdout)
    checked = aibenchd(tmp_path, "check", "aibenchd.yaml")
    assert checked.returncode == 0, checked.stderr
