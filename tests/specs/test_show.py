"""``aibenchd spec show``, on what FAI-PEP published and on what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aibenchd import cli
from aibenchd.frameworks import placeholders

PUBLISHED = Path(__file__).parents[1] / "data/faipep"


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], str]:
    assert cli.main(["spec", "show", "--json", *map(str, arguments)]) == 0
    printed = capsys.readouterr()
    parsed: dict[str, Any] = json.loads(printed.out)
    return parsed, printed.err


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1))
    return path


def test_a_benchmarks_file_comes_to_all_of_its_models(capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = shown(capsys, PUBLISHED / "benchmarks/caffe2/cnn-mobile.json", "--framework", "generic")
    names = list(dict.fromkeys(one["model"] for one in found["benchmarks"]))
    assert " ".join(names) == (
        "squeezenet style_transfer bvlc_googlenet densenet121 inception_v1 inception_v2 resnet50 shufflenet"
    )
    assert {one["fields"]["model"]["group"] for one in found["benchmarks"]} == {"CNN-Mobile"}
    assert {one["model"]: one["timeout"] for one in found["benchmarks"]}["shufflenet"] == 500.0


def test_the_accuracy_flow_on_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    path = PUBLISHED / "models/caffe2/squeezenet/squeezenet_accuracy_imagenet.json"
    options = ("--framework", "generic", "--program", "convert_image_to_tensor", "--index", "3")
    found, warned = shown(capsys, path, *options, "--string-map", '{"IMAGENET_DIR": "/images"}')
    (one,) = found["benchmarks"]
    scripts = f"{placeholders.ROOT}/libraries/python"
    assert one["preprocess"] == {
        "model": [
            "mkdir -p /host/inputs",
            "mkdir -p /host/outputs",
            f"{scripts}/imagenet_test_map.py --limit-files 500 --limit-per-category 1 --image-dir /images/val/"
            f" --label-file {scripts}/labels.txt --output-image-file /host/images.txt --output-label-file /host/labels.txt"
            " --shuffle",
        ],
        "test": [
            "awk '(NR>3*500/10)&&(NR<=3*500/10+500/10) {print > \"/host/inputs/labels_3.txt\"}' /host/labels.txt",
            "/build/convert_image_to_tensor --input_image_file /host/inputs/labels_3.txt"
            ' --output_tensor /host/images_tensor.pb --scale "256,-1" --crop 224,224 --preprocess subtract128',
        ],
    }
    assert one["postprocess"] == {
        "model": [
            f"{scripts}/aggregate_classification_results.py --dir /host/outputs --prefix accuracy --limit 10"
            " --metric-keyword 'Caffe2Observer ' "
        ],
        "test": [
            f"{scripts}/classification_compare.py --name squeezenet --benchmark-output /host/pulled/softmaxout.txt"
            " --labels /host/inputs/labels_3.txt --top 1 --result-file /host/outputs/accuracy_3.txt"
        ],
    }
    assert one["output_files"]["softmaxout"] == {
        "filename": "softmaxout.txt",
        "path": "/device/work/softmaxout.txt",
        "pulled": "/host/pulled/softmaxout.txt",
    }
    assert (one["iterations"], one["warmup"], one["repeat"], one["unknown"], warned) == (1, 0, 10, [], "")


def test_what_is_asked_for_is_composed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        "model": {"name": "net"},
        "tests": [{"metric": "delay", "commands": ["{program} --backend={backend} {size} {kind}"], "MKL_NUM_THREADS": 4}],
    }
    path = write(tmp_path / "net.json", value)
    options = ("--backend", "mkl", "--meta", '{"kind": "quick", "env": {"A": "1"}}', "--string-map", '{"size": 3}')
    found, _ = shown(capsys, path, *options, "--command-args=-v")
    (one,) = found["benchmarks"]
    assert one["commands"] == ["/build/program --backend=mkl 3 quick -v"]
    assert (one["threads"], one["env"]) == ({"MKL_NUM_THREADS": "4", "OMP_NUM_THREADS": "1"}, {"A": "1"})
    found, _ = shown(capsys, path, *options, "--platform", "android")
    assert found["benchmarks"][0]["threads"] == {}


def test_an_app_needs_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"model": {"name": "net", "platform": "android", "app": {"package": "a.b", "activity": ".C"}}}
    found, _ = shown(capsys, write(tmp_path / "net.json", {**value, "tests": [{"metric": "delay"}]}))
    assert (found["benchmarks"][0]["app"], found["benchmarks"][0]["commands"]) == ("a.b/.C", [])


def test_a_test_without_commands_has_its_framework_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: {"filename": f"{name}.pb", "location": f"//{name}.pb"} for name in ("init", "predict")}
    test = {"metric": "delay", "iter": 5, "warmup": 1, "identifier": "{ID}"}
    inputs = {"a": {"shapes": [[1, 3], [2, 3]], "type": "float"}, "b": {"shapes": [[1], [2]], "type": ["int", "float"]}}
    value = {"model": {"name": "net", "format": "caffe2", "files": files}, "tests": [{**test, "inputs": inputs}]}
    found, _ = shown(capsys, write(tmp_path / "net.json", value))
    begin = "/build/program --net /device/files/predict.pb --warmup 1 --iter 5 --init_net /device/files/init.pb"
    assert {one["identifier"]: one["commands"] for one in found["benchmarks"]} == {
        "0": [f"{begin} --input_dims '1,3;1' --input a,b --input_type 'float;int'"],
        "1": [f"{begin} --input_dims '2,3;2' --input a,b --input_type 'float;float'"],
    }


def test_the_text_says_all_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    path = PUBLISHED / "models/tflite/squeezenet/squeezenet_1_thread_power.json"
    assert cli.main(["spec", "show", "--framework", "generic", str(path)]) == 0
    printed = capsys.readouterr()
    rows = [row.split(":", 1) for row in printed.out.splitlines()]
    assert {key: text.strip() for key, text in rows} == {
        "benchmark": f"squeezenet_power squeezenet-1-thread ({path})",
        "runs on": "generic on host, backend of the program",
        "metric": "power, statistics mean p0 p10 p50 p90 p100 stdev MAD cv",
        "records": "iterations 1000, warm-up 0, repeat 1",
        "times": "timeout 600 s, sleep before run 20 s",
        "environment": "MKL_NUM_THREADS=1 OMP_NUM_THREADS=1",
        "files.graph": "/device/files/squeezenet.tflite from https://s3.amazonaws.com/download.caffe2.ai/models/"
        "benchmark_models/squeezenet.tflite, md5 2bb5c960ff74229c0d5999a77027d4ab",
        "command": "/build/program --graph=/device/files/squeezenet.tflite --warmup_runs=0 --num_runs=1000"
        ' --input_layer=Placeholder --input_layer_shape="1,224,224,3" --num_threads=1',
    }
    assert printed.err == ""


def test_odd_files_are_shown_with_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path / "net.json",
        """{"model": {"name": "net", "format": "nowhere", "files": {"net": {"filename": "net.bin", "location": "http://x.test/n"}}},
            "tests": [{"metric": "delay", "iter": 1, "iter": 2, "commands": ["{convert} {files.lost}"]}]}""",
    )
    found, warned = shown(capsys, path)
    (one,) = found["benchmarks"]
    assert (one["framework"], one["iterations"], one["unknown"]) == ("generic", 2, ["{convert}", "{files.lost}"])
    assert [row.removeprefix("warning: ") for row in warned.splitlines()] == found["warnings"]
    iterations, lost, unpinned, unknown = found["warnings"]
    assert f"{path}:2:54: tests[0].iter: is given twice" in iterations
    assert f"{path}:2:65: tests[0].commands: names {{files.lost}}" in lost
    assert "files.net: has no digest, and is not run without; 'aibenchd spec pin' writes it" in unpinned
    assert "net: nothing stands for {convert}, {files.lost}: programs of the build (--program)" in unknown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"model": {"name": "net"},\n "tests": [{"metric": "speed", "commands": ["x"]}]}', "net.json:2:13: tests[0].metric: "),
        ('{"model": {"name": "net"},', "net.json:1:27: is not JSON"),
        ('{"model": {"name": "net"}, "tests": [{"metric": "delay"}]}', "tests[0]: does not say what to run"),
        ('{"model": {"name": "net", "framework": "generic"}, "tests": [{"metric": "delay"}]}', "net: does not say what to run"),
        (
            '{"model": {"name": "net", "framework": "nothing"}, "tests": [{"metric": "delay"}]}',
            "none of the installed kinds of frameworks",
        ),
        (
            '{"model": {"name": "n", "x": "{y}", "y": "{x}"}, "tests": [{"metric": "delay", "command": "{x}"}]}',
            "stand for each other",
        ),
        ("[]", "expected a model file (model, tests) or a benchmarks file"),
    ],
)
def test_a_bad_file_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    assert cli.main(["spec", "show", str(write(tmp_path / "net.json", text))]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert "Traceback" not in printed.err


def test_what_can_be_composed_is_shown_beside_what_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tests = [{"metric": "delay", "command": "x"}, {"metric": "delay", "inputs": {"data": {"shapes": [[1]]}}}]
    path = write(tmp_path / "net.json", {"model": {"name": "net"}, "tests": tests})
    assert cli.main(["spec", "show", "--json", str(path)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["commands"] for one in found["benchmarks"]] == [["x"]]
    (fault,) = found["faults"]
    assert fault.startswith(f"{path}: net-1: does not say what to run")


def test_another_framework_than_the_model_s_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"model": {"name": "net", "framework": "pytorch"}, "tests": [{"metric": "delay", "command": "x"}]}
    assert cli.main(["spec", "show", "--framework", "generic", str(write(tmp_path / "net.json", value))]) == 1
    assert "net: is for the framework pytorch, not generic" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_a_map_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["spec", "show", "--string-map", text, "net.json"])
    assert ended.value.code == 2
    assert "expected a JSON object" in capsys.readouterr().err
