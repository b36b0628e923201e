"""What heat does to the frequencies that CPUs may run at, by what the kernel says of its cooling devices. Pure.

While it is hot the kernel tells a limit that heat has lowered in place of the one that was set, which nobody can ask for then.
"""

from __future__ import annotations

from collections.abc import Iterable

WHOSEVER = ("thermal-cpufreq-", "Processor")  # how types of cooling devices begin that lower CPUs and do not say which


def lowers(cooling: Iterable[tuple[str, str]], cpu: int) -> bool:
    """Whether it lowers a policy now.

    Args:
        cooling: the type and state of each cooling device; its state is 0 where it does nothing.
        cpu: the policy's first.
    """
    return any(
        kind == f"cpufreq-cpu{cpu}" or kind.startswith(WHOSEVER) for kind, state in cooling if state.isdecimal() and int(state)
    )


class Limits:
    """The highest frequencies of policies as they were set, in kHz: what is to be put back, however hot it is."""

    def __init__(self) -> None:
        self._cool: dict[str, int] = {}

    def own(self, policy: str, now: int, most: int, *, lowered: bool) -> int:
        """Of a policy that tells ``now``: where heat has ``lowered`` that, what it told when it was cool, else the hardware's."""
        if not lowered:
            self._cool[policy] = now
        return self._cool.get(policy, most)
