"""What a Perfetto trace says of a program: the functions that samples found it in, and how its threads were scheduled.

Of the format only the fields that this needs are read (https://perfetto.dev/docs/reference/trace-packet-proto); their numbers
never change. The program is whatever runs below a shell whose command line has :data:`MARK` in it, as a word of its own; each
process that the shell makes is a run of it.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from aibenchd import errors

MARK = "aibenchd-arm"
HERTZ = 199  # of samples: Perfetto unwinds stacks while it runs, and loses them above 200
RUNNING, RUNNABLE, SLEEPING, BLOCKED = "running", "runnable, no CPU", "sleeping", "uninterruptible (I/O, page faults)"
MIGRATIONS, PREEMPTIONS = "migrations to another CPU", "preemptions"
LARGEST = 16 << 20  # bytes of a trace that is read, a megabyte a second
MOST = 1_500_000  # events that are held at once: 250 MB
KHZ_OF_MHZ = 1000
NANOSECONDS = 1e3  # of a microsecond

_SLEEPS, _BLOCKS, _GONE = 0x1 | 0x4 | 0x8, 0x2, 0x10 | 0x20 | 0x40  # of sched_switch's prev_state; the lowest bits never changed
_THREAD = 0x10000  # CLONE_THREAD
_CLEARED = 1  # of a packet's sequence_flags: what was interned before holds no longer
_TRUNCATED = "it ends in the middle of a field"


@dataclass(frozen=True, slots=True)
class Told:
    """Of one program.

    Attributes:
        samples: how often a stack was taken in each function, innermost only; empty where none could be.
        times: microseconds of all its threads in each state, and running on each CPU at each frequency.
        counts: how often what happened to them.
        processes: that it was run as, one after another; all else is of them together.
    """

    samples: Mapping[str, int]
    times: Mapping[str, float]
    counts: Mapping[str, float]
    processes: int = 1


def read(trace: bytes) -> Told:
    """Read a trace.

    Raises:
        CommandError: it is none, or says nothing of the program.
    """
    packets = _Packets()
    try:
        for packet in _only(_fields(trace), 1):
            packets.take(_bytes(packet))
    except _FormatError as error:
        raise errors.CommandError(f"expected a Perfetto trace: {error}") from error
    if not packets.marked:
        raise errors.CommandError("it does not tell what ran below what; the phone lets Perfetto see no processes")
    accounts = _Accounts(packets.program(), packets.marked, packets.runs())
    for event in sorted(packets.events):
        accounts.take(event)
    samples = collections.Counter(name for process, name in packets.samples if process in accounts.program)
    if not accounts.times and not samples:
        raise errors.CommandError(
            "it holds neither samples nor scheduling events of the program; the phone lets Perfetto see none"
        )
    return Told(dict(samples), dict(accounts.times), dict(accounts.counts), max(len(accounts.runs), 1))


class Event(NamedTuple):
    """Something that happened; they sort by ``time``, in nanoseconds. What ``of`` and ``value`` are, ``kind`` says."""

    time: int
    kind: int
    cpu: int
    of: int = 0
    value: int = 0


# In the order in which they count at one time. Of a new thread: its maker, and itself. Of a switch: who runs now, and in which
# state that left who ran before. Of a waking: who. Of a frequency, which the kernel told or was asked for: kHz. Of a loss,
# nothing: what ran on that CPU is no longer known.
_NEW, _LOST, _SWITCH, _WAKING, _FREQUENCY, _ASKED = range(6)


@dataclass(slots=True)
class _Interned:
    """What the packets of one sequence refer to by number."""

    functions: dict[int, str] = field(default_factory=dict)
    paths: dict[int, str] = field(default_factory=dict)
    mappings: dict[int, int] = field(default_factory=dict)  # the last of its path's parts
    frames: dict[int, tuple[int, int]] = field(default_factory=dict)  # function, mapping
    stacks: dict[int, int] = field(default_factory=dict)  # the innermost frame

    def take(self, data: bytes) -> None:
        for number, value in _fields(data):
            if number not in (5, 6, 7, 17, 19):
                continue
            one = _message(_bytes(value))
            key = _number(one.get(1, 0))
            if number in (5, 17):
                (self.functions if number == 5 else self.paths)[key] = _text(one.get(2, b""))
            elif number == 19:
                self.mappings[key] = _last(_bytes(value), 7)
            elif number == 6:
                self.frames[key] = (_number(one.get(2, 0)), _number(one.get(3, 0)))
            else:
                self.stacks[key] = _last(_bytes(value), 2)

    def innermost(self, stack: int) -> str:
        """The function that a stack ends in, as a profile names it."""
        function, mapping = self.frames.get(self.stacks.get(stack, 0), (0, 0))
        name = self.functions.get(function) or "[unknown]"
        path = self.paths.get(self.mappings.get(mapping, 0), "")
        return f"{name} ({PurePosixPath(path).name})" if path else name


class _Packets:
    """What is kept of packets, which come in no order.

    Attributes:
        marked: the shell that the program runs below.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.samples: list[tuple[int, str]] = []  # process, function
        self._interned: dict[int, _Interned] = collections.defaultdict(_Interned)
        self._parents: dict[int, int] = {}
        self._processes: dict[int, int] = {}  # by thread
        self.marked: set[int] = set()

    def take(self, data: bytes) -> None:
        packet = _message(data)
        sequence = _number(packet.get(10, 0))
        if packet.get(41) or _number(packet.get(13, 0)) & _CLEARED:
            self._interned.pop(sequence, None)
        if 12 in packet:
            self._interned[sequence].take(_bytes(packet[12]))
        if 1 in packet:
            self._of_kernel(_bytes(packet[1]))
        if 2 in packet:
            self._of_processes(_bytes(packet[2]))
        if 7 in packet:
            self._of_frequencies(_number(packet.get(8, 0)), _bytes(packet[7]))
        if 66 in packet:
            sample = _message(_bytes(packet[66]))
            if 4 in sample:
                name = self._interned[sequence].innermost(_number(sample[4]))
                self.samples.append((_number(sample.get(2, 0)), name))

    def runs(self) -> set[int]:
        """Processes that the shell made and that were told of."""
        return {child for child, parent in self._parents.items() if parent in self.marked}

    def program(self) -> dict[int, int]:
        """Threads of the program that were told of, with their processes; one is itself the first of its threads."""
        children = collections.defaultdict(list)
        for child, parent in self._parents.items():
            children[parent].append(child)
        below: set[int] = set()
        left = list(self.marked)
        while left:
            new = [child for child in children[left.pop()] if child not in below]
            below.update(new)
            left += new
        own = {process: process for process in below}
        return own | {thread: process for thread, process in self._processes.items() if process in below}

    def _of_processes(self, data: bytes) -> None:
        for number, value in _fields(data):
            if number == 1:
                words = [_text(word) for key, word in _fields(_bytes(value)) if key == 3]
                process = _message(_bytes(value))
                pid = _signed(process.get(1, 0))
                self._parents[pid] = _signed(process.get(2, 0))
                if MARK in words:
                    self.marked.add(pid)
            elif number == 2:
                thread = _message(_bytes(value))
                self._processes[_signed(thread.get(1, 0))] = _signed(thread.get(3, 0))

    def _of_frequencies(self, time: int, data: bytes) -> None:
        told = _numbers(_fields(data), 11)
        self._hold(Event(time, _ASKED, cpu, khz) for cpu, khz in enumerate(told) if khz)

    def _of_kernel(self, data: bytes) -> None:
        bundle = list(_fields(data))
        cpu = next((_number(value) for number, value in bundle if number == 1), 0)
        first = len(self.events)
        for number, value in bundle:
            if number == 2:
                self._hold(_events(cpu, _message(_bytes(value))))
            elif number == 4:
                self._hold(_compact(cpu, _bytes(value)))
        if any(number == 3 and value for number, value in bundle) and len(self.events) > first:
            self.events.append(Event(min(event.time for event in self.events[first:]), _LOST, cpu))

    def _hold(self, events: Iterable[Event]) -> None:
        """A single packet may have as many as the whole trace."""
        self.events += itertools.islice(events, MOST + 1 - len(self.events))
        if len(self.events) > MOST:
            raise errors.CommandError(f"more than {MOST:,} events are not read; profile fewer iterations")


def _events(cpu: int, event: Mapping[int, int | bytes]) -> Iterator[Event]:
    """An event of the kernel's, if it is one that counts here."""
    time = _number(event.get(1, 0))
    if 4 in event:
        switch = _message(_bytes(event[4]))
        yield Event(time, _SWITCH, cpu, _signed(switch.get(6, 0)), _signed(switch.get(4, 0)))
    elif 20 in event:
        yield Event(time, _WAKING, cpu, _signed(_message(_bytes(event[20])).get(2, 0)))
    elif 11 in event:
        told = _message(_bytes(event[11]))
        yield Event(time, _FREQUENCY, _number(told.get(2, 0)), _number(told.get(1, 0)))
    elif 235 in event:
        new = _message(_bytes(event[235]))
        maker, thread = _signed(event.get(2, 0)), _signed(new.get(1, 0))
        # A thread's number fits below: which of the two it is, a thread or a process, is told with it.
        yield Event(time, _NEW, cpu, maker, thread << 1 | bool(_number(new.get(3, 0)) & _THREAD))


def _compact(cpu: int, data: bytes) -> Iterator[Event]:
    """Switches and wakings as newer ones pack them: a row of numbers for each of their fields, times as differences."""
    fields = list(_fields(data))
    times, states, nexts, wakings, woken = (_numbers(fields, number) for number in (1, 2, 3, 7, 8))
    if not len(times) == len(states) == len(nexts) or len(wakings) != len(woken):
        raise _FormatError("rows of scheduling events are not of one length")
    for time, state, now in zip(itertools.accumulate(times), states, nexts, strict=True):
        yield Event(time, _SWITCH, cpu, _signed(now), _signed(state))
    for time, thread in zip(itertools.accumulate(wakings), woken, strict=True):
        yield Event(time, _WAKING, cpu, _signed(thread))


class _Accounts:
    """How the threads of a program spent their time, from events in their order.

    Attributes:
        program: its threads so far, with their processes; more as it makes them.
        runs: those of its processes that the shell makes.
    """

    def __init__(self, program: Mapping[int, int], shells: set[int], runs: set[int]) -> None:
        self.program, self.runs = dict(program), set(runs)
        self._shells = shells  # that it runs below
        self.times: dict[str, float] = collections.defaultdict(float)
        self.counts: dict[str, float] = collections.defaultdict(float)
        self._running: dict[int, tuple[int, int]] = {}  # by CPU: who, since when
        self._waiting: dict[int, tuple[str, int]] = {}  # by thread: in which state, since when
        self._frequencies: dict[int, int] = {}  # kHz
        self._told: set[int] = set()  # CPUs whose frequency the kernel tells
        self._cpus: dict[int, int] = {}  # where each thread ran last

    def take(self, event: Event) -> None:
        if event.kind == _SWITCH:
            self._stop(event)
            self._start(event)
        elif event.kind == _WAKING:
            if self._waiting.get(event.of, (RUNNABLE, 0))[0] != RUNNABLE:
                self._wait(event.of, RUNNABLE, event.time)
        elif event.kind in (_FREQUENCY, _ASKED):
            self._tune(event)
        elif event.kind == _NEW:
            thread, of_process = event.value >> 1, bool(event.value & 1)
            if event.of in self.program or event.of in self._shells:
                self.program[thread] = self.program[event.of] if of_process else thread
                self._waiting[thread] = (RUNNABLE, event.time)
            if event.of in self._shells and not of_process:
                self.runs.add(thread)
        else:
            self._running.pop(event.cpu, None)

    def _tune(self, event: Event) -> None:
        """What the kernel tells is exact; what it is asked for may be the frequency of a moment ago."""
        if event.kind == _ASKED and event.cpu in self._told:
            return
        self._account(event)
        self._frequencies[event.cpu] = event.of
        if event.kind == _FREQUENCY:
            self._told.add(event.cpu)

    def _stop(self, event: Event) -> None:
        """Whoever ran on the CPU until now."""
        self._account(event)
        thread, _ = self._running.pop(event.cpu, (0, 0))
        if thread not in self.program:
            return
        if event.value & _GONE:
            self._waiting.pop(thread, None)
        elif event.value & (_SLEEPS | _BLOCKS):
            self._wait(thread, BLOCKED if event.value & _BLOCKS else SLEEPING, event.time)
        else:
            self.counts[PREEMPTIONS] += 1
            self._wait(thread, RUNNABLE, event.time)

    def _start(self, event: Event) -> None:
        """Whoever runs on the CPU from now."""
        self._running[event.cpu] = (event.of, event.time)
        if event.of not in self.program:
            return
        self._leave(event.of, event.time)
        self.counts[MIGRATIONS] += self._cpus.get(event.of, event.cpu) != event.cpu
        self._cpus[event.of] = event.cpu

    def _account(self, event: Event) -> None:
        """Whoever runs on the CPU, up to now, at the frequency that it had until now."""
        thread, since = self._running.get(event.cpu, (0, 0))
        if thread in self.program:
            microseconds = (event.time - since) / NANOSECONDS
            khz = self._frequencies.get(event.cpu, 0)
            self.times[RUNNING] += microseconds
            self.times[f"on CPU {event.cpu}" + (f" at {khz // KHZ_OF_MHZ} MHz" if khz else "")] += microseconds
            self._running[event.cpu] = (thread, event.time)

    def _wait(self, thread: int, state: str, time: int) -> None:
        self._leave(thread, time)
        self._waiting[thread] = (state, time)

    def _leave(self, thread: int, time: int) -> None:
        state, since = self._waiting.pop(thread, ("", time))
        if state:
            self.times[state] += (time - since) / NANOSECONDS


class _FormatError(Exception):
    """What is read is no trace; the message says what was found."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise _FormatError("a number is longer than ten bytes")
    raise _FormatError(_TRUNCATED)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, in their order, by their numbers (https://protobuf.dev/programming-guides/encoding)."""
    at, size = 0, len(data)
    while at < size:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _FormatError(f"a field of the unknown kind {kind}")
        if at + length > size:
            raise _FormatError(_TRUNCATED)
        part = data[at : at + length]
        at += length
        yield tag >> 3, part if kind == 2 else int.from_bytes(part, "little")


def _only(fields: Iterable[tuple[int, int | bytes]], wanted: int) -> Iterator[int | bytes]:
    """The values of a message that has one field, again and again."""
    for number, value in fields:
        if number != wanted:
            raise _FormatError(f"field {number} where only {wanted} is expected")
        yield value


def _message(data: bytes) -> dict[int, int | bytes]:
    """A message's fields by their numbers; of one that is there again and again, the last."""
    return dict(_fields(data))


def _numbers(fields: Iterable[tuple[int, int | bytes]], wanted: int) -> list[int]:
    """A repeated number, packed or not."""
    found: list[int] = []
    for number, value in fields:
        if number != wanted:
            continue
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            one, at = _varint(value, at)
            found.append(one)
    return found


def _last(data: bytes, number: int) -> int:
    """The last of a repeated number; 0 where there is none."""
    return (_numbers(_fields(data), number) or [0])[-1]


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _FormatError("a number where a message is expected")
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise _FormatError("a message where a number is expected")
    return value


def _signed(value: int | bytes) -> int:
    """A number that may be negative, which is told in two's complement of 64 bits."""
    number = _number(value)
    return number - (1 << 64) if number >> 63 else number


def _text(value: int | bytes) -> str:
    return _bytes(value).decode(errors="replace")
