"""Which cells there are."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import errors, model, settings
from aibenchd.devices import base
from aibenchd.plan import coverage

KNOWN = ("cpu", "mkl", "onednn")
REPOSITORY = settings.RepositorySettings(name="engine", url="/srv/engine.git", framework="pytorch")


def device(name: str, **keys: object) -> base.DeviceSettings:
    return base.DeviceSettings.model_validate({"name": name, "kind": "local"} | keys)


def selected(name: str, framework: str = "", identifier: str = "", metric: str = "delay", **keys: object) -> coverage.Selected:
    test = {"identifier": identifier or name, "metric": metric}
    benchmark = model.Benchmark({"name": name, "framework": framework}, test)
    return coverage.Selected(benchmark, settings.BenchmarkSelection.model_validate({"specification": Path("x.json")} | keys))


def names(cells: tuple[coverage.Cell, ...]) -> list[tuple[str, str, str]]:
    return [(cell.selected.benchmark.identifier, cell.device.name, cell.backend) for cell in cells]


def test_every_benchmark_on_every_device_with_every_backend() -> None:
    models = [selected("squeezenet", backends=("mkl", "onednn")), selected("resnet", backends=("mkl", "onednn"))]
    cells = coverage.cells(REPOSITORY, models, [device("a"), device("b")], ())
    assert names(cells) == list(itertools.product(["squeezenet", "resnet"], ["a", "b"], ["mkl", "onednn"]))
    assert len({cell.key for cell in cells}) == len(cells)


@pytest.mark.parametrize("wanted", [("mkl", "cuda"), ("all",), ()])
def test_a_new_backend_of_a_device_adds_a_column_by_itself(wanted: tuple[str, ...]) -> None:
    one, known = [selected("squeezenet", backends=wanted)], ("mkl", "cuda", "cpu")
    before = coverage.cells(REPOSITORY, one, [device("a", backends=("mkl",))], known)
    after = coverage.cells(REPOSITORY, one, [device("a", backends=("mkl", "cuda"))], known)
    assert names(before) == [("squeezenet", "a", "mkl")]
    assert set(names(after)) - set(names(before)) == {("squeezenet", "a", "cuda")}


@pytest.mark.parametrize(
    ("wanted", "offered", "known", "expected"),
    [
        ((), (), KNOWN, ("",)),
        ((), ("cpu", "mkl"), KNOWN, ("cpu", "mkl")),
        ((), ("cpu", "dsp"), KNOWN, ("cpu", "dsp")),  # of which one is impossible
        ((), ("dsp",), KNOWN, ("dsp",)),  # which is impossible
        ((), ("dsp", "cpu"), (), ("dsp", "cpu")),
        (("mkl", "dsp"), ("cpu",), KNOWN, ("mkl", "dsp")),
        (("all",), (), KNOWN, KNOWN),
        (("all",), ("mkl", "dsp"), KNOWN, ("mkl",)),
        (("all",), ("dsp",), KNOWN, ("all",)),  # which is impossible
        (("dsp", "all", "mkl"), (), KNOWN, ("dsp", *KNOWN)),
        (("all",), ("dsp",), (), ("dsp",)),
        (("all",), (), (), ("",)),
    ],
)
def test_backends_are_the_selection_s_else_the_device_s_else_the_program_s(
    wanted: tuple[str, ...], offered: tuple[str, ...], known: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert coverage.backends(wanted, offered, known) == expected


def test_of_a_device_s_backends_each_framework_is_asked_for_what_it_knows_or_for_all_where_it_does_not_say() -> None:
    host, net = device("a", backends=("mkl", "cpu", "dsp")), selected("net")
    generic = REPOSITORY.model_copy(update={"framework": "generic"})
    tflite = REPOSITORY.model_copy(update={"framework": "tflite"})
    assert [cell.backend for cell in coverage.cells(REPOSITORY, [net], [host], KNOWN)] == ["mkl", "cpu"]
    assert [cell.backend for cell in coverage.cells(generic, [net], [host], ())] == ["mkl", "cpu", "dsp"]
    (*_, dsp) = shown = coverage.matrix(tflite, [net], [device("a", backends=("opencl", "dsp"))], ("cpu", "xnnpack"))
    assert all(cell.impossible for cell in shown), "what it falls back to is not measured in place of what the device offers"
    assert dsp.impossible == "tflite cannot be asked for dsp: it knows cpu, xnnpack"


@pytest.mark.parametrize(
    ("backend", "offered", "known", "reason"),
    [
        ("eigen", (), KNOWN, "pytorch cannot be asked for eigen: it knows cpu, mkl, onednn"),
        ("mkl", ("cpu",), KNOWN, "a does not offer mkl, only cpu"),
        ("all", ("dsp",), KNOWN, "a offers only dsp; pytorch can be asked for cpu, mkl, onednn"),
        ("mkl", ("mkl",), KNOWN, ""),
        ("anything", (), (), ""),
        ("", ("cpu",), KNOWN, ""),
    ],
)
def test_what_is_impossible_says_why(backend: str, offered: tuple[str, ...], known: tuple[str, ...], reason: str) -> None:
    assert coverage.impossible("pytorch", device("a", backends=offered), backend, known) == reason


ABI = {"a": {"abi": "x86_64"}}


@pytest.mark.parametrize(
    ("wanted", "found", "reason"),
    [
        ({}, {}, ""),
        ({"names": ("a",), "kinds": ("adb",)}, {}, ""),
        ({"exclude": ("a",)}, {}, "a is excluded"),
        ({"kinds": ("adb",), "tags": ("phone", "old")}, {}, "a has the kind local, not adb; the tags none, not phone or old"),
        ({"abis": ("arm64-v8a",)}, {}, "a has the ABI none, not arm64-v8a"),
        ({"abis": ("arm64-v8a",)}, ABI, "a has the ABI x86_64, not arm64-v8a"),
        ({"abis": ("x86_64",)}, ABI, ""),
    ],
)
def test_a_device_that_a_selection_does_not_take_says_why(
    wanted: dict[str, tuple[str, ...]], found: coverage.Found, reason: str
) -> None:
    selection = settings.DeviceSelection.model_validate(wanted)
    assert coverage.passed_over(device("a"), selection, found) == reason
    assert coverage.chosen(device("a"), selection, found) is not bool(reason)


def nowhere(one: coverage.Selected, *fleet: base.DeviceSettings, known: tuple[str, ...] = KNOWN) -> str:
    homes = [
        *(coverage.Home("engine", "pytorch", cell) for cell in coverage.matrix(REPOSITORY, [one], fleet, known)),
        *coverage.homeless([REPOSITORY], [one], fleet),
    ]
    return coverage.nowhere(homes, one.selection.devices, fleet)


def test_what_runs_nowhere_says_what_does_not_fit_where_it_is_nearest() -> None:
    cpu, mkl = device("a", backends=("cpu",)), device("b", backends=("mkl",))
    assert nowhere(selected("net", backends=("mkl",)), cpu, mkl) == ""
    assert nowhere(selected("net", backends=("mkl",)), cpu) == "a does not offer mkl, only cpu"
    unknown = "pytorch cannot be asked for dsp: it knows cpu, mkl, onednn"
    assert nowhere(selected("net", backends=("dsp", "mkl")), cpu) == f"{unknown}; a does not offer mkl, only cpu"
    nearer = "; no other of the 2 devices is nearer"
    assert nowhere(selected("net", backends=("onednn",)), cpu, mkl) == f"a does not offer onednn, only cpu{nearer}"
    assert nowhere(selected("net", framework="caffe2"), cpu, mkl) == "no repository builds caffe2 programs"
    without = {"names": ("b",), "exclude": ("b",)}
    assert nowhere(selected("net", devices=without), cpu, mkl) == f"b is excluded{nearer}"


def test_a_backend_that_nothing_knows_that_runs_on_a_device_is_misspelt() -> None:
    known = {"pytorch": KNOWN, "tflite": ("cpu", "xnnpack"), "generic": ()}
    host, spare, free = device("a", backends=("cpuu", "mkl")), device("spare", backends=("any",)), device("free")

    def unknown(*frameworks: str) -> object:
        return coverage.unknown_backends(
            [
                coverage.Home(framework, framework, coverage.Cell(selected("net"), where, ""))
                for framework in frameworks
                for where in (host, free)
            ]
            + [coverage.Home("", "caffe2", coverage.Cell(selected("net"), spare, ""))],
            known.__getitem__,
        )

    meant = "and nothing else runs there; did you mean 'cpu'?"
    assert unknown("pytorch") == {("a", "cpuu"): f"'cpuu' is no backend of pytorch, {meant}"}
    assert unknown("pytorch", "tflite") == {("a", "cpuu"): f"'cpuu' is no backend of pytorch or tflite, {meant}"}
    assert unknown("pytorch", "generic") == {}, "a program may name its backend as it likes"


WORDS = st.lists(st.sampled_from(["cpu", "mkl", "eigen", "dsp", "cuda"]), max_size=5, unique=True)


@given(st.lists(st.sampled_from(["all", "cpu", "mkl", "dsp"]), max_size=3, unique=True), WORDS, WORDS)
def test_what_is_scheduled_is_offered_and_known_and_nothing_wanted_goes_unsaid(
    wanted: list[str], offered: list[str], known: list[str]
) -> None:
    one, host = [selected("net", backends=tuple(wanted))], [device("a", backends=tuple(offered))]
    scheduled = [cell.backend for cell in coverage.cells(REPOSITORY, one, host, known)]
    shown = [cell.backend for cell in coverage.matrix(REPOSITORY, one, host, known)]
    for backend in scheduled:
        assert not backend or ((not offered or backend in offered) and (not known or backend in known))
    assert shown, "a benchmark on a device is measured, or is said to be impossible"
    assert set(wanted) - {"all"} <= set(shown)
    assert len(set(shown)) == len(shown)


def test_a_model_that_no_repository_builds_for_is_shown_and_not_scheduled() -> None:
    lost = [selected("net", framework="caffe2"), selected("other", framework="caffe2", repositories=("engine",))]
    assert coverage.cells(REPOSITORY, lost, [device("a")], KNOWN) == ()
    assert [(home.place, home.cell.impossible) for home in coverage.homeless([REPOSITORY], lost, [device("a")])] == [
        ("caffe2@a", "no repository builds caffe2 programs"),
        ("caffe2@a", "none of engine builds caffe2 programs"),
    ]
    assert coverage.homeless([REPOSITORY], [selected("ours")], [device("a")]) == ()


def test_a_benchmark_of_another_framework_or_repository_does_not_fit() -> None:
    models = [
        selected("tflite net", framework="tflite"),
        selected("others", repositories=("another",)),
        selected("ours", framework="pytorch", repositories=("engine",)),
    ]
    assert names(coverage.cells(REPOSITORY, models, [device("a")], ())) == [("ours", "a", "")]


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


def test_devices_are_chosen_by_what_they_turned_out_to_be() -> None:
    fleet = [device("a"), device("b"), device("never")]
    pixel = {"model": "Pixel 6", "release": "12", "sdk": "31", "hash": "9B2C", "serial": "R5CT", "abi": "arm64-v8a"}
    found = {"a": {"model": "Server", "hash": "77", "abi": "x86_64"}, "b": pixel}

    def chosen(**keys: object) -> list[str]:
        selection = settings.DeviceSelection.model_validate(keys)
        return [one.name for one in fleet if coverage.chosen(one, selection, found)]

    assert chosen() == ["a", "b", "never"]
    assert chosen(hashes=("9B2C",)) == ["b"]
    assert chosen(hashes=("R5CT",)) == ["b"]
    assert chosen(models=("Pixel 6-12-31",)) == ["b"]
    assert chosen(abis=("x86_64", "arm64-v8a"), exclude=("a",)) == ["b"]
    assert chosen(abis=("x86_64",), names=("never",)) == ["a", "never"]
    assert chosen(hashes=("gone",)) == []
    selection = settings.DeviceSelection(hashes=("9B2C", "gone"), abis=("x86_64",), models=("Pixel 7-13-33",))
    assert coverage.absent(selection, fleet, found) == ("gone", "Pixel 7-13-33")
    homes = coverage.homeless([REPOSITORY], [selected("net", framework="caffe2")], fleet, found)
    assert len(homes) == 3


def test_what_is_selected_twice_is_one_cell() -> None:
    again = [selected("squeezenet", priority=1), selected("squeezenet", priority=2)]
    (cell,) = coverage.cells(REPOSITORY, again, [device("a")], ())
    assert cell.selected.selection.priority == 1


def homes(*cells: tuple[str, str, coverage.Selected, str, str]) -> list[coverage.Home]:
    """Of (repository, framework, selected, device, backend)."""
    return [
        coverage.Home(repository, framework, coverage.Cell(one, device(where), backend))
        for repository, framework, one, where, backend in cells
    ]


def test_one_test_of_a_model_in_each_framework_is_one_row_whatever_it_is_called() -> None:
    one, other = selected("net", "pytorch", "net-torch"), selected("net", "caffe2", "net-c2")
    timed, accurate = selected("net", "pytorch"), selected("net", "pytorch", metric="accuracy")
    found = homes(("a", "pytorch", one, "host", ""), ("b", "caffe2", other, "host", "mkl"))
    assert set(coverage.rows(found).values()) == {"net"}
    assert set(coverage.rows(homes(("a", "pytorch", timed, "host", ""), ("a", "pytorch", accurate, "host", ""))).values()) == {
        "net",
        "net accuracy",
    }


def test_several_tests_of_a_model_are_rows_by_their_identifiers() -> None:
    pytorch = [selected("net", "pytorch", f"{count}-threads") for count in (1, 2)]
    caffe2 = selected("net", "caffe2", "2-threads")
    found = homes(*(("a", "pytorch", one, "host", "") for one in pytorch), ("b", "caffe2", caffe2, "host", ""))
    names = coverage.rows(found)
    assert names["pytorch", pytorch[1].digest] == names["caffe2", caffe2.digest] == "net 2-threads"
    assert names["pytorch", pytorch[0].digest] == "net 1-threads"


def test_benchmarks_that_share_all_their_names_are_rows_of_their_own() -> None:
    twins = [
        selected("net", "pytorch"),
        coverage.Selected(
            model.Benchmark({"name": "net", "a": 1}, {"identifier": "net", "metric": "delay"}), selected("x").selection
        ),
    ]
    names = coverage.rows(homes(*(("a", "pytorch", one, "host", "") for one in twins)))
    assert len(set(names.values())) == 2


TORCH, CAFFE2 = selected("net", "pytorch", "net-torch"), selected("net", "caffe2", "net-c2")
LAB = homes(
    ("engine", "pytorch", TORCH, "host", "mkl"),
    ("engine", "pytorch", TORCH, "host", "onednn"),
    ("fork", "pytorch", TORCH, "host", "mkl"),
    ("engine", "pytorch", TORCH, "phone", ""),
    ("c2", "caffe2", CAFFE2, "host", "mkl"),
    ("c2", "caffe2", CAFFE2, "phone", ""),
)
LAB.append(coverage.Home("c2", "caffe2", coverage.Cell(CAFFE2, device("host"), "dsp", "host offers only mkl")))


@pytest.mark.parametrize(
    ("benchmark", "place", "expected"),
    [
        ("net", "pytorch@host/mkl", [("engine", "host", "mkl"), ("fork", "host", "mkl")]),
        ("net", "fork@host/mkl", [("fork", "host", "mkl")]),
        ("net", "caffe2@host/mkl", [("c2", "host", "mkl")]),
        ("net-c2", "host/mkl", [("c2", "host", "mkl")]),
        ("net", "host/onednn", [("engine", "host", "onednn")]),
        ("net", "fork@host", [("fork", "host", "mkl")]),
        ("net", "pytorch@phone", [("engine", "phone", "")]),
    ],
)
def test_a_cell_is_found_by_as_little_as_tells_it(benchmark: str, place: str, expected: list[tuple[str, str, str]]) -> None:
    found = coverage.find(LAB, coverage.rows(LAB), benchmark, place)
    assert [(home.repository, home.cell.device.name, home.cell.backend) for home in found] == expected


@pytest.mark.parametrize(
    ("benchmark", "place", "error"),
    [
        ("nett", "host/mkl", "there is no model 'nett'; there is net"),
        ("net", "host/mkl", "'host/mkl' may be caffe2@host/mkl or pytorch@host/mkl; say which"),
        ("net", "pytorch@host", "may be pytorch@host/mkl or pytorch@host/onednn"),
        ("net", "host/cuda", "net has no cell 'host/cuda'; there is caffe2@host/dsp, caffe2@host/mkl"),
        ("net", "tablet", "net has no cell 'tablet'"),
        ("net", "caffe2@host/dsp", "caffe2@host/dsp cannot be measured: host offers only mkl"),
        ("net", "", "net has no cell ''"),
    ],
)
def test_a_cell_that_is_not_there_is_named_beside_those_that_are(benchmark: str, place: str, error: str) -> None:
    with pytest.raises(errors.CommandError) as raised:
        coverage.find(LAB, coverage.rows(LAB), benchmark, place)
    assert error in str(raised.value)


def side(place: str, of: list[coverage.Home] = LAB) -> tuple[coverage.Home, ...]:
    return coverage.find(of, coverage.rows(of), "net", place)


def test_two_cells_of_one_device_are_laid_side_by_side_test_by_test() -> None:
    ((one, other),) = coverage.side_by_side(side("fork@host/mkl"), side("caffe2@host/mkl"), coverage.rows(LAB))
    assert (one.repository, other.repository) == ("fork", "c2")


def test_a_cell_is_not_compared_with_itself() -> None:
    with pytest.raises(errors.CommandError, match="both are the cell pytorch@host/mkl of fork"):
        coverage.side_by_side(side("fork@host/mkl"), side("fork@host"), coverage.rows(LAB))


def test_cells_without_a_test_in_common_are_refused() -> None:
    tests = [selected("net", "pytorch", name) for name in ("a", "b")]
    found = homes(
        *(("engine", "pytorch", one, "host", "") for one in tests), ("c2", "caffe2", selected("net", "caffe2", "c"), "host", "")
    )
    with pytest.raises(errors.CommandError, match="no test of the model in common: net a, net b here, net c there"):
        coverage.side_by_side(side("pytorch@host", found), side("caffe2@host", found), coverage.rows(found))
