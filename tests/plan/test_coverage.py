"""Which cells there are."""

import itertools
from pathlib import Path

from aibenchd import model, settings
from aibenchd.devices import base
from aibenchd.plan import coverage

REPOSITORY = settings.RepositorySettings(name="engine", url="/srv/engine.git", framework="pytorch")


def device(name: str, **keys: object) -> base.DeviceSettings:
    return base.DeviceSettings.model_validate({"name": name, "kind": "local"} | keys)


def selected(name: str, framework: str = "", **keys: object) -> coverage.Selected:
    benchmark = model.Benchmark({"name": name, "framework": framework}, {"identifier": name, "metric": "delay"})
    return coverage.Selected(benchmark, settings.BenchmarkSelection.model_validate({"specification": Path("x.json")} | keys))


def names(cells: tuple[coverage.Cell, ...]) -> list[tuple[str, str, str]]:
    return [(cell.selected.benchmark.identifier, cell.device.name, cell.backend) for cell in cells]


def test_every_benchmark_on_every_device_with_every_backend() -> None:
    models = [selected("squeezenet", backends=("mkl", "onednn")), selected("resnet", backends=("mkl", "onednn"))]
    cells = coverage.cells(REPOSITORY, models, [device("a"), device("b")])
    assert names(cells) == list(itertools.product(["squeezenet", "resnet"], ["a", "b"], ["mkl", "onednn"]))
    assert len({cell.key for cell in cells}) == len(cells)


def test_a_new_backend_of_a_device_adds_a_column_by_itself() -> None:
    one = [selected("squeezenet", backends=("mkl", "cuda"))]
    before = coverage.cells(REPOSITORY, one, [device("a", backends=("mkl",))])
    after = coverage.cells(REPOSITORY, one, [device("a", backends=("mkl", "cuda"))])
    assert names(before) == [("squeezenet", "a", "mkl")]
    assert set(names(after)) - set(names(before)) == {("squeezenet", "a", "cuda")}


def test_a_benchmark_of_another_framework_or_repository_does_not_fit() -> None:
    models = [
        selected("tflite net", framework="tflite"),
        selected("others", repositories=("another",)),
        selected("ours", framework="pytorch", repositories=("engine",)),
    ]
    assert names(coverage.cells(REPOSITORY, models, [device("a")])) == [("ours", "a", "")]


def test_devices_are_chosen_by_name_kind_or_tag_and_excluded_by_name() -> None:
    fleet = [device("a", tags=("fast",)), device("b"), device("c", tags=("fast", "old"))]

    def chosen(**keys: object) -> list[str]:
        selection = settings.DeviceSelection.model_validate(keys)
        return [one.name for one in fleet if coverage.chosen(one, selection)]

    assert chosen() == ["a", "b", "c"]
    assert chosen(tags=("fast",)) == ["a", "c"]
    assert chosen(names=("b",), tags=("old",)) == ["b", "c"]
    assert chosen(kinds=("local",), exclude=("b",)) == ["a", "c"]
    assert chosen(names=("nobody",)) == []


def test_what_is_selected_twice_is_one_cell() -> None:
    again = [selected("squeezenet", priority=1), selected("squeezenet", priority=2)]
    (cell,) = coverage.cells(REPOSITORY, again, [device("a")])
    assert cell.selected.selection.priority == 1
