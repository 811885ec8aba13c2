"""The sign of these pages in a browser's tab, which browsers ask for by themselves: a cell and its nucleus."""

from fastapi import FastAPI, Response

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<circle cx="16" cy="16" r="15" fill="#2f6fb0"/><circle cx="18" cy="14" r="7" fill="#fff"/></svg>'
)


def add_icon(app: FastAPI) -> None:
    """Answer the address where browsers look for it."""

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(ICON, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=86400"})
