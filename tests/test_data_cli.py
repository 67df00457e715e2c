"""``lm-eval-amplify data``: a mirror made of what the Hub has, and one verified."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets
import pytest
import toy_benchmarks
import toy_tasks
from task_tools import built, hub_folder, ours

from lm_eval_amplify import cli


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return toy_benchmarks.write_mirror(toy_tasks.write_mirror(tmp_path_factory.mktemp("rows")))


@pytest.fixture
def hub(rows, tmp_path, monkeypatch):
    """A working directory where the Hub's names are local folders of its form, read by the real ``load_dataset``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LM_EVAL_AMPLIFY_DATA_DIR", "/nowhere")  # a mirror is made from the Hub whatever is in force

    def splits(path):
        return {one.stem: datasets.Dataset.from_json(str(one)) for one in sorted((rows / path).glob("*.jsonl"))}

    hub_folder(
        tmp_path, "cambridgeltl/xcopa", {config: splits(f"cambridgeltl/xcopa/{config}") for config in ("id", "zh")}
    )
    hub_folder(tmp_path, "Muennighoff/xwinograd", {"ru": splits("Muennighoff/xwinograd/ru")})
    texts = {code: toy_benchmarks.FLORES[own] for code, own in (("cmn_Hans", "zho_Hans"), ("jav_Latn", "jav_Latn"))}
    sentences = {
        code: {"devtest": datasets.Dataset.from_list([{"id": i, "text": text} for i, text in enumerate(own, start=1)])}
        for code, own in texts.items()
    }
    hub_folder(tmp_path, "openlanguagedata/flores_plus", sentences)
    return tmp_path


@pytest.fixture
def data(monkeypatch, capsys):
    def run(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["lm-eval-amplify", "data", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_mirror_of_tasks_holds_their_splits_and_gives_their_requests(data, hub, rows):
    out = hub / "out"
    tasks = "amplify_xcopa_ind_Latn,amplify_xwinograd_rus*,amplify_flores_ppl_zho_Hans"
    status, printed, err = data("mirror", "--tasks", tasks, "--flores", "Javanese", "--out", out)
    assert status == 0, err
    assert files(out) == [
        "Muennighoff/xwinograd/ru/test.jsonl",
        "cambridgeltl/xcopa/id/test.jsonl",
        "cambridgeltl/xcopa/id/validation.jsonl",
        "openlanguagedata/flores_plus/cmn_Hans/devtest.jsonl",
        "openlanguagedata/flores_plus/jav_Latn/devtest.jsonl",
    ]
    assert f"{out}/cambridgeltl/xcopa/id/test.jsonl: 5 rows\n    warning: 5 rows, while test of" in printed
    for folder, name in (("xcopa", "amplify_xcopa_ind_Latn"), ("xwinograd", "amplify_xwinograd_rus_Cyrl"),
                         ("flores_ppl", "amplify_flores_ppl_zho_Hans")):  # fmt: skip
        assert built(ours(folder, name, out)) == built(ours(folder, name, rows))
    columns = json.loads((out / "openlanguagedata/flores_plus/cmn_Hans/devtest.jsonl").read_text().splitlines()[0])
    assert columns == {"id": 1, "text": toy_benchmarks.FLORES["zho_Hans"][0]}, "as on the Hub"


def test_a_mirror_is_completed_and_what_is_there_is_kept_byte_for_byte(data, hub):
    out = hub / "out"
    assert data("mirror", "--tasks", "amplify_xcopa_ind_Latn", "--out", out)[0] == 0
    first = {name: (out / name).read_bytes() for name in files(out)}
    (out / "cambridgeltl/xcopa/id/test.jsonl").unlink()
    assert data("mirror", "--tasks", "amplify_xcopa_ind_Latn", "--out", out)[0] == 0
    assert {name: (out / name).read_bytes() for name in files(out)} == first
    kept = toy_benchmarks.write_split(out / "facebook/flores/zho_Hans", [{"id": 1, "sentence": "x"}], "devtest")
    assert data("mirror", "--tasks", "amplify_flores_ppl_zho_Hans", "--out", out)[0] == 0
    assert kept.read_text() == '{"id": 1, "sentence": "x"}\n'
    assert not (out / "openlanguagedata").exists(), "the other layout of FLORES would be in conflict with it"


def test_a_group_of_which_the_hub_lacks_some_is_mirrored_as_far_as_it_goes(data, hub):
    out = hub / "out"
    status, printed, err = data("mirror", "--tasks", "amplify_xcopa", "--out", out)
    assert status == 2
    assert err.splitlines()[-1] == "lm-eval-amplify: error: 9 not mirrored, 4 sound"  # after what downloads show
    assert "error: cannot load cambridgeltl/xcopa (et) from the Hub: it has no such config; it has 2: id, zh" in printed
    assert len(files(out)) == 4


def test_rows_that_cannot_be_scored_are_not_mirrored(data, hub, rows):
    bad = [{"sentence": "No gap.", "option1": "a", "option2": "b", "answer": "1"}]
    hub_folder(hub / "bad", "Muennighoff/xwinograd", {"fr": {"test": datasets.Dataset.from_list(bad)}})
    os.chdir(hub / "bad")
    status, printed, _ = data("mirror", "--tasks", "amplify_xwinograd_fra_Latn", "--out", hub / "out")
    assert status == 2
    assert "error: Muennighoff/xwinograd (fr), split test, row 1: column 'sentence' has no '_'" in printed
    assert not (hub / "out").exists()


def test_a_mirror_that_cannot_be_written_or_has_a_split_twice_is_one_line(data, hub, rows):
    (hub / "file").write_text("")
    status, _, err = data("mirror", "--tasks", "amplify_xwinograd_rus_Cyrl", "--out", hub / "file")
    assert status == 2
    assert f"error: cannot write {hub}/file/Muennighoff/xwinograd/ru/test.jsonl" in err
    out = hub / "out"
    toy_benchmarks.write_split(out / "cambridgeltl/xcopa/id", [{"a": 1}])
    (out / "cambridgeltl/xcopa/id/test.parquet").write_bytes(b"")
    status, printed, _ = data("mirror", "--tasks", "amplify_xcopa_ind_Latn", "--out", out)
    assert status == 2
    assert "error: split test of cambridgeltl/xcopa (id) is there more than once" in printed
    assert (out / "cambridgeltl/xcopa/id/validation.jsonl").is_file(), "the rest is mirrored all the same"


def test_a_sound_mirror_is_checked_without_a_fault(data, rows):
    status, printed, err = data("check", rows)
    assert (status, err) == (0, "")
    assert sum(line.endswith(".jsonl: 5 rows") for line in printed.splitlines()) == 22 + 8
    assert data("check", rows, "--tasks", "amplify_xcopa,amplify_zho_Hans")[0] == 2, "it lacks Include in Chinese"
    assert data("check", rows, "--tasks", "amplify_xcopa", "--flores", "jv,zh")[0] == 0


def test_the_faults_of_a_mirror_are_named_file_by_file(data, tmp_path):
    folder = toy_tasks.write_mirror(tmp_path / "mirror")
    xcopa = folder / "cambridgeltl/xcopa"
    (xcopa / "et/test.jsonl").write_text('{"premise": \n')
    whole = (xcopa / "zh/test.jsonl").read_text()
    (xcopa / "zh/test.jsonl").write_text(whole.replace("choice2", "choice3"))
    (xcopa / "id/test.parquet").write_bytes((xcopa / "id/test.jsonl").read_bytes())
    status, printed, err = data("check", folder)
    assert status == 2
    assert err.startswith("lm-eval-amplify: error: 3 faulty, ")
    faults = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(faults) == 3
    assert "et/test.jsonl, line 1: invalid JSON" in faults[0]
    assert "split test of cambridgeltl/xcopa (id) is there more than once" in faults[1]
    assert "zh/test.jsonl: no column 'choice2' (did you mean 'choice" in faults[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "/nowhere"], "/nowhere is not a folder"),
        (["check", "."], "no dataset in .: expected ./<org>/<name>/<config>/<split>.jsonl"),
        (["mirror", "--tasks", "amplify_xcopa_ind", "--out", "x"], "unknown task, group or tag 'amplify_xcopa_ind'"),
        (["mirror", "--tasks", "amplify_xcopa", "--flores", "Elvish", "--out", "x"], "unknown language 'Elvish'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(data, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, printed, err = data(*arguments)
    assert status == 2
    assert err.startswith(f"lm-eval-amplify: error: {message}")
    assert err.count("\n") == 1
    assert printed == ""
    assert files(tmp_path) == []


class _Gated(BaseHTTPRequestHandler):
    """What the Hub answers to whoever asks for a gated dataset without a login."""

    def do_GET(self):
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this dataset is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_arguments):
        pass


def test_a_gated_dataset_without_a_login_names_the_command_that_logs_in(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gated)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        clean = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "lm_eval_amplify.cli", "data", "mirror", "--out", str(tmp_path / "out")]
        command += ["--tasks", "amplify_flores_ppl_zho_Hans"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean | hub, timeout=300)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert "is a gated dataset on the Hub. You must be authenticated" in line
    assert "accept its terms at https://huggingface.co/datasets/openlanguagedata/flores_plus" in line
    assert "log in with `hf auth login`" in line
    assert done.stderr.strip().endswith("lm-eval-amplify: error: 1 not mirrored, 0 sound")
