"""Requests made from an application's own OpenAPI description, by schemathesis."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI


def try_every_operation(app: FastAPI, check: Callable[[Any], None], *, max_examples: int) -> None:
    """Hand `check` so many requests of each operation that the description allows, the same ones each time."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.generation import GenerationMode

    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        allowed = found.ok().as_strategy(generation_mode=GenerationMode.POSITIVE)
        bounded = settings(
            max_examples=max_examples,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )

        @bounded
        @given(case=allowed)
        def try_it(case: Any) -> None:
            check(case)

        try_it()
