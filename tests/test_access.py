"""Tokens of the operators' interface: only a hash is kept, scopes, revoked at once; on both databases."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from fakes import BOTH, Clock, empty, migrated_database
from sqlalchemy import select

from distributor.access import NOTED_EVERY, PREFIX, Access
from distributor.db import Database
from distributor.errors import RequestRefused
from distributor.model import Permission
from distributor.tables import api_tokens

READ = {Permission.ISSUES_READ}


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def access(database: Database) -> Access:
    empty(database)
    database._clock = None
    return Access(database)


def kept(access: Access) -> str:
    """Everything that the database holds about tokens."""
    with access.database.read() as connection:
        return "\n".join(str(tuple(row)) for row in connection.execute(select(api_tokens)))


class TestAToken:
    def test_it_is_found_again_with_its_scopes(self, access: Access) -> None:
        scopes = frozenset({Permission.ISSUES_READ, Permission.SUBSCRIBERS_WRITE})
        token = access.create("crm", scopes)
        found = access.find(token)
        assert found is not None
        assert (found.name, found.scopes) == ("crm", scopes)
        assert found.revoked_at is None

    def test_it_is_long_and_never_the_same(self, access: Access) -> None:
        tokens = {access.create(f"crm {number}", READ) for number in range(20)}
        assert len(tokens) == 20
        assert all(token.startswith(PREFIX) and len(token) == len(PREFIX) + 43 for token in tokens)

    def test_only_its_hash_is_kept(self, access: Access) -> None:
        token = access.create("crm", READ)
        assert "crm" in kept(access)
        assert token not in kept(access)
        assert token.removeprefix(PREFIX) not in kept(access)

    def test_nothing_else_is_one(self, access: Access) -> None:
        token = access.create("crm", READ)
        with access.database.read() as connection:
            hashed = connection.execute(select(api_tokens.c.hash)).scalar_one()
        for other in ("", PREFIX, token[:-1], token + "A", token.upper(), hashed, "' OR 1=1 --", "\x00", "ÿ"):
            assert access.find(other) is None, other

    def test_revoked_it_is_worth_nothing_at_once(self, access: Access) -> None:
        token, other = access.create("crm", READ), access.create("shop", READ)
        access.revoke("crm")
        assert access.find(token) is None
        assert access.find(other) is not None
        listed = {one.name: one.revoked_at is not None for one in access.listing()}
        assert listed == {"crm": True, "shop": False}

    def test_its_name_is_free_again_once_it_is_revoked(self, access: Access) -> None:
        old = access.create("crm", READ)
        access.revoke("crm")
        new = access.create("crm", READ)
        assert access.find(old) is None
        assert access.find(new) is not None
        assert [one.name for one in access.listing()] == ["crm", "crm"]


class TestRefusals:
    def test_a_name_in_use(self, access: Access) -> None:
        access.create("crm", READ)
        with pytest.raises(RequestRefused, match="'crm' already; revoke it first"):
            access.create("crm", READ)
        assert len(access.listing()) == 1

    @pytest.mark.parametrize("name", ["", " crm", "two\nlines", "\x00", "n" * 101])
    def test_what_is_no_name(self, access: Access, name: str) -> None:
        with pytest.raises(RequestRefused, match="one to 100 characters, on one line"):
            access.create(name, READ)
        assert not access.listing()

    def test_no_scope(self, access: Access) -> None:
        with pytest.raises(RequestRefused, match="at least one with --scope"):
            access.create("crm", [])

    def test_revoking_what_is_not_there(self, access: Access) -> None:
        access.create("crm", READ)
        access.revoke("crm")
        for name in ("crm", "shop"):
            with pytest.raises(RequestRefused, match=f"no token is called '{name}'"):
                access.revoke(name)


def test_when_it_was_used_is_written_now_and_then(access: Access) -> None:
    clock = access.database._clock = Clock()
    token = access.create("crm", READ)
    assert access.listing()[0].last_used_at is None
    access.find(token)
    first = access.listing()[0].last_used_at
    assert first is not None
    clock.forward(NOTED_EVERY - timedelta(seconds=30))
    access.find(token)
    assert access.listing()[0].last_used_at == first
    clock.forward(timedelta(minutes=1))
    access.find(token)
    assert (access.listing()[0].last_used_at or first) > first


def test_a_look_at_one_that_is_wrong_writes_nothing(access: Access) -> None:
    access.create("crm", READ)
    before = kept(access)
    access.find(PREFIX + "A" * 43)
    assert kept(access) == before
