"""Bodies of responses, read as far as they may go: kilobytes on the wire can unpack to more than fits in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.teachers.protocol import TeacherError

if TYPE_CHECKING:
    import aiohttp


async def read_body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read a body of at most so many bytes, unpacked; aiohttp unpacks it in small pieces, as they are asked for.

    Of an error only the beginning is returned where it is larger: that says what it says.

    Raises:
        TeacherError: `permanent`, where any other one is larger.
    """
    size = response.content_length
    if size is not None and size <= most and "Content-Encoding" not in response.headers:
        return await response.read()  # the usual case, and the fastest
    pieces, left = [], most
    async for piece in response.content.iter_any():
        pieces.append(piece)
        left -= len(piece)
        if left < 0 and response.status < 300:
            raise too_large(most)
        if left < 0:
            break
    return b"".join(pieces)[:most]


def too_large(most: int) -> TeacherError:
    """Return the failure of a response, or a line of a batch's results, that is larger than allowed."""
    reason = f"the response is larger than {most / 10**6:g} MB, and no more of it was read (teacher.max_response_mb)"
    return TeacherError("permanent", reason, billed=True)
