"""Measurements as records: the native JSON objects that sinks deliver. Pure.

One object per metric. These fields are in every record; a field that does not apply is null.

====================== ==============================================================================================
``id``                 stable: a receiver that keeps ids sees each record once, however often it is sent
``kind``               ``verdict``: one metric of a decided experiment; ``samples``: one metric of one block
``time``               when it was decided, or when the block ended; all times are ISO 8601, UTC
``experiment``         number of the experiment within the installation
``block``              number of the block, from 0; null in a verdict
``run_type``           ``benchmark``, ``verify`` or ``regress``
``repository``         its name in the configuration
``commit``             the treatment; ``commit_time``
``control_commit``     the control, null where there is one arm; ``control_commit_time``
``framework``          that the builds are programs of; ``platform`` that they were built for
``device``             ``{"name", "hash", "fingerprint": {…}}``
``backend``            ``{"asked", "ran"}``: empty where the program chose, or gave no evidence of what ran
``model``              name of the network; ``group`` as its specification says
``benchmark``          identifier of the test; ``benchmark_digest`` tells two tests of one identifier apart
``benchmark_metric``   what the test measures: ``delay``, ``accuracy``, …
``key``                ``<type> <metric>``; ``type`` (``NET`` or an operator), ``metric``, ``unit``
``info_string``        what the program stated as text in place of numbers
``verdict``            of the metric that is decided on; null for the others, and in ``samples``
``estimate``           treatment / control - 1, with its interval ``low`` to ``high``; null where ``verdict`` is
``reason``             of the verdict, where the numbers do not say it
``alpha``              the rule: false alarms at most; with ``min_effect`` and ``blocks``, how many were analysed
``statistics``         ``{"treatment": {"p50": …}, "control": {…}, "diff": {…}}`` over all samples; diff is treatment - control
``num_runs``           how many samples the treatment's statistics are of
``values``             ``{"treatment": […], "control": […]}``: in ``samples``, the samples as they were taken; in a
                       ``verdict``, the median of each trial in order of blocks, for the trial is the unit of analysis
``user_identifier``    ``user`` too, from the configuration
``meta``               what the build and the specification add
====================== ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from aibenchd import model


@dataclass(frozen=True, slots=True)
class Commit:
    """One side of a comparison; ``time`` is aware, UTC."""

    id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Device:
    """What an experiment ran on.

    Attributes:
        hash: FAI-PEP's ``platform_hash``: what tells two devices of one kind apart, such as a serial number.
        fingerprint: of :meth:`aibenchd.devices.base.Session.fingerprint`.
    """

    name: str
    hash: str = ""
    fingerprint: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a record says of the experiment that it is of.

    Attributes:
        installation: UUID of the journal, by :func:`aibenchd.store.meta.installation`.
        id: of the experiment in that journal.
        control: None where the experiment has one arm.
        decided_on: key of the series that the verdict is about, such as ``NET latency``.
        platform: that its builds were made for.
        meta: what the build says of itself (``meta.json`` beside its script).
    """

    installation: str
    id: int
    repository: str
    run_type: model.RunType
    treatment: Commit
    control: Commit | None
    design: model.Design
    decided_on: str
    platform: str
    device: Device
    user_identifier: str = ""
    user: str = ""
    meta: model.JsonObject = field(default_factory=dict)


def verdict_records(
    experiment: Experiment,
    decision: model.Decision,
    series: Mapping[model.ArmName, Sequence[model.Series]],
    *,
    backend: str,
    time: datetime,
) -> list[model.Record]:
    """One record of kind ``verdict`` per metric of a decided experiment.

    Args:
        series: of each arm, those of all its valid trials in order of blocks; a key that each trial has comes once per trial.
        backend: what really ran, by the trials' evidence; empty where there is none.
        time: of the decision; aware, UTC.

    An experiment without samples (identical, broken) yields one record for the metric that is decided on.
    """
    raise NotImplementedError


def samples_records(experiment: Experiment, block: model.Block, *, time: datetime) -> list[model.Record]:
    """One record of kind ``samples`` per metric of a block, with what both arms measured; ``time`` is when the block ended."""
    raise NotImplementedError
