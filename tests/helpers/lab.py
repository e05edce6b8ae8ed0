"""JupyterLab on a copy of a workbook, for tests in a real browser."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = None if CHROMIUM else "no Chromium: install it (Debian: apt-get install chromium)"


def skip_or_fail(missing: str | None) -> None:
    """Skip a test that misses something, or fail where MEDSAM_NB_REQUIRE_BROWSER says that it must run."""
    if missing:
        (pytest.fail if os.environ.get("MEDSAM_NB_REQUIRE_BROWSER") else pytest.skip)(missing)


@contextmanager
def jupyterlab(root: Path) -> Iterator[str]:
    """Serve a folder by a JupyterLab that keeps its settings there; give its address."""
    settings = {"port": 0, "open_browser": False, "root_dir": str(root), "allow_root": True}
    app = {"ServerApp": settings, "IdentityProvider": {"token": ""}}
    app["LabApp"] = {"news_url": None, "expose_app_in_browser": True}
    config, log, runtime = root / "config", root / "server.log", root / "runtime"
    config.mkdir()
    (config / "jupyter_server_config.json").write_text(json.dumps(app), encoding="utf-8")
    quiet = root / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)  # no question about news over what a test looks at
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', encoding="utf-8")
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(root / "settings"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "jupyterlab", "--LabApp.news_url=None"]
    with log.open("wb") as stream:
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=stream, stderr=stream)
    try:
        yield _address(runtime, server, log)
    finally:
        server.terminate()
        server.wait(30)


def _address(runtime: Path, server: subprocess.Popen, log: Path) -> str:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            try:
                address = json.loads(path.read_text(encoding="utf-8"))["url"]
                urllib.request.urlopen(f"{address}api/status", timeout=5)
            except (ValueError, urllib.error.URLError):  # half written, or not listening yet
                continue
            return address
        time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")
