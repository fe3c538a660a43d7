"""The server does what its OpenAPI page says, whatever it is asked."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy.engine import Engine as Database

from tests.unit.model_servers import running
from tests.unit.registry_services import Registry

pytest_plugins = ["tests.unit.model_servers"]

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def api(
    shared_services: None, tiny_bert: object, engine: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    registry = Registry("page", tiny_bert, engine)  # type: ignore[arg-type]
    registry.promote_new()
    with running(registry, tmp_path_factory.mktemp("cache")) as here:
        here.wait_for_version("1")
        found = schemathesis.openapi.from_url(f"{here.http.base_url}/openapi.json")
        found.config.generation.update(modes=list(schemathesis.GenerationMode))
        yield found


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_page_says_what_the_server_does(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=list(CHECKS))
