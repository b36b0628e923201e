from __future__ import annotations

from pathlib import Path

import pytest

from aibenchd import model
from aibenchd.report import base, screen


async def shown(kind: type[base.Sink], records: list[model.Record]) -> base.Delivery:
    sink = kind(kind.Settings.model_validate({"name": "terminal", "kind": "screen"}), Path("/"))
    async with sink.outlet() as outlet:
        return await outlet.deliver(records)


def changed(record: model.Record, **fields: model.Json) -> model.Record:
    return model.Record(record.id, record.kind, model.canonical_json({**record.payload, **fields}))


async def test_verdict_is_a_line_with_effect_and_interval(
    verdicts: list[model.Record], capsys: pytest.CaptureFixture[str]
) -> None:
    assert await shown(screen.Screen, [*verdicts, model.Record("x", "samples", "{}")]) == base.Delivery(base.Answer.DONE)
    assert capsys.readouterr().out.splitlines() == [
        "REGRESSED    squeeze/1 on lab (mkl), measured again: NET latency +10.00% [+5.00%, +15.00%], 2 blocks, "
        "engine aaaaaaaaaaaa against bbbbbbbbbbbb",
        "             ID_0_Conv latency: 4.5 us",
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"run_type": "verify"}, "lab (mkl), measured again: NET"),
        ({"run_type": "regress", "regressed_types": ["NET latency"]}, "lab (mkl), confirmed ('aibenchctl findings'): NET"),
        ({"run_type": "regress"}, "lab (mkl), for a search: NET"),
        ({"run_type": "anchor"}, "lab (mkl), anchor: NET"),
        ({"run_type": "benchmark"}, "lab (mkl): NET"),
    ],
)
async def test_a_verdict_that_is_not_the_first_of_its_commit_says_so(
    fields: dict[str, model.Json], said: str, verdicts: list[model.Record], capsys: pytest.CaptureFixture[str]
) -> None:
    await shown(screen.Screen, [changed(verdicts[0], **fields)])
    assert said in capsys.readouterr().out


async def test_simple_screen_is_the_numbers_alone(verdicts: list[model.Record], capsys: pytest.CaptureFixture[str]) -> None:
    await shown(screen.SimpleScreen, verdicts)
    assert capsys.readouterr().out.splitlines() == ["squeeze/1 NET latency: 20.5 us", "squeeze/1 ID_0_Conv latency: 4.5 us"]


async def test_verdict_without_numbers_says_why(verdicts: list[model.Record], capsys: pytest.CaptureFixture[str]) -> None:
    broken = changed(
        verdicts[0],
        verdict="broken",
        reason="exit code 1",
        estimate=None,
        control_commit=None,
        statistics={"treatment": {}, "control": {}, "diff": {}},
    )
    await shown(screen.Screen, [broken])
    assert capsys.readouterr().out == (
        "BROKEN       squeeze/1 on lab (mkl), measured again: NET latency no samples, 2 blocks, "
        "engine aaaaaaaaaaaa: exit code 1\n"
    )


async def test_estimate_without_an_interval_stands_alone(
    verdicts: list[model.Record], capsys: pytest.CaptureFixture[str]
) -> None:
    await shown(screen.Screen, [changed(verdicts[0], low=None, high=None)])
    assert "NET latency +10.00%, 2 blocks" in capsys.readouterr().out


async def test_one_block_is_said_in_the_singular(verdicts: list[model.Record], capsys: pytest.CaptureFixture[str]) -> None:
    await shown(screen.Screen, [changed(verdicts[0], blocks=1)])
    assert ", 1 block, " in capsys.readouterr().out


async def test_nothing_steers_the_terminal(verdicts: list[model.Record], capsys: pytest.CaptureFixture[str]) -> None:
    await shown(screen.Screen, [changed(verdicts[0], benchmark="a\x1b[2J\nb\u202e")])
    assert capsys.readouterr().out.count("\n") == 1


async def test_closed_output_keeps_the_records(
    verdicts: list[model.Record], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
    assert (await shown(screen.Screen, verdicts)).answer is base.Answer.PAUSED
