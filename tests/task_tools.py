"""What the tests of tasks share: building tasks without a model, the harness's own tasks on given rows, Hub folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import datasets
import lm_eval.tasks

from lm_eval_amplify.resources import tasks_folder

STOCK = Path(lm_eval.tasks.__file__).parent


def manager(folder, **metadata):
    return lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False, metadata=metadata)


def ours(folder: str, name: str, data_dir: Path | None = None, **metadata):
    """A task of ours by name, or those of a group or tag, as a dict."""
    if data_dir is not None:
        metadata["data_dir"] = str(data_dir)
    found = manager(tasks_folder() / folder, **metadata).load(name)["tasks"]
    return found.get(name, found)


def stock(monkeypatch, folder: str, name: str, path: str, config: str, rows: Mapping[str, datasets.Dataset]):
    """One of the harness's own tasks, its dataset's rows replaced by these."""

    def load_dataset(path, name, **_options):
        assert (path, name) == asked
        return datasets.DatasetDict(rows)

    asked = (path, config)
    with monkeypatch.context() as patch:
        patch.setattr("lm_eval.api.task.datasets.load_dataset", load_dataset)
        return manager(STOCK / folder).load(name)["tasks"][name]


def built(task, num_fewshot: int = 0, **options):
    """The requests of a task as comparable tuples: type, strings, position, document, repeats."""
    task.set_config("num_fewshot", num_fewshot)
    task.set_fewshot_seed(1234)
    task.build_all_requests(rank=0, world_size=1, **options)
    return [(one.request_type, one.args, one.idx, one.doc_id, one.repeats) for one in task.instances]


def read_jsonl(path: Path) -> datasets.Dataset:
    return datasets.Dataset.from_json(str(path))


def hub_folder(root: Path, hub_path: str, configs: Mapping[str, Mapping[str, datasets.Dataset]]) -> Path:
    """A local folder of the form that parquet datasets have on the Hub: data files, and configs in the card."""
    folder = root / hub_path
    card = ["---", "configs:"]
    for config, splits in configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        (folder / config).mkdir(parents=True)
        for split, rows in splits.items():
            rows.to_parquet(folder / config / f"{split}-00000-of-00001.parquet")
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder
