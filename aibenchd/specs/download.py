"""HTTP downloads that resume, have a size limit, and give up only after several tries."""

from __future__ import annotations

import ipaddress
import random
import socket
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import structlog

from aibenchd import backoff, errors, redaction
from aibenchd.specs import content, progress, trees

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 5
FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 30.0  # seconds
LONGEST = 6 * 3600.0  # seconds, of one file with all its tries
REDIRECTS = 5  # that are followed, one after the other
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})

log = structlog.get_logger()


class _TryAgainError(Exception):
    """This try failed in a way that the next may not."""


class Downloader:
    """Downloads into a :class:`~aibenchd.specs.content.Partial`.

    Args:
        max_size: bytes, of one file.
        stall: seconds without a byte after which a try is given up.
        first_pause: seconds after the first try that failed; doubled after each.
    """

    def __init__(self, max_size: int, stall: float, first_pause: float = FIRST_PAUSE) -> None:
        self._max_size, self._stall, self._first_pause = max_size, stall, first_pause

    async def download(self, url: str, partial: content.Partial, told: progress.Told) -> None:
        """Have all bytes of ``url`` in ``partial``, going on from those that are there; ``told`` of each piece.

        Raises:
            ModelFileError: the server refuses it, or it is too large.
            SourceAwayError: no try came to its end.
        """
        pauses = backoff.Backoff(self._first_pause, LONGEST_PAUSE, random.Random())  # noqa: S311  jitter
        shown = redaction.text(url)
        reason = f"took longer than {LONGEST:.0f} s"
        with anyio.move_on_after(LONGEST):
            for left in reversed(range(ATTEMPTS)):
                try:
                    return await self._try(url, partial, told)
                except _TryAgainError as error:
                    reason = redaction.text(str(error))
                    log.info("a download broke off", url=shown, reason=reason, bytes=partial.size, tries_left=left)
                if left:
                    await anyio.sleep(pauses.next())
        raise errors.SourceAwayError(f"cannot be downloaded: {reason}; {partial.size} bytes are kept to go on from")

    async def _try(self, url: str, partial: content.Partial, told: progress.Told) -> None:
        client = await anyio.to_thread.run_sync(_client, self._stall)
        import httpx  # loaded by then

        headers = {"Accept-Encoding": "identity"}
        if partial.size:
            headers["Range"] = f"bytes={partial.size}-"
        try:
            async with client, client.stream("GET", url, headers=headers) as response:
                total = self._accept(response, partial)
                async for chunk in response.aiter_raw():
                    self._within_limit(partial.size + len(chunk))
                    await anyio.to_thread.run_sync(partial.write, chunk)
                    told(partial.size, total)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:  # a name by IDNA
            raise errors.ModelFileError(f"cannot be downloaded: {redaction.text(str(error))}") from error
        except (httpx.HTTPError, ExceptionGroup) as error:  # a group: a port that no connection can have
            raise _TryAgainError(f"{type(error).__name__} {error}".strip()) from error

    def _accept(self, response: httpx.Response, partial: content.Partial) -> int | None:
        """Judge the head of a response, and begin anew where it does not go on from what is there; bytes in all, if it says."""
        answer = f"{response.status_code} {response.reason_phrase}"
        if response.status_code == 416 or response.status_code in BUSY:
            if response.status_code == 416:
                partial.restart()
            raise _TryAgainError(answer)
        if response.status_code not in {200, 206}:
            raise errors.ModelFileError(f"answers {answer}; mend its location, or what may be read there")
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {partial.size}-")
        if response.status_code == 200 or not goes_on:
            partial.restart()
        if response.status_code == 206 and not goes_on:
            raise _TryAgainError("answered with another range than was asked for")
        length = response.headers.get("Content-Length", "")
        total = partial.size + int(length) if length.isdecimal() else None
        self._within_limit(total or 0)
        return total

    def _within_limit(self, size: int) -> None:
        if size > self._max_size:
            raise errors.ModelFileError(trees.too_large(self._max_size))


def _client(stall: float) -> httpx.AsyncClient:
    """Made in a thread: reading the certificates takes longer than the event loop should wait."""
    import httpx

    hooks = {"response": [_judge_redirect]}
    return httpx.AsyncClient(timeout=stall, follow_redirects=True, max_redirects=REDIRECTS, event_hooks=hooks)


async def _judge_redirect(response: httpx.Response) -> None:
    """See that a redirect keeps to the scheme or leads to https, and does not lead from elsewhere to what only this host sees.

    What is secret in the location goes to no other origin: httpx takes it away.

    Raises:
        ModelFileError: it does not, or leads there.
    """
    if not response.has_redirect_location:
        return
    origin, target = response.url, response.url.join(response.headers["Location"])
    moves = target.host != origin.host and _is_near(target.host)
    if moves or target.scheme not in ("https", origin.scheme):
        leads = redaction.text(f"{origin} leads to {target}")
        raise errors.ModelFileError(f"cannot be downloaded: {leads}, which is not followed; name that address if it is meant")


def _is_near(host: str) -> bool:
    """Whether a name or an address is plainly of this host, or of its link alone, where clouds answer with their secrets."""
    address = _address(host)
    if address is None:
        name = host.removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """As connections take it: of version 4 in any of its spellings (``127.1``, ``0x7f000001``), and within one of version 6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host.removesuffix(".")))
        except (OSError, ValueError):
            return None
    return getattr(address, "ipv4_mapped", None) or address
