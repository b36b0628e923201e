"""``aibenchctl``: asks a running aibenchd. Standard library only, and as quick to start as a bare interpreter nearly is."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from aibenchd.api import call, commandline, commands, screen

ABOUT = """\
Asks a running aibenchd.

exit codes:
  0  done; 'ab --wait': unchanged or improved; 'compare --wait': the first cell is as fast as the second, or faster
  1  'ab --wait': regressed or broken; 'compare --wait': the first cell is slower
  2  with --wait: inconclusive, or not all of it could be measured
     ('submit --wait' and 'watch' as 'ab --wait'; of one program: measured, or not;
     'finding --watch': 0 refuted, accepted or mended, 1 it stands, 2 neither confirmed nor refuted)
  3  the command line is wrong, or the daemon refuses
  4  no daemon answers"""
INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; its exit code."""
    try:
        code = run(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
    except (commandline.Misuse, call.Refused) as error:
        return _fail(commandline.REFUSED, error)
    except call.Unreachable as error:
        return _fail(commandline.UNREACHABLE, error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read it has seen enough. What is still buffered goes nowhere, so that nothing complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return commandline.DONE
    return code


def run(words: Sequence[str]) -> int:
    """One command line; its exit code.

    Raises:
        commandline.Misuse: it is no command line of ours.
        call.Refused, call.Unreachable: the daemon will not, or does not answer.
    """
    asked = commandline.Call(words, commands.COMMANDS)
    if asked.flag("version"):
        from aibenchd import __version__

        print(f"aibenchctl {__version__}")
    elif asked.flag("help") or not asked.name:
        print(usage_of(asked.name) if asked.name else overview())
    else:
        asked.check()
        try:
            return asked.command.run(asked)
        except call.Refused as error:
            raise call.Refused(error.code, screen.pasteable(str(error), asked.program), error.retry_after) from None
    return commandline.DONE


def overview() -> str:
    """What ``--help`` prints."""
    width = max(len(f"{name} {command.arguments}") for name, command in commands.COMMANDS.items()) + 2
    lines = [f"  {f'{name} {command.arguments}':{width}}{command.about}" for name, command in commands.COMMANDS.items()]
    afar = "  -H, --host ADDRESS  ssh://[USER@]HOST[:PORT]: the daemon there, through your own ssh (default: $AIBENCHD_HOST)"
    general = "  -s, --socket PATH   socket of the daemon (default: $AIBENCHD_SOCKET, else /run/aibenchd/aibenchd.sock)"
    more = "  --json              print what the daemon sent\n  COMMAND --help      a command's options, an example, exit codes"
    return "\n".join(
        (
            "usage: aibenchctl [-H ADDRESS] [-s PATH] [--json] COMMAND …",
            "",
            ABOUT,
            "",
            "commands:",
            *lines,
            "",
            "options:",
            afar,
            general,
            more,
        )
    )


def usage_of(name: str) -> str:
    """What ``NAME --help`` prints."""
    from aibenchd.api import manual

    return manual.usage(name, commandline.Call([name], commands.COMMANDS).command, commandline.GENERAL)


def _fail(code: int, error: Exception) -> int:
    print(f"aibenchctl: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
