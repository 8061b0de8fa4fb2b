"""What the description promises: no call that can be made from it gets a 5xx, or an answer that it does not name.

SCHEMATHESIS_EXAMPLES=2000 looks longer.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
import requests
import schemathesis
from fakes import DAY, make_post
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from services import Project
from serving import SECRET, UNLIMITED, Served, serving, signed

from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare
from distributor.dispatch import open_issue, write_audience
from distributor.model import OpenedBy, Permission
from distributor.web.problems import SORTS

log = logging.getLogger(__name__)

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "60"))
READERS, ISSUES = 40, 5
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Of the calls that need a token: there are many, and much alike.
FEWER = EXAMPLES // 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = Project(tmp_path_factory.mktemp("openapi"))
    environment = {"DISTRIBUTOR_SIGNUP_SHOP_SECRET": SECRET}
    distributor = build(
        project.settings(environment=environment, signup={"sources": [{"name": "shop"}], "abuse": UNLIMITED})
    )
    prepare(distributor)
    fill(distributor)
    with serving(distributor) as served:
        yield served


def fill(distributor: Distributor) -> None:
    """Readers and issues to look for, and to do something with."""
    (newsletter,) = distributor.settings.newsletters.values()
    readers = [
        NewSubscriber(channel="email", address=f"r{number}@readers.example", source="test")
        for number in range(READERS)
    ]
    for reader in readers:
        distributor.audience.add(newsletter.slug, reader)
    for number in range(ISSUES):
        day, post = DAY + timedelta(days=number), make_post(f"post{number}")
        issue, _ = open_issue(distributor.engine, newsletter, post, day, by=OpenedBy.PERSON)
        assert write_audience(distributor.engine, issue)


def looking(examples: int) -> settings:
    """How long an example may take, and how it is found: the machine may be busy."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=EXAMPLES <= 100,
        database=None,
    )


class Signing(requests.auth.AuthBase):
    """Signs what goes out, and adds a token; the headers that were made up stay in every fourth call."""

    def __init__(self, token: str) -> None:
        self.calls, self.token = 0, token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        self.calls += 1
        if self.calls % 4:
            request.headers["Authorization"] = f"Bearer {self.token}"
            body = request.body or b""
            assert isinstance(body, str | bytes)
            headers = signed(body.encode() if isinstance(body, str) else body)
            headers.pop("content-type")
            request.headers.update(headers)
        return request


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_described(site: Served, mode: GenerationMode) -> None:
    token = site.distributor.access.create(f"looking {mode}", list(Permission))
    signing, statuses = Signing(token), Counter[int]()
    schema = schemathesis.openapi.from_url(f"{site.client.base_url}/openapi.json")
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @looking(FEWER if "security" in operation.definition.raw else EXAMPLES)
        @given(case=operation.as_strategy(generation_mode=mode))
        def look(case: Case[Any]) -> None:
            if isinstance(case.body, dict) and case.body.get("newsletters"):
                case.body["newsletters"] = ["ai-daily"]  # made-up ones do not exist
            if isinstance(number := case.path_parameters.get("number"), int) and number % 2:
                case.path_parameters["number"] = number % READERS + 1  # one that exists
            response = case.call(auth=signing)
            statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        look()
    log.info("%s: %s", mode, dict(statuses))
    assert statuses[401]
    assert statuses[202 if mode is GenerationMode.POSITIVE else 422]


class TestTheDescription:
    def test_lists_what_programs_call_and_no_page(self, site: Served) -> None:
        paths = site.client.get("/openapi.json").json()["paths"]
        assert "/api/subscribers" in paths
        assert all(path.startswith(("/api/", "/events/", "/telegram/")) for path in paths)

    def test_every_problem_type_leads_to_its_place_on_the_page(self, site: Served) -> None:
        page = site.client.get("/docs").text
        for sort in SORTS.values():
            assert f'id="{sort.name}"' in page
            assert sort.address == f"/docs#{sort.name}"

    def test_every_reference_leads_somewhere(self, site: Served) -> None:
        document = site.client.get("/openapi.json")
        known = document.json()["components"]["schemas"]
        used = re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', document.text)
        assert used
        assert set(used) <= set(known)

    def test_the_page_is_complete_in_itself(self, site: Served) -> None:
        response = site.client.get("/docs")
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        loaded = Loads()
        loaded.feed(response.text)
        assert loaded.found == []

    def test_an_example_of_the_page_is_taken(self, site: Served) -> None:
        operation = site.client.get("/openapi.json").json()["paths"]["/api/subscribers"]["post"]
        body = json.dumps(operation["requestBody"]["content"]["application/json"]["example"])
        response = site.client.post("/api/subscribers", content=body, headers=signed(body))
        assert response.status_code == 202


class Loads(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object"} or dict(attrs).keys() & {"src", "onload"}:
            self.found.append(tag)
