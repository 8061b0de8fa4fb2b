"""Stopped channels, the scheduler's ticks, heartbeats, retention."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    delete,
    func,
    or_,
    select,
    update,
)

from distributor.db import insert_ignore
from distributor.ledger.rows import as_utc
from distributor.ledger.tables import Tables
from distributor.ledger.values import ChannelStop
from distributor.tables import attempts, channel_stops, deliveries, heartbeats, issues, relay_days, ticks


class Upkeep(Tables):
    """What surrounds the issues."""

    def stop_channel(self, channel: str, reason: str, wait: timedelta) -> tuple[int, datetime] | None:
        """Nothing goes out on a channel for a while. Returns (how often in a row, until when); None when it is
        stopped already."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            row = {"channel": channel, "reason": reason, "stopped_at": now, "until": now, "times": 0}
            insert_ignore(self.database, channel_stops, [row], connection)
            result = connection.execute(
                update(channel_stops)
                .where(channel_stops.c.channel == channel, channel_stops.c.until <= now)
                .values(reason=reason, until=now + wait, times=channel_stops.c.times + 1)
                .returning(channel_stops.c.times, channel_stops.c.until)
            ).first()
        return (result.times, result.until) if result else None

    def channel_stopped(self, channel: str) -> bool:
        """Whether nothing may go out on a channel now."""
        with self.database.read() as connection:
            until = select(channel_stops.c.until).where(channel_stops.c.channel == channel)
            found = connection.execute(until).scalar_one_or_none()
            return found is not None and found > self.database.now(connection)

    def stop_count(self, channel: str) -> int:
        """How often in a row a channel has been stopped."""
        with self.database.read() as connection:
            times = select(channel_stops.c.times).where(channel_stops.c.channel == channel)
            return connection.execute(times).scalar_one_or_none() or 0

    def resume_channel(self, channel: str) -> bool:
        """The channel may be used; True when it had been stopped."""
        with self.database.read() as connection:
            if not connection.execute(
                select(channel_stops.c.channel).where(channel_stops.c.channel == channel)
            ).first():
                return False
        with self.database.write() as connection:
            return (
                connection.execute(delete(channel_stops).where(channel_stops.c.channel == channel)).rowcount
                == 1
            )

    def stopped_channels(self) -> Mapping[str, ChannelStop]:
        """Channel → its stop. One whose time is over is still listed, until a send succeeds."""
        with self.database.read() as connection:
            return {
                row.channel: ChannelStop(row.reason, row.stopped_at, row.until)
                for row in connection.execute(select(channel_stops))
            }

    def waits(self, names: Iterable[str]) -> Mapping[str, timedelta]:
        """Name of a stop → how long it lasts still; those that are over are left out."""
        with self.database.read() as connection:
            now = self.database.now(connection)
            rows = connection.execute(
                select(channel_stops).where(
                    channel_stops.c.channel.in_(list(names)), channel_stops.c.until > now
                )
            )
            return {row.channel: row.until - now for row in rows}

    def take_allowance(self, relay: str, cap: int, wanted: int) -> int:
        """Takes up to `wanted` deliveries of what a relay may carry today (UTC); returns how many there were."""
        with self.database.write() as connection:
            day = self.database.now(connection).date()
            insert_ignore(self.database, relay_days, [{"relay": relay, "day": day, "taken": 0}], connection)
            today = (relay_days.c.relay == relay, relay_days.c.day == day)
            taken = connection.execute(
                select(relay_days.c.taken).where(*today).with_for_update()
            ).scalar_one()
            granted = max(0, min(wanted, cap - int(taken)))
            if granted:
                connection.execute(update(relay_days).where(*today).values(taken=taken + granted))
            return granted

    def return_allowance(self, relay: str, unused: int) -> None:
        """Gives back what was taken and not used. Past midnight the new day profits by it: no harm."""
        with self.database.write() as connection:
            day = self.database.now(connection).date()
            connection.execute(
                update(relay_days)
                .where(relay_days.c.relay == relay, relay_days.c.day == day, relay_days.c.taken >= unused)
                .values(taken=relay_days.c.taken - unused)
            )

    def full_relays(self, caps: Mapping[str, int]) -> set[str]:
        """Those of the relays that have carried today (UTC) what their cap allows; 0 is no cap."""
        capped = {relay: cap for relay, cap in caps.items() if cap}
        if not capped:
            return set()
        with self.database.read() as connection:
            day = self.database.now(connection).date()
            rows = connection.execute(
                select(relay_days).where(relay_days.c.day == day, relay_days.c.relay.in_(list(capped)))
            )
            return {row.relay for row in rows if row.taken >= capped[row.relay]}

    def record_tick(self, newsletter: str, day: date, decision: str, detail: str) -> bool:
        """Notes what the scheduler decided; repeated decisions are counted. True the first time."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            key = {"newsletter": newsletter, "local_date": day, "decision": decision, "detail": detail}
            first = insert_ignore(
                self.database, ticks, [{**key, "first_at": now, "last_at": now, "count": 0}], connection
            )
            connection.execute(
                update(ticks)
                .where(*(ticks.c[name] == value for name, value in key.items()))
                .values(last_at=now, count=ticks.c.count + 1)
            )
            return first == 1

    def watched_since(self, newsletter: str) -> datetime | None:
        """When a scheduler first looked after this newsletter."""
        with self.database.read() as connection:
            first = select(func.min(ticks.c.first_at)).where(ticks.c.newsletter == newsletter)
            return as_utc(connection.execute(first).scalar())

    def ticks(self, newsletter: str, limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """What the scheduler decided lately, the newest first."""
        query = (
            select(ticks)
            .where(ticks.c.newsletter == newsletter)
            .order_by(ticks.c.last_at.desc(), ticks.c.id.desc())
        )
        with self.database.read() as connection:
            return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]

    def beat(self, role: str, name: str) -> None:
        """A process says that it lives."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            if not insert_ignore(
                self.database, heartbeats, [{"role": role, "name": name, "seen_at": now}], connection
            ):
                connection.execute(
                    update(heartbeats)
                    .where(heartbeats.c.role == role, heartbeats.c.name == name)
                    .values(seen_at=now)
                )

    def last_beat(self, role: str, host: str | None = None) -> timedelta | None:
        """How long ago a process of that role (on that host: names are `host:pid`) was heard of; None when never."""
        query = select(func.max(heartbeats.c.seen_at)).where(heartbeats.c.role == role)
        if host is not None:
            query = query.where(heartbeats.c.name.startswith(f"{host}:", autoescape=True))
        with self.database.read() as connection:
            seen = connection.execute(query).scalar()
            return self.database.now(connection) - moment if (moment := as_utc(seen)) else None

    def forget(
        self, *, deliveries_after: timedelta, attempts_after: timedelta, ticks_after: timedelta
    ) -> None:
        """Retention: drops what is older than it may be. The issues' own rows stay: they are small, and the history."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            # In the order in which a look-up reads them: the other way round the two wait for each other.
            for table, age in ((deliveries, deliveries_after), (attempts, attempts_after)):
                young = or_(issues.c.finished_at.is_(None), issues.c.finished_at >= now - age)
                keep_from = connection.execute(select(func.min(issues.c.id)).where(young)).scalar()
                newest = connection.execute(select(func.max(issues.c.id))).scalar() or 0
                self.database.drop_issues(connection, table, keep_from or newest + 1)
            connection.execute(delete(ticks).where(ticks.c.last_at < now - ticks_after))
            connection.execute(delete(relay_days).where(relay_days.c.day < (now - ticks_after).date()))
