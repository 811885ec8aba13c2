"""Pages of an application: asked for without a network, served from a thread, and opened in a real browser."""

import asyncio
import threading
from contextlib import contextmanager
from html.parser import HTMLParser

import httpx
import uvicorn

from phenolens.web.server import address_of, listening


class Page(HTMLParser):
    """A page's links, sources, texts of images and tags."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.images, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.tags.append((tag, named))
        self.links += [named[name] for name in ("href", "src") if name in named]
        self.images += [named] if tag == "img" else []

    def handle_data(self, text):
        self.text += text


class PageClient:
    """Asks the application itself, and keeps its cookies as a browser does."""

    def __init__(self, app, *, base="http://127.0.0.1"):
        self.app, self.base, self.cookies = app, base, httpx.Cookies()

    def request(self, method, path, **more):
        async def asked():
            through = httpx.ASGITransport(app=self.app, client=("10.0.0.1", 1))
            async with httpx.AsyncClient(transport=through, base_url=self.base, cookies=self.cookies) as client:
                answer = await client.request(method, path, **more)
                self.cookies = client.cookies
            return answer

        return asyncio.run(asked())

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, form=None, **more):
        return self.request("POST", path, data=form or {}, **more)

    def got(self, path, *statuses):
        """The answer, which must have one of these statuses; default: 200."""
        answer = self.get(path)
        assert answer.status_code in (statuses or (200,)), (path, answer.status_code, answer.text[:500])
        return answer


@contextmanager
def served_app(app):
    """The address under which an application is served meanwhile."""
    with listening(0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def page_of(browser, **more):
    """A page of a browser context of its own, and the errors that its console shows."""
    context = browser.new_context(**more)
    page, errors = context.new_page(), []
    page.on(
        "console", lambda message: errors.append(f"{message.text} {message.location}") if message.type == "error" else 0
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page, errors
    finally:
        context.close()


def fits(page):
    """Whether nothing stands beside the window."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
