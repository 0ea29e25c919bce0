"""Serves the page of a run in progress to this machine's own browser.

The page is made anew when the run folder changed, and asks every few seconds whether it
did. Only the loopback address is bound, and only requests that name it are answered, so
that neither the network nor a foreign page that points its own name here can read it.
"""

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bmjax.report.run import run_page

ADDRESS = "127.0.0.1"
WATCHED = (
    *("metrics.jsonl", "experiment.json", "split.json"),
    *("validation/summary.json", "validation/files.json"),
)
ASK_AGAIN_MS = 3000
_SCRIPT = """<script>
{
  const made = "VERSION";
  sessionStorage.scroll && scrollTo(0, Number(sessionStorage.scroll));
  setInterval(async () => {
    const now = await fetch("/version").then((r) => r.text()).catch(() => made);
    if (now === made) return;
    sessionStorage.scroll = scrollY;
    location.reload();
  }, PAUSE);
}
</script></body>"""


def version_of(run: Path) -> str:
    """What changes whenever the page of a run would."""
    stamps = []
    for name in WATCHED:
        path = run / name
        if path.is_file():
            facts = path.stat()
            stamps.append(f"{facts.st_mtime_ns:x}-{facts.st_size:x}")
    return ".".join(stamps) or "empty"


class RunPage:
    """The page of a run, drawn again only when the run went on."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._version, self._content = "", b""

    def version(self) -> str:
        """What the run folder holds now."""
        return version_of(self._run)

    def content(self) -> bytes:
        """The page as it is now, with the script that asks for newer ones."""
        with self._lock:
            version = self.version()
            if version != self._version:
                script = _SCRIPT.replace("VERSION", version)
                script = script.replace("PAUSE", str(ASK_AGAIN_MS))
                text = run_page(self._run).to_html().replace("</body>", script)
                self._version, self._content = version, text.encode()
            return self._content


def server(run: str | Path, *, port: int = 0) -> ThreadingHTTPServer:
    """A server of the run's page on the loopback address; not yet serving.

    Args:
      run: run folder.
      port: where to listen; 0 takes a free one, see its `server_port`.

    Raises:
      FileNotFoundError: there is no such folder.
      OSError: the port is taken.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run folder")
    return ThreadingHTTPServer((ADDRESS, port), _handler(RunPage(run)))


def _handler(page: RunPage) -> type[BaseHTTPRequestHandler]:
    answers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "/": ("text/html; charset=utf-8", page.content),
        "/version": ("text/plain; charset=utf-8", lambda: page.version().encode()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in (ADDRESS, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN, "only for this machine itself")
                return
            if self.path not in answers:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            kind, content = answers[self.path]
            body = content()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests of one reader are no news."""

    return Handler
