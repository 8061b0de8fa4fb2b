"""Rate limits that all processes share on one Redis: the arithmetic of pacing.py, in Lua."""

from collections.abc import Collection, Mapping, Sequence

from redis import Redis

from distributor.pacing import (
    FLOOR,
    FORGET,
    LATELY,
    LEARNED_BURST,
    NOTHING,
    RECOVERY,
    SAME_WALL,
    UNLIMITED,
    WINDOW,
    Grant,
    Limit,
    MemoryPacer,
)
from distributor.redis_link import RedisLink


class RedisPacer:
    """Permits for all processes on one Redis. When Redis is away, each process paces itself at rate ÷ `workers`.

    The client should fail fast: two seconds of timeout and no retries, which might also take permits twice.
    """

    #: `Usage` as a hash, on Redis' own clock: hosts need not agree. A key that nobody uses goes by itself.
    USAGE = f"""
        local UNLIMITED, NOTHING, FLOOR, RECOVERY, FORGET = {UNLIMITED}, {NOTHING}, {FLOOR}, {RECOVERY}, {FORGET}
        local WINDOW, LATELY, SAME_WALL, LEARNED_BURST = {WINDOW}, {LATELY}, {SAME_WALL}, {LEARNED_BURST}
        local clock = redis.call('TIME')
        local now = clock[1] + clock[2] / 1000000

        local function read(key)
            local f = redis.call('HMGET', key, 'arrival', 'blocked', 'slowed', 'since', 'window', 'count', 'before')
            return {{
                arrival = tonumber(f[1] or 0), blocked = tonumber(f[2] or 0), slowed = tonumber(f[3] or 0),
                since = tonumber(f[4] or 0), window = tonumber(f[5] or 0), count = tonumber(f[6] or 0),
                before = tonumber(f[7] or 0),
            }}
        end

        local function write(key, u)
            redis.call('HSET', key, 'arrival', u.arrival, 'blocked', u.blocked, 'slowed', u.slowed,
                'since', u.since, 'window', u.window, 'count', u.count, 'before', u.before)
            local last = math.max(u.arrival, u.blocked, u.since + FORGET, u.window + LATELY)
            redis.call('EXPIRE', key, math.ceil(last - now) + 1)
        end

        local function turn(u)
            local age = now - u.window
            if age < WINDOW then return false end
            u.before = age < LATELY and u.count / WINDOW or 0
            u.window, u.count = now, 0
            return true
        end
    """
    RESERVE = """
        local function set_pace(u, rate, burst)
            local age = math.max(now - u.since, 0)
            local unlimited = rate >= UNLIMITED
            if age < FORGET then
                local growing = math.max(FLOOR, math.min(u.slowed, rate / 2) * 2 ^ (age / RECOVERY))
                local span = unlimited and LEARNED_BURST or burst / rate
                rate = math.min(rate, growing)
                burst = math.max(1, rate * span)
            elseif unlimited then
                u.interval = 0
                return
            end
            u.interval, u.burst = 1 / rate, burst
        end

        local function available(u, moment, ahead)
            if u.blocked - moment > NOTHING then return 0 end
            if u.interval == 0 then return math.huge end
            local backlog = math.max(u.arrival - moment, 0)
            return math.floor(u.burst + (NOTHING + ahead - backlog) / u.interval)
        end

        local function missing(u)
            local paced = u.interval == 0 and now or u.arrival - (u.burst - 1) * u.interval
            return math.max(paced, u.blocked) - now
        end

        local permits, within, missed, used = tonumber(ARGV[1]), tonumber(ARGV[2]), 0, {}
        for i, key in ipairs(KEYS) do
            local u = read(key)
            set_pace(u, tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2]))
            missed = math.max(missed, missing(u))
            used[i] = u
        end
        local wait = missed > NOTHING and missed or 0
        local begin, ahead, spaced = now + wait, wait > 0 and math.max(within - wait, 0) or 0, 0
        for _, u in ipairs(used) do permits = math.min(permits, available(u, begin, ahead)) end
        if permits < 1 or wait > within then return {0, string.format('%.6f', missed), '0'} end
        for i, key in ipairs(KEYS) do
            local u = used[i]
            if available(u, begin, 0) < permits then spaced = math.max(spaced, u.interval) end
            if u.interval > 0 then u.arrival = math.max(u.arrival, begin) + permits * u.interval end
            local turned = turn(u)
            if u.interval == 0 and not turned then
                redis.call('HINCRBY', key, 'count', permits)  -- all that changed, at four fifths of the price
            else
                u.count = u.count + permits
                write(key, u)
            end
        end
        return {permits, string.format('%.6f', wait), string.format('%.6f', spaced)}
    """
    #: ARGV: seconds, and 1 when a provider throttled us.
    BLOCK = """
        local u, seconds = read(KEYS[1]), tonumber(ARGV[1])
        if ARGV[2] == '1' and now >= u.since then
            turn(u)
            local seen = math.max(u.before, math.max(u.count, 1) / math.max(now - u.window, 1))
            local age = now - u.since
            if age < FORGET then seen = math.min(seen, u.slowed * 2 ^ (age / RECOVERY)) end
            u.slowed = math.max(FLOOR, seen / 2)
            u.since = now + math.max(seconds, SAME_WALL)
            u.window, u.count, u.before = u.since - WINDOW, math.floor(seen * WINDOW + 0.5), 0
        end
        u.blocked = math.max(u.blocked, now + seconds)
        write(KEYS[1], u)
    """

    BLOCKED = """
        local clock = redis.call('TIME')
        local now = clock[1] + clock[2] / 1000000
        local waits = {}
        for i, key in ipairs(KEYS) do
            waits[i] = string.format('%.6f', math.max(tonumber(redis.call('HGET', key, 'blocked') or 0) - now, 0))
        end
        return waits
    """

    def __init__(self, redis: "Redis", *, prefix: str = "distributor:pace:", workers: int = 2) -> None:
        self._reserve = redis.register_script(self.USAGE + self.RESERVE)
        self._block = redis.register_script(self.USAGE + self.BLOCK)
        self._blocked = redis.register_script(self.BLOCKED)
        self._prefix, self._workers = prefix, workers
        self._alone = MemoryPacer()
        self._link = RedisLink(f"pacing_alone workers={workers}")

    def reserve(self, limits: Sequence[Limit], permits: int = 1, *, within: float = 0.0) -> Grant:
        if not limits:
            return Grant(permits)
        # Our own blocks hold even if Redis was away, or flushed, when we wrote them; and asking costs a round trip.
        if waits := self._alone.blocked([limit.key for limit in limits]):
            return Grant(0, max(waits.values()))
        keys = [self._prefix + limit.key for limit in limits]
        numbers = [number for limit in limits for number in (limit.rate, limit.burst)]
        if (
            answer := self._link.ask(lambda: self._reserve(keys=keys, args=[permits, within, *numbers]))
        ) is None:
            return self._alone.reserve([self._share(limit) for limit in limits], permits, within=within)
        grant = Grant(int(answer[0]), float(answer[1]), float(answer[2]))
        if grant.permits:
            self._alone.count(limits, grant.permits)  # should Redis go, we know how fast we were
        return grant

    def blocked(self, keys: Collection[str]) -> Mapping[str, float]:
        names = list(keys)
        shared = self._link.ask(lambda: self._blocked(keys=[self._prefix + key for key in names])) or []
        waits = {key: float(wait) for key, wait in zip(names, shared, strict=False) if float(wait) > NOTHING}
        return {**self._alone.blocked(names), **waits}

    def block(self, key: str, seconds: float) -> None:
        self._alone.block(key, seconds)
        self._link.ask(lambda: self._block(keys=[self._prefix + key], args=[seconds, 0]))

    def throttled(self, key: str, seconds: float) -> None:
        self._alone.throttled(key, seconds)
        self._link.ask(lambda: self._block(keys=[self._prefix + key], args=[seconds, 1]))

    def _share(self, limit: Limit) -> Limit:
        if limit.rate >= UNLIMITED:
            return limit
        return Limit(limit.key, limit.rate / self._workers, max(1, limit.burst // self._workers))
