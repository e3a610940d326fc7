"""Whatever the document allows, and what it does not, is asked of the API: nothing breaks, nothing surprises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from stream.api.document import document
from stream.api.operations import OPERATIONS
from tests.stream.api.serving import ALL, Served, filled, serving, settings_of

CHECKS: list[Any] = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
ENDLESS = {"change_events"}
"""What never ends; `test_feed` asks it."""
EXAMPLES = 12
SCHEMA = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def own() -> Iterator[Served]:
    told = settings_of()
    with serving(told, filled(told)) as running:
        yield running


def operations() -> dict[str, Any]:
    """Each operation of the document by its name."""
    found: list[Any] = list(SCHEMA.get_all_operations())
    return {one.ok().definition.raw["operationId"]: one.ok() for one in found}


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("name", sorted({one.name for one in OPERATIONS} - ENDLESS))
def test_clean(own: Served, name: str, mode: Any) -> None:
    operation = operations()[name]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        case.call_and_validate(
            base_url=f"http://127.0.0.1:{own.port}",
            headers={"Authorization": f"Bearer {ALL}"},
            checks=CHECKS,
        )

    ask()
