"""Caffe2 from a push to coverage, in the real daemon: the specification that is delivered, on each backend that it has."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import caffe2env
import lab

SPECIFICATIONS = Path(__file__).parents[2] / "specifications"
SQUEEZENET = SPECIFICATIONS / "models/caffe2/squeezenet/squeezenet.json"
BACKENDS = ("eigen", "mkl", "nnpack", "onednn")
EVIDENCE = (
    "SELECT e.backend, r.text FROM results r JOIN experiments e ON e.id = r.experiment WHERE r.metric = 'evidence' ORDER BY 1"
)


async def test_one_network_on_four_backends(tmp_path: Path) -> None:
    """Each cell is measured, its outputs are the golden ones, and it is known what computed them."""
    python = await anyio.to_thread.run_sync(caffe2env.interpreter)
    made = lab.make(tmp_path)
    engine = {"name": "engine", "url": str(made.remote), "framework": "caffe2", "poll_interval": "200ms"}
    made.configure(
        repositories=[engine],
        builds={**made.configuration["builds"], "env": {"AIBENCHD_CAFFE2_PYTHON": str(python)}},
        models={"generators_directory": str(SPECIFICATIONS / "generators")},
        devices=[{"name": "host", "kind": "local", "backends": list(BACKENDS)}],
        benchmarks=[{"specification": str(SQUEEZENET), "backends": list(BACKENDS)}],
    )
    await anyio.to_thread.run_sync(_push, made)
    async with made.daemon():
        measured = [(backend, "measured") for backend in BACKENDS]
        await made.until("SELECT backend, verdict FROM experiments ORDER BY 1", measured, within=3 * lab.WAIT)
        await made.ready()
        coverage = (await made.ctl("coverage"))["coverage"]
    assert [(cell["column"], cell["state"]) for cell in coverage] == [
        (f"caffe2@host/{backend}", "measured") for backend in BACKENDS
    ]
    evidence = dict(await anyio.to_thread.run_sync(made.rows, EVIDENCE))
    assert {backend: text.split(" x ")[0] for backend, text in evidence.items()} == {
        "eigen": "eigen Conv",
        "mkl": "mkl SGEMM",
        "nnpack": "nnpack Conv",
        "onednn": "onednn convolution",
    }


def _push(made: lab.Lab) -> None:
    made.remote.mkdir()
    (made.remote / "engine.py").write_text("")
    lab.git(made.remote, "init", "-q", "-b", "main")
    lab.git(made.remote, "add", "-A")
    lab.git(made.remote, "commit", "-q", "-m", "first")
