"""What a framework is to the rest of the house: how a benchmark becomes commands, and output becomes series.

A framework is one file with one class derived from :class:`Framework`, and one line under ``aibenchd.frameworks``.
It knows no device: all paths come to it ready, in a :class:`Place`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from aibenchd import model

STATED = "a row NET backend"  # the evidence where a framework knows none of its own


@dataclass(frozen=True, slots=True)
class Place:
    """Where things lie for one arm on one device: what placeholders are replaced by.

    Attributes:
        target_directory: ``{TGTDIR}``, on the device, ends in a slash.
        host_directory: ``{HOSTDIR}``, on this host, one for all repeats of an arm.
        build_directory: ``{BUILDDIR}``.
        programs: ``program`` and every other file of the build, by name, as paths on the device.
        files, input_files, output_files: by key, as paths on the device.
        host_files: the test's ``files`` and those of its pre- and postprocess, by key, as paths on this host.
        device_hash: ``{DEVICEHASH}``.
        backend: ``{backend}``, what the experiment asks for; empty where it leaves the choice to the program.
        index: ``{INDEX}``, the number of the repeat.
        extra_arguments: appended to each command that runs the program.
    """

    target_directory: str
    host_directory: str
    build_directory: str
    programs: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    input_files: Mapping[str, str] = field(default_factory=dict)
    output_files: Mapping[str, str] = field(default_factory=dict)
    host_files: Mapping[str, str] = field(default_factory=dict)
    device_hash: str = ""
    backend: str = ""
    index: int = 0
    extra_arguments: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a program's output said.

    Attributes:
        series: in the order in which they first appear; values of one key are gathered in one series.
        backend: what executed the network, by the program's own evidence; empty where it states none.
    """

    series: tuple[model.Series, ...]
    backend: str = ""


class Framework(abc.ABC):
    """Made once per process, without arguments. All methods are pure: no I/O, no state."""

    name: ClassVar[str]
    # What can be asked for -> the evidence by which a trial proves that it ran. Empty: it does not say; what a selection or a
    # device names is asked for, and the program has to state it (STATED), and is believed. Without evidence a trial failed.
    backends: ClassVar[Mapping[str, str]] = {}
    line: ClassVar[str] = ""  # what a program prints for a sample, shown where none could be read; empty: nothing is shown

    @abc.abstractmethod
    def commands(self, benchmark: model.Benchmark, place: Place) -> tuple[str, ...]:
        """The commands of one repeat, in a POSIX shell's language, all placeholders replaced.

        Raises:
            CommandError: the benchmark does not say what to run.
        """

    @abc.abstractmethod
    def parse(self, output: str, benchmark: model.Benchmark) -> Output:
        """Read all that the commands of one repeat printed. Rows that are not the protocol's are skipped, never an error."""
