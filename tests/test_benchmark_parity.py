"""amplify_xwinograd and amplify_include: the harness's own tasks, request for request and score for score."""

from __future__ import annotations

import datasets
import lm_eval
import pytest
import toy_benchmarks
from task_tools import STOCK, built, manager, ours, read_jsonl, stock

from lm_eval_amplify.resources import tasks_folder
from lm_eval_amplify.tasks_support.domains import domain_metric

HARNESS_INCLUDE = "CohereForAI/include-base-44"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return toy_benchmarks.write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="module")
def real_mirror(real_data, tmp_path_factory):
    """The real rows; exam questions in Include's columns stand where a mirror has Include."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "CohereLabs").mkdir()
    (folder / "Muennighoff").symlink_to(real_data / "Muennighoff")
    for layout in ("lite", "base"):
        (folder / f"CohereLabs/include-{layout}-44").symlink_to(real_data / "include_like")
    return folder


def xwinograd(config, mirror, monkeypatch):
    code = toy_benchmarks.XWINOGRAD_CONFIGS[config]
    rows = read_jsonl(mirror / "Muennighoff/xwinograd" / config / "test.jsonl")
    theirs = stock(monkeypatch, "xwinograd", f"xwinograd_{config}", "Muennighoff/xwinograd", config, {"test": rows})
    return ours("xwinograd", f"amplify_xwinograd_{code}", mirror), theirs


def assert_xwinograd_parity(own, their):
    assert built(own) == built(their)
    assert own.VERSION == their.VERSION
    for mine, other in zip(own.eval_docs, their.eval_docs, strict=True):
        assert own.doc_to_text(mine) == their.doc_to_text(other)
        if own.doc_to_choice(mine)[0] != own.doc_to_choice(mine)[1]:
            for answers in ([(-2.0, False), (-1.0, True)], [(-1.0, True), (-1.0, True)], [(-0.5, True), (-1.0, True)]):
                assert own.process_results(mine, answers) == their.process_results(other, answers)
    assert own.aggregation() == their.aggregation()


@pytest.mark.parametrize("config", ["en", "ru", "jp"])
def test_every_request_of_xwinograd_is_that_of_the_harness_own_task(config, mirror, monkeypatch):
    assert_xwinograd_parity(*xwinograd(config, mirror, monkeypatch))


@pytest.mark.parametrize(("config", "documents"), [("fr", 83), ("pt", 263), ("zh", 16)])
def test_every_request_of_xwinograd_on_real_rows_is_that_of_the_harness(config, documents, real_mirror, monkeypatch):
    own, their = xwinograd(config, real_mirror, monkeypatch)
    assert len(own.eval_docs) == documents
    assert_xwinograd_parity(own, their)


def include_domains(config, mirror, monkeypatch):
    """The harness's tasks of a language, by domain: one for each that has rows and a task there."""
    (path,) = (mirror / "CohereLabs/include-base-44" / config).glob("test.jsonl")
    rows = read_jsonl(path)
    language = config.lower().replace(" ", "_")
    found = {}
    for domain in sorted(set(rows["domain"])):
        name = f"include_base_44_{language}_{domain_metric(domain).removeprefix('acc_')}"
        try:
            found[domain] = stock(
                monkeypatch, f"include/default/{config}", name, HARNESS_INCLUDE, config, {"test": rows}
            )
        except KeyError:  # the harness has no task for this domain of this language
            continue
    return found


def assert_include_parity(own, theirs):
    requests = built(own)
    assert theirs
    for domain, task in theirs.items():
        numbers = [number for number, doc in enumerate(own.eval_docs) if doc["domain"] == domain]
        mine = [request[1] for number in numbers for request in requests[4 * number : 4 * number + 4]]
        assert mine == [request[1] for request in built(task)]
        golds = [own.doc_to_target(own.eval_docs[number]) for number in numbers]
        assert golds == [task.doc_to_target(doc) for doc in task.eval_docs]


@pytest.mark.parametrize("layout", ["include", "include_base"])
@pytest.mark.parametrize(("config", "domains"), [("Italian", 2), ("Hebrew", 1)])
def test_every_request_of_include_is_that_of_the_harness_own_task(layout, config, domains, mirror, monkeypatch):
    code = toy_benchmarks.INCLUDE_CONFIGS[config]
    theirs = include_domains(config, mirror, monkeypatch)
    assert len(theirs) >= domains
    assert_include_parity(ours("include", f"amplify_{layout}_{code}", mirror), theirs)


@pytest.mark.parametrize(
    ("config", "code"), [("Italian", "ita_Latn"), ("Turkish", "tur_Latn"), ("Chinese", "zho_Hans")]
)
def test_every_request_of_include_on_real_exams_is_that_of_the_harness(config, code, real_mirror, monkeypatch):
    theirs = include_domains(config, real_mirror, monkeypatch)
    own = ours("include", f"amplify_include_base_{code}", real_mirror)
    assert len(own.eval_docs) == 250
    assert_include_parity(own, theirs)
    assert built(own) == built(ours("include", f"amplify_include_{code}", real_mirror)), "both layouts of a row"


def test_scores_are_those_of_the_harness_own_tasks(mirror, saved, monkeypatch):
    """The whole evaluation, by stock hf: accuracies and standard errors, also by domain."""
    wino, stock_wino = xwinograd("en", mirror, monkeypatch)
    exams = ours("include", "amplify_include_base_ita_Latn", mirror)
    stock_exams = include_domains("Italian", mirror, monkeypatch)
    results = lm_eval.simple_evaluate(
        "hf", model_args=f"pretrained={saved('gpt2')}", tasks=[wino, stock_wino, exams, *stock_exams.values()],
        device="cpu", batch_size=4, task_manager=manager(tasks_folder()),
    )["results"]  # fmt: skip
    for name in ("acc,none", "acc_stderr,none"):
        assert results["amplify_xwinograd_eng_Latn"][name] == results["xwinograd_en"][name]
    mine = results["amplify_include_base_ita_Latn"]
    for domain, task in stock_exams.items():
        theirs = results[task.task_name]
        assert mine[f"{domain_metric(domain)},none"] == pytest.approx(theirs["acc,none"])
        assert mine[f"{domain_metric(domain)}_stderr,none"] == pytest.approx(theirs["acc_stderr,none"])
    assert mine["acc_driving_license_stderr,none"] == "N/A", "one document has no standard error"


def test_the_paper_form_of_include_is_its_own(mirror):
    requests = built(ours("include", "amplify_include_paper_ind_Latn", mirror), limit=1)
    prompt = "Berapakah dua tambah dua?\nA) tiga\nB) empat\nC) lima\nD) enam\nAnswer:"
    assert [request[1] for request in requests] == [(prompt, f" {letter}") for letter in "ABCD"]
    base = built(ours("include", "amplify_include_base_paper_ind_Latn", mirror), limit=1)
    assert base == requests


def test_an_example_is_never_the_document_itself(mirror):
    for folder, name in (("include", "amplify_include_ind_Latn"), ("xwinograd", "amplify_xwinograd_fra_Latn")):
        task = ours(folder, name, mirror)
        built(task, num_fewshot=2)
        own = [doc.get("question") or doc["sentence"].partition("_")[0] for doc in task.eval_docs]
        for instance in task.instances:
            assert instance.args[0].count(own[instance.doc_id].strip()) == 1, "as the question, and nowhere else"


def test_no_example_of_xwinograd_ends_at_its_gap(mirror):
    """The harness puts no delimiter behind an example without an ending: the next text would follow at once."""
    requests = built(ours("xwinograd", "amplify_xwinograd_eng_Latn", mirror), num_fewshot=2)
    contexts = [request[1][0] for request in requests if request[3] != 2]
    assert all("Of the dog" not in context and context.count("\n\n") == 2 for context in contexts)


def test_the_groups_are_weighted_as_the_harness_own():
    index = manager(tasks_folder()).task_index
    theirs = manager(STOCK / "xwinograd").task_index["xwinograd"].cfg
    assert index["amplify_xwinograd"].cfg["aggregate_metric_list"] == theirs["aggregate_metric_list"]
    for group in ("amplify_include", "amplify_include_paper", "amplify_include_base", "amplify_include_base_paper"):
        assert index[group].cfg["aggregate_metric_list"] == theirs["aggregate_metric_list"]
        assert len(index[group].cfg["task"]) == 44


def test_an_ending_that_is_empty_is_asked_for_as_the_harness_does(mirror, monkeypatch):
    own, their = xwinograd("en", mirror, monkeypatch)
    assert own.eval_docs[2]["sentence"].endswith("_")
    requests = [request[1] for request in built(own) if request[3] == 2]
    assert requests == [(f"Of the dog and the cat the louder one is {name}", " ") for name in ("the dog", "the cat")]
    assert requests == [request[1] for request in built(their) if request[3] == 2]


def test_equal_choices_are_one_answer_whatever_rounding_does(mirror):
    task = ours("xwinograd", "amplify_xwinograd_eng_Latn", mirror)
    same = task.eval_docs[3]
    assert same["option1"] == same["option2"]
    for second in (-1.0, -1.0 + 1e-6, -1.0 - 1e-6):
        assert task.process_results(same, [(-1.0, False), (second, False)]) == {"acc": 0.0}, "the first one wins"


def test_chat_templates_change_requests_as_the_readmes_say(mirror):
    def chat(messages, add_generation_prompt=True):
        text = "".join(f"<{one['role']}>{one['content']}</>" for one in messages)
        return text + ("<assistant>" if add_generation_prompt else "")

    options = {"apply_chat_template": True, "chat_template": chat, "limit": 1}
    (_, (context, letter), *_), *_ = built(ours("include", "amplify_include_ind_Latn", mirror), **options)
    assert context.startswith("<system>The following is multiple-choice question about STEM.</><user>Berapakah")
    assert context.endswith("\nAnswer:</><assistant>")
    assert letter == "A"
    (_, (context, ending), *_), *_ = built(ours("xwinograd", "amplify_xwinograd_eng_Latn", mirror), **options)
    assert context == "<user>The cup does not fit on the shelf because the cup</><assistant>"
    assert ending == "is too tall."
    ((_, arguments, *_),) = built(ours("flores_ppl", "amplify_flores_ppl_ind_Latn", mirror), **options)
    assert arguments == (toy_benchmarks.FLORES["ind_Latn"][0],)


def test_real_exam_rows_load_as_both_layouts_of_the_hub(real_mirror):
    rows = datasets.Dataset.from_json(str(real_mirror / "CohereLabs/include-lite-44/Italian/test.jsonl"))
    assert {"choices", "option_a", "option_d"} <= set(rows.column_names)
