"""Files that a page hands over to be kept."""

from fastapi import Response


def download(content: bytes, kind: str, name: str) -> Response:
    """A file of this media type under a name; letters that some system does not take in names become dashes."""
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-@") else "-" for letter in name)
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{safe}"'})
