"""All that FAI-PEP published: accepted, expanded and composed. What is expected is written by the format's rules, not by us."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aibenchd import cli
from aibenchd.frameworks import placeholders

PUBLISHED = Path(__file__).parents[1] / "data/faipep"
MODELS = {str(path.relative_to(PUBLISHED / "models"))[:-5]: path for path in sorted(PUBLISHED.glob("models/*/*/*.json"))}
SCRIPTS = f"{placeholders.ROOT}/libraries/python"
NAMES = {"MODEL_DIR": "/models", "IMAGENET_DIR": "/imagenet", "imagenet_dir": "/imagenet", "COCO_DIR": "/coco"}
STAND_INS = {
    "program": "/build/program",
    "input_files.images_tensor": "/device/files/images_tensor.pb",
    "input_files.im_info_tensor": "/device/files/im_info_tensor.pb",
    "TGTDIR": "/device/work/",
}
TASKSETS = {"3": [0, 1], "c": [2, 3], "0f": [0, 1, 2, 3], "f0": [4, 5, 6, 7], "80": [7]}

# Benchmarks in a file; one in all others.
COUNTS = {
    "caffe2/squeezenet/squeezenet": 3,
    "tflite/mobilenet_v2/mobilenet_v2_1.0_224": 8,
    "tflite/mobilenet_v2/mobilenet_v2_1.0_224_quant": 8,
    "tflite/squeezenet/squeezenet": 8,
    **{f"tflite/mobilenet_v2/mobilenet_v2_1.0_224_taskset_{mask}": 4 for mask in ("0f", "3", "c", "f0")},
    **{f"tflite/mobilenet_v2/mobilenet_v2_1.0_224_quant_taskset_{mask}": 4 for mask in ("c", "f0")},
    **{f"tflite/squeezenet/squeezenet_taskset_{mask}": 4 for mask in ("0f", "3", "c", "f0")},
    **{f"tflite/resnet50_v2/resnet50_v2_quant_taskset_{mask}": 4 for mask in ("c", "f0")},
}
TWICE = "tests[{}].arguments: names {{program}}, which stands before arguments anyway"
OPTIONS = "tests[0].commands: has options (tflite) for a test that does not say what to run; {!r} does, and holds"
# What files say against themselves; no other has a warning.
WARNINGS = {
    "tflite/mobilenet_v1/mobilenet_v1_1.0_244_quant": [OPTIONS.format("arguments")],
    "tflite/mobilenet_v2/mobilenet_v2_1.4_224": [
        "tests[0].commands: is given twice, first in line 17",
        OPTIONS.format("commands"),
    ],
    **{f"caffe2/resnet50_quant_arm_neon/resnet50_quant_taskset_{mask}": [TWICE.format(0)] for mask in ("c", "f0")},
    **{
        f"tflite/resnet50_v2/resnet50_v2_quant_taskset_{mask}": [TWICE.format(index) for index in range(4)]
        for mask in ("c", "f0")
    },
}


def shown(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> dict[str, Any]:
    given = ("--string-map", json.dumps(NAMES), "--program", "convert_image_to_tensor", "--platform", "android", *arguments)
    assert cli.main(["spec", "show", "--json", str(path), *given]) == 0
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


def published(path: Path) -> Any:
    """A file as it is written; of commands that are given twice, what is to be run."""

    def what_runs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(pairs) | {key: value for key, value in pairs if key == "commands" and isinstance(value, list)}

    return json.loads(path.read_text(), object_pairs_hook=what_runs)


def written(test: Mapping[str, Any]) -> list[str]:
    """The commands of a published test before anything is replaced."""
    if "arguments" in test:
        return ["{program} " + test["arguments"]]
    commands: list[str] = [test["command"]] if "command" in test else test["commands"]
    return commands


def by_hand(command: str, test: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    names = {f"files.{key}": f"/device/files/{file['filename']}" for key, file in files.items()}
    for name, text in {**names, "iter": str(test["iter"]), "warmup": str(test["warmup"]), **STAND_INS}.items():
        command = command.replace("{" + name + "}", text)
    return command


def test_all_of_them_are_here() -> None:
    assert (len(MODELS), len(list(PUBLISHED.glob("benchmarks/*/*.json")))) == (69, 3)
    assert (COUNTS | WARNINGS).keys() <= MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_each_model_comes_to_its_commands(capsys: pytest.CaptureFixture[str], name: str) -> None:
    document = published(MODELS[name])
    found = shown(capsys, MODELS[name])
    benchmarks, tests, files = found["benchmarks"], document["tests"], document["model"]["files"]
    assert len(benchmarks) == COUNTS.get(name, 1)
    assert [one["commands"] for one in benchmarks] == [[by_hand(text, test, files) for text in written(test)] for test in tests]
    assert [one["identifier"] for one in benchmarks] == [
        test["identifier"].replace("{ID}", str(index)) for index, test in enumerate(tests)
    ]
    assert {one["framework"] for one in benchmarks} == {name.partition("/")[0]}
    assert {key: file["md5"] or "" for key, file in benchmarks[0]["files"].items()} == {
        key: file["md5"] for key, file in files.items()
    }
    assert [one["cpus"] for one in benchmarks] == [
        TASKSETS.get(test.get("platform_args", {}).get("taskset"), []) for test in tests
    ]
    assert [one["unknown"] for one in benchmarks] == [[]] * len(benchmarks)
    expected = WARNINGS.get(name, [])
    assert len(found["warnings"]) == len(expected)
    assert all(text in warning for text, warning in zip(expected, found["warnings"], strict=True))


TFLITE = "--warmup_runs=1 --num_runs=50 --input_layer=input"
CAFFE2 = "/build/program --net /device/files/{0}predict_net.pb --init_net /device/files/{0}init_net.pb --warmup 1 --iter {1}"
DATA = '--input "data" --input_dims "1,3,224,224" --input_type float'


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (  # commands given twice: a list, and options for a test that has none
            "tflite/mobilenet_v2/mobilenet_v2_1.4_224",
            f'/build/program --graph=/device/files/mobilenet_v2_1.4_224.tflite {TFLITE} --input_layer_shape="1,224,224,3"'
            " --num_threads=4",
        ),
        (  # arguments, and the same options
            "tflite/mobilenet_v1/mobilenet_v1_1.0_244_quant",
            f'/build/program --graph=/device/files/mobilenet_v1_1.0_224_quant.tflite {TFLITE} --input_layer_shape="1,244,244,3"'
            " --num_threads=4",
        ),
        (  # command, with taskset
            "tflite/mobilenet_v2/mobilenet_v2_1.0_224_quant_taskset_f0",
            f'/build/program --graph=/device/files/mobilenet_v2_1.0_224_quant.tflite {TFLITE} --input_layer_shape="1,224,224,3"'
            " --num_threads=1",
        ),
        (  # arguments that name the program too
            "caffe2/resnet50_quant_arm_neon/resnet50_quant_taskset_c",
            "/build/program "
            + CAFFE2.format("resnet50_quantized_", 50)
            + f" {DATA.replace('data', 'gpu_0/data')} --run_individual true",
        ),
        (
            "caffe2/mobilenet_v2/mobilenet_v2_1_thread",
            CAFFE2.format("", 50).replace("program ", "program --caffe2_threadpool_force_inline True ")
            + f" {DATA} --run_individual true",
        ),
        ("caffe2/mobilenet_v2/mobilenet_v2_power", CAFFE2.format("", 1000) + f" {DATA} --sleep_before_run 20"),
        (
            "caffe2/MaskRCNN2Go/MaskRCNN2Go_COCO",
            "/build/program --net /device/files/model.pb --init_net /device/files/model_init.pb --warmup 1 --iter 50"
            ' --input "data,im_info" --input_file /device/files/images_tensor.pb,/device/files/im_info_tensor.pb'
            " --input_type float --output class_nms,score_nms,bbox_nms,mask_fcn_probs --text_output true"
            " --output_folder '/device/work/'",
        ),
    ],
)
def test_telling_ones_in_full(capsys: pytest.CaptureFixture[str], name: str, command: str) -> None:
    assert shown(capsys, MODELS[name])["benchmarks"][0]["commands"] == [command]


def test_power_files_give_what_their_meter_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """Two keys at the test's own level, which FAI-PEP has looked for in ``monsoon`` since, and fails without."""
    seconds = {"1_thread": 150, "2_threads": 400, "3_threads": 200, "4_threads": 150}
    for threads, collected in seconds.items():
        (one,) = shown(capsys, MODELS[f"tflite/mobilenet_v2/mobilenet_v2_1.0_224_{threads}_power"])["benchmarks"]
        test = one["fields"]["test"]
        assert (one["metric"], test["collection_time"], test["voltage"]) == ("power", collected, 4.2)
        assert (one["iterations"], one["sleep_before_run"], one["cooldown"]) == (1000, 20.0, 30.0)
    (one,) = shown(capsys, MODELS["caffe2/mobilenet_v2/mobilenet_v2_power_software"])["benchmarks"]
    assert one["fields"]["test"]["method"] == "software"


def test_the_accuracy_flow_of_two_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = shown(capsys, MODELS["caffe2/MaskRCNN2Go/MaskRCNN2Go_COCO"], "--index", "7")["benchmarks"]
    coco = f"{SCRIPTS}/coco"
    dataset = "--dataset coco_2014val --dataset_dir /coco/val2014/ --dataset_ann /coco/annotations/instances_val2014.json"
    lines = "(NR>7*50000/1000)&&(NR<=7*50000/1000+50000/1000)"
    assert one["preprocess"] == {
        "model": [
            "mkdir -p /host/inputs",
            "mkdir -p /host/outputs",
            f"{coco}/json_dataset.py {dataset} --output-file /host/coco_database.txt --output-image-file /host/coco_images.txt",
        ],
        "test": [
            f"awk '{lines} {{print > \"/host/inputs/coco_database_7.txt\"}}' /host/coco_database.txt",
            f"awk '{lines} {{print > \"/host/inputs/coco_images_7.txt\"}}' /host/coco_images.txt",
            f"{coco}/generate_im_info.py --dataset-file /host/inputs/coco_database_7.txt --min-size 320 --max-size 640"
            " --batch-size 1 --output-file /host/inputs/coco_im_info_7.txt",
            "/build/convert_image_to_tensor --input_image_file /host/inputs/coco_images_7.txt"
            " --output_tensor /host/images_tensor.pb --scale 320,640 --batch_size 1"
            " --input_text_file /host/inputs/coco_im_info_7.txt --output_text_tensor /host/im_info_tensor.pb"
            ' --report_time "json|Caffe2Observer "',
        ],
    }
    blobs = ("class_nms", "score_nms", "bbox_nms", "mask_fcn_probs")
    assert one["postprocess"] == {
        "model": [
            f"{coco}/test_engine.py {dataset} --limit-files 1000 --total-num 50000 --input-dir /host/outputs"
            " --result-prefix coco_result --output-dir /host/result"
        ],
        "test": [
            f"{coco}/process_single_image_output.py --blob-names {','.join(blobs)}"
            f" --blob-files {','.join(f'/host/pulled/{name}.txt' for name in blobs)}"
            " --im-info /host/inputs/coco_database_7.txt --output-file /host/outputs/coco_result_7.pkl --rle-encode"
        ],
    }
    assert (one["repeat"], one["log_output"], one["metric"]) == (1000, True, "accuracy")
    assert {key: file["sources"] for key, file in one["files"].items()} == {
        "init": ["/models/model_init.pb"],
        "predict": ["/models/model.pb"],
    }


def test_labels_beside_the_model_are_read_on_this_host(capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = shown(capsys, MODELS["caffe2/squeezenet/squeezenet_accuracy_input_file"])["benchmarks"]
    assert one["postprocess"]["test"] == [
        f"{SCRIPTS}/classification_compare.py --name squeezenet --benchmark-output /host/pulled/softmaxout.txt"
        " --labels /host/files/labels.txt --top 1 --metric-keyword 'Caffe2Observer ' "
    ]


@pytest.mark.parametrize(
    ("group", "models", "benchmarks", "arguments"),
    [
        ("cnn", 12, 14, ""),  # SqueezeNet has three
        ("cnn-mobile", 8, 10, ""),
        ("cnn-mkl", 5, 7, " --backend mkl"),
    ],
)
def test_a_group_s_meta_comes_to_each_of_its_models(
    capsys: pytest.CaptureFixture[str], group: str, models: int, benchmarks: int, arguments: str
) -> None:
    path = PUBLISHED / f"benchmarks/caffe2/{group}.json"
    found = shown(capsys, path)["benchmarks"]
    assert (len({one["model"] for one in found}), len(found)) == (models, benchmarks)
    assert {one["fields"]["model"]["group"].lower() for one in found} == {group}
    for one in found:
        (alone,) = (
            other for other in shown(capsys, Path(one["source"]))["benchmarks"] if other["identifier"] == one["identifier"]
        )
        assert one["commands"] == [alone["commands"][0] + arguments]
