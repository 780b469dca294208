"""handler.py of a published repository over HTTP: every form of a video, errors as JSON, many at a time."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from models import tiny_stica, tiny_tvts
from videossl_hf import STiCAForPreTraining, STiCAForVideoClassification, TVTSForPreTraining
from videossl_hf.hub.push import plan_upload

KINDS = {
    "features": (STiCAForPreTraining, tiny_stica),
    "classes": (STiCAForVideoClassification, tiny_stica),
    "texts": (TVTSForPreTraining, tiny_tvts),
}


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Address of an endpoint by kind, each of what `videossl push` would publish."""
    folders = []
    for kind, (model_class, parts) in KINDS.items():
        torch.manual_seed(0)
        run = tmp_path_factory.mktemp(kind)
        model_class(parts.make_config()).save_pretrained(run)
        parts.make_processor().save_pretrained(run)
        published = tmp_path_factory.mktemp(f"published-{kind}")
        upload = plan_upload(run, f"alice/{kind}")
        for name in upload.files:
            (published / name).write_bytes(upload.content(name))
        folders.append(str(published))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["HF_HOME"] = str(tmp_path_factory.mktemp("home"))
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("endpoint.py")), *folders],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ports = json.loads(process.stdout.readline())
    yield {kind: f"http://127.0.0.1:{port}" for kind, port in zip(KINDS, ports, strict=True)}
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def video(clip_with_sound: Path) -> bytes:
    return clip_with_sound.read_bytes()


@pytest.fixture(scope="module")
def encoded(video: bytes) -> str:
    return base64.b64encode(video).decode()


def post(url: str, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_it_is_healthy(endpoints: dict[str, str]) -> None:
    for path in ("/", "/health"):
        with urllib.request.urlopen(endpoints["features"] + path, timeout=10) as response:
            assert response.read() == b"Ok"


def test_every_form_of_a_video_gets_the_same_answer(
    endpoints: dict[str, str], video: bytes, encoded: str, clip_with_sound: Path
) -> None:
    url = endpoints["features"]
    status, expected = post(url, video, "video/mp4")
    assert (status, len(expected["features"])) == (200, 24)
    folder = functools.partial(http.server.SimpleHTTPRequestHandler, directory=clip_with_sound.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{clip_with_sound.name}"
        for inputs in (encoded, f"data:video/mp4;base64,{encoded}", address):
            assert post(f"{url}/predict", {"inputs": inputs}) == (200, expected)
        status, answer = post(url, {"inputs": f"{address}.absent"})
        server.shutdown()
    assert status == 400
    assert "404" in answer["error"]


def test_parameters_are_those_of_the_pipelines(endpoints: dict[str, str], encoded: str) -> None:
    settings = {"window_seconds": 1, "batch_size": 2}
    status, windows = post(
        endpoints["features"], {"inputs": encoded, "parameters": settings | {"audio": True}}
    )
    assert status == 200
    assert [(window["start"], window["end"]) for window in windows] == [(0, 1), (1, 2), (2, 3)]
    assert windows[0].keys() == {"start", "end", "features", "audio_features"}
    status, classes = post(endpoints["classes"], {"inputs": encoded, "parameters": {"top_k": 2}})
    assert [set(row) for row in classes] == [{"label", "score"}] * 2
    status, windows = post(endpoints["classes"], {"inputs": encoded, "parameters": settings})
    assert len(windows) == 3
    named = {"candidate_labels": ["left", "right"], "hypothesis_template": "it moves {}"}
    status, classes = post(endpoints["texts"], {"inputs": encoded, "parameters": named})
    assert {row["label"] for row in classes} == {"left", "right"}
    status, features = post(endpoints["texts"], {"inputs": encoded})
    assert len(features["features"]) == 24


@pytest.mark.parametrize(
    ("kind", "request_", "problem"),
    [
        ("features", {"video": "x"}, "a request is"),
        ("features", [1], "a request is"),
        ("features", {"inputs": 5}, "inputs must be the bytes"),
        ("features", {"inputs": "/etc/passwd"}, "neither an http"),
        ("features", {"inputs": "file:///etc/passwd"}, "neither an http"),
        ("features", {"inputs": "bm8gdmlkZW8="}, "cannot decode"),
        ("features", {"inputs": "http://127.0.0.1:9/"}, "cannot download"),
        ("features", {"inputs": "", "parameters": [1]}, "parameters must be"),
        ("features", {"inputs": None, "parameters": {"frames": 1}}, "inputs must be"),
        ("features", {"inputs": "CLIP", "parameters": {"frames": 1}}, "no setting frames"),
        ("features", {"inputs": "CLIP", "parameters": {"window_seconds": "x"}}, "positive number"),
        ("features", {"inputs": "CLIP", "parameters": {"window_seconds": 1, "batch_size": 99}}, "1 to 16"),
        ("features", {"inputs": "CLIP", "parameters": {"candidate_labels": ["a"]}}, "does not read"),
        ("classes", {"inputs": "CLIP", "parameters": {"top_k": -1}}, "top_k must be"),
        ("texts", {"inputs": "CLIP", "parameters": {"candidate_labels": []}}, "give candidate_labels"),
        ("texts", {"inputs": "CLIP", "parameters": {"candidate_labels": [1]}}, "are texts"),
        ("texts", b"{", "Expecting"),
    ],
)
def test_what_is_wrong_is_said_as_json(
    kind: str, request_: Any, problem: str, endpoints: dict[str, str], encoded: str
) -> None:
    if isinstance(request_, dict) and request_.get("inputs") == "CLIP":
        request_ = request_ | {"inputs": encoded}
    status, answer = post(endpoints[kind], request_)
    assert status == 400
    assert problem in answer["error"]


def test_many_requests_at_a_time_get_their_own_answers(endpoints: dict[str, str], encoded: str) -> None:
    """Eight at a time, each with other labels; one that fails disturbs no other."""
    words = ["left", "right", "up", "down", "grows", "shrinks"]
    requests = [
        {"inputs": encoded, "parameters": {"candidate_labels": [word, words[number - 1]]}}
        for number, word in enumerate(words)
    ]
    requests.append({"inputs": "bm8gdmlkZW8="})
    expected = [post(endpoints["texts"], request) for request in requests]
    assert [status for status, _ in expected] == [200] * len(words) + [400]
    started = time.perf_counter()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda request: post(endpoints["texts"], request), requests * 6))
    assert answers == expected * 6
    print(f"{len(answers) / (time.perf_counter() - started):.1f} requests a second, 8 at a time")
