"""What our tasks share beyond the harness's own task class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.task import ConfigurableTask


class AmplifyTask(ConfigurableTask):  # type: ignore[misc]  # the harness is untyped
    """A YAML task of ours, named there as ``class:``.

    Args:
        data_dir: As in the harness, unused.
        cache_dir: As in the harness, unused.
        download_mode: As in the harness, unused.
        config: The task's YAML.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        cache_dir: str | None = None,
        download_mode: Any = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        # The harness hands over the YAML's `class:` entry too, which its own configuration does not know.
        own = {name: value for name, value in (config or {}).items() if name != "class"}
        super().__init__(data_dir, cache_dir, download_mode, own)

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None, **_options: Any) -> None:
        """Load the dataset as the harness does, without its advice on the metadata of another task."""
        self.dataset = self.config.custom_dataset(**(self.config.metadata or {}), **(dataset_kwargs or {}))

    def build_all_requests(self, **options: Any) -> None:
        """Build the requests, never from ``--cache_requests``, whose key knows neither the data nor targets."""
        super().build_all_requests(**options | {"cache_requests": False, "rewrite_requests_cache": False})

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return a document's metrics, those of the harness.

        Equal choices are one request asked twice, whose answers differ by rounding where they ran in different
        batches; they count as one answer, so that the first of them wins as the harness has it, always.
        """
        if self.OUTPUT_TYPE == "multiple_choice":
            choices = self.doc_to_choice(doc)
            results = [results[choices.index(choice)] for choice in choices]
        metrics: dict[str, Any] = super().process_results(doc, results)
        return metrics
