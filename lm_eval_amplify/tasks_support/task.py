"""What our tasks share beyond the harness's own task class."""

from __future__ import annotations

from collections.abc import Mapping
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

    def build_all_requests(self, **options: Any) -> None:
        """Build the requests, never from ``--cache_requests``, whose key knows neither the data nor targets."""
        super().build_all_requests(**options | {"cache_requests": False, "rewrite_requests_cache": False})
