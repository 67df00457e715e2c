"""Neuron files on the Hub: a card, a push over HTTP, and files that are cached."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny
import yaml

from lm_eval_amplify.errors import NeuronFileError
from lm_eval_amplify.neurons import write_neurons
from lm_eval_amplify.neurons.share import card_of, push_neurons

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What of the Hub's interface a push needs, on this machine."""

    def __init__(self) -> None:  # noqa: C901
        self.repositories: list[dict] = []
        self.files: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def answer(self, content: object, status: int = 200) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                if status == 404:
                    self.send_header("X-Error-Code", "EntryNotFound")
                if self.command == "HEAD":
                    self.send_header("ETag", "abc")
                    self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def do_HEAD(self) -> None:
                name = self.path.partition("/resolve/main/")[2]
                self.answer({}, 200 if name in hub.files else 404)

            do_GET = do_HEAD  # noqa: N815

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/api/repos/create":
                    hub.repositories.append(json.loads(body))
                    self.answer({"url": f"{hub.endpoint}/org/repo", "name": "org/repo"})
                elif self.path.endswith("/preupload/main"):
                    files = [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in json.loads(body)["files"]
                    ]
                    self.answer({"files": files})
                elif self.path.endswith("/commit/main"):
                    for line in map(json.loads, body.splitlines()):
                        if line["key"] == "file":
                            hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    self.answer(
                        {
                            "success": True,
                            "commitOid": COMMIT,
                            "commitUrl": f"{hub.endpoint}/org/repo/commit/{COMMIT}",
                            "hookOutput": "",
                        }
                    )
                else:
                    self.answer({"errors": [], "warnings": []})

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    found = Hub()
    yield found
    found.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.neurons.safetensors"
    write_neurons(tiny.neurons("llama", ("ind_Latn", "quy_Latn"), name="org/model"), path)
    return path


def test_a_card_says_what_the_file_is_of_and_how_to_use_it(file: Path) -> None:
    _, front, text = card_of(file, "org/repo").split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "lm-eval-amplify",
        "tags": ["language-specific-neurons"],
        "base_model": "org/model",
        "language": ["id", "qu"],
    }
    assert "Neurons of org/model by language: Indonesian, Ayacucho Quechua." in text
    assert "neurons=hf://org/repo/m.neurons.safetensors" in text
    assert "num_layers" in text


def test_file_and_card_arrive_in_one_commit_and_a_card_that_is_there_is_kept(hub: Hub, file: Path) -> None:
    address = push_neurons(file, "org/repo", private=True, endpoint=hub.endpoint)
    assert address == f"hf://org/repo/{file.name}@{COMMIT}"
    assert hub.files == {file.name: file.read_bytes(), "README.md": card_of(file, "org/repo").encode()}
    assert hub.repositories[0]["visibility"] == "private"
    hub.files["README.md"] = b"mine"
    push_neurons(file, "org/repo", endpoint=hub.endpoint)
    assert hub.files["README.md"] == b"mine"
    assert hub.files["m.md"] == card_of(file, "org/repo").encode()


def test_what_cannot_be_pushed_is_one_line(file: Path, tmp_path: Path) -> None:
    with pytest.raises(NeuronFileError, match="repository 'repo': expected org/repo"):
        push_neurons(file, "repo")
    (tmp_path / "bad").write_bytes(b"no")
    with pytest.raises(NeuronFileError, match="not a safetensors file"):
        push_neurons(tmp_path / "bad", "org/repo")
    with pytest.raises(NeuronFileError, match=r"cannot push .* to org/repo: .*; log in with `hf auth login`") as caught:
        push_neurons(file, "org/repo", endpoint="http://127.0.0.1:9")
    assert "\n" not in str(caught.value)
