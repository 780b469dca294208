"""The Space's page in a browser: a clip is uploaded, the button pressed, the answer read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import tiny_ila, tiny_stica
from videossl_hf import ILAForVideoClassification, STiCAForPreTraining
from videossl_hf.hub.space_files import plan_space
from webdriver import browser, has_browser

pytestmark = pytest.mark.slow

TEXTS = "[...document.querySelectorAll('#texts')].filter(e => e.offsetHeight > 0)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the app, started from the files that would be published, with tiny models."""
    pytest.importorskip("gradio")
    if not has_browser():
        pytest.skip("chromium and chromedriver are not installed")
    folder = tmp_path_factory.mktemp("space")
    for model_class, parts in ((STiCAForPreTraining, tiny_stica), (ILAForVideoClassification, tiny_ila)):
        torch.manual_seed(0)
        name = folder / model_class.config_class.model_type
        model_class(parts.make_config()).save_pretrained(name)
        parts.make_processor().save_pretrained(name)
    for name, source in plan_space("alice/shapes", "mit").items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    app = folder / "app.py"
    app.write_text(app.read_text().replace('["alice/shapes"]', '["stica", "ila"]'))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=os.environ | settings)
    address = f"http://127.0.0.1:{port}/"
    for _ in range(600):
        assert process.poll() is None, "the app has ended"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(timeout=20)


def test_a_real_clip_gets_its_answer(page: str, clip_with_sound: Path, tmp_path: Path) -> None:
    media = os.environ.get("VIDEOSSL_MEDIA")
    clip = Path(media) / "clips" / "basketball.mp4" if media else clip_with_sound
    with browser() as window:
        window.open(page)
        window.wait_for("return document.querySelector('#clip input[type=file]') !== null")
        window.wait_for("return document.querySelector('#look') !== null")
        window.run("document.querySelector('#look').click()")
        window.wait_for("return document.body.innerText.includes('choose or record a clip first')")
        window.type_into("#clip input[type=file]", str(clip))
        window.wait_for("return document.querySelector('#clip video') !== null")
        window.run("document.querySelector('#look').click()")
        below = "document.querySelector('#below').innerText"
        said = window.wait_for(f"return {below}.includes('decoding') && {below}")
        assert "Classes by the 4 nearest clips of the gallery" in said
        shown = "return [...document.querySelectorAll('#nearest img, #nearest video')].length"
        assert window.wait_for(shown) >= 4
        assert window.wait_for("return document.querySelector('#picture img')?.naturalWidth") > 300
        assert "%" in window.run("return document.querySelector('#classes').innerText")
        assert "Rows are moments of the clip" in window.run(
            "return document.querySelector('#caption').innerText"
        )
        clips = "const e = document.querySelector('#nearest .grid-wrap')"
        assert window.run(f"{clips}; return e.scrollHeight - e.clientHeight") <= 2, "no clip is hidden"
        wide = "document.documentElement"
        assert window.run(f"return {wide}.scrollWidth <= {wide}.clientWidth"), "nothing lies beside the page"
        assert window.run(f"return {TEXTS}.length") == 0, "this model reads no names"
        screenshot = Path(os.environ.get("VIDEOSSL_SCREENSHOT", tmp_path / "space.png"))
        window.screenshot(screenshot)
        assert screenshot.stat().st_size > 20_000
