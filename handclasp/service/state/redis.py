"""State in Redis or Valkey, through coredis: for any number of processes on any number of machines.

One Lua script adds to many logs and tells their followers, all or nothing, so what an instance is told is in the log,
and in its order. An instance listens on one channel of its own. That what was acknowledged outlasts a restart of Redis
is for Redis to see to (``appendonly yes``; with ``appendfsync always`` it outlasts a power cut).
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import anyio

from handclasp.errors import ConfigurationError

from . import LEASE, MOST_ROWS, WITHIN, Created, Follower, Row, State, StateUnavailable, Sync

if TYPE_CHECKING:
    import coredis

T = TypeVar("T")

_PREFIX = "handclasp:1:"
_BEAT_EVERY = LEASE / 3  # two may be lost
_RETRY_EVERY = 0.1
_NAME_LASTS = 700.0  # seconds: longer than any mailbox; a name whose log is gone is free
_MILLISECONDS = 1000

#: KEYS: none, for the logs are named by the batch (so this is not for Redis Cluster).
#: ARGV: prefix, instance, most rows; then for each log its key, the rows known, its life in ms or "", the number of
#: rows to add, and these. Returns for each the rows that were missed, or nil.
_SYNC = """
local prefix, me, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local at, answers, told = 4, {}, {}
while at <= #ARGV do
  local log, known, life, count = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], tonumber(ARGV[at + 3])
  local rows, followers = prefix .. 'log:' .. log, prefix .. 'followers:' .. log
  local length = redis.call('LLEN', rows)
  local new = {unpack(ARGV, at + 4, at + 3 + count)}
  at = at + 4 + count
  if length == 0 then
    answers[#answers + 1] = false
  elseif known > length or length + count > most then
    redis.call('DEL', rows, followers)
    redis.call('ZREM', prefix .. 'all', log)
    answers[#answers + 1] = false
  else
    answers[#answers + 1] = known < length and redis.call('LRANGE', rows, known, -1) or {}
    if redis.call('SADD', followers, me) == 1 then
      redis.call('PEXPIRE', followers, math.max(redis.call('PTTL', rows), 1))
    end
    if count > 0 then
      redis.call('RPUSH', rows, unpack(new))
      if life ~= '' then
        redis.call('PEXPIRE', rows, life)
        redis.call('PEXPIRE', followers, life)
        local time = redis.call('TIME')
        redis.call('ZADD', prefix .. 'all', 'XX', time[1] * 1000 + life, log)
      end
      local words = log .. '\\n' .. length .. '\\n' .. table.concat(new, '\\n')
      for _, follower in ipairs(redis.call('SMEMBERS', followers)) do
        if follower ~= me then
          told[follower] = told[follower] and (told[follower] .. '\\n\\n' .. words) or words
        end
      end
    end
  end
end
for follower, words in pairs(told) do
  redis.call('PUBLISH', prefix .. 'told:' .. follower, words)
end
return answers
"""

#: KEYS: the name, the index of all logs by their end. ARGV: prefix, log, row, life in ms, most, life of the name.
_CREATE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken = redis.call('GET', KEYS[1])
if taken and redis.call('EXISTS', ARGV[1] .. 'log:' .. taken) == 1 then return 1 end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return 2 end
local log = ARGV[1] .. 'log:' .. ARGV[2]
redis.call('RPUSH', log, ARGV[3])
redis.call('PEXPIRE', log, ARGV[4])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[6])
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[2])
return 0
"""


class RedisState(State):
    """An instance's access to a Redis; made by `from_url`.

    Raises:
        ConfigurationError: the package is not installed, or the URL is malformed.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        try:
            from coredis.pool import ConnectionPool
        except ImportError:
            raise ConfigurationError(
                "a state in Redis needs another package: pip install 'handclasp[redis]'"
            ) from None
        try:
            ConnectionPool.from_url(url)
        except Exception:  # noqa: BLE001 - whatever it does not like; and the message may hold the password
            raise ConfigurationError(
                "the URL of the Redis is not redis://[:password@]host[:port][/number]"
            ) from None
        self._url = url
        self._client: coredis.Redis[bytes] | None = None
        self._up = anyio.Event()  # set when there is a client
        self._offset = time.time() - time.monotonic()
        self._is_told_time = False
        self._latest = 0.0
        self._steady_since = 0.0
        self._lease_until = 0.0

    def clock(self) -> float:
        """See `State.clock`: the time of the Redis, carried on by our own clock."""
        self._latest = max(self._latest, time.monotonic() + self._offset)
        return self._latest

    @asynccontextmanager
    async def open(self, follower: Follower) -> AsyncGenerator[None]:
        """See `State.open`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stay_connected, follower)
            try:
                yield
            finally:
                with anyio.move_on_after(WITHIN / 4, shield=True):
                    await self._give_up_lease()
                tasks.cancel_scope.cancel()

    async def create(self, log: str, name: str, row: Row, *, life: float, most: int) -> Created:
        """See `State.create`."""
        keys = [f"{_PREFIX}name:{name}", f"{_PREFIX}all"]
        lasts = _milliseconds(_NAME_LASTS)
        arguments: list[str | int] = [_PREFIX, log, _text(row), _milliseconds(life), most, lasts]
        answer = await self._ask((await self._connected()).eval(_CREATE, keys, arguments))
        return (Created.DONE, Created.TAKEN, Created.FULL)[int(cast("int", answer))]

    async def find(self, name: str) -> str | None:
        """See `State.find`."""
        answer = await self._ask((await self._connected()).get(f"{_PREFIX}name:{name}"))
        return None if answer is None else answer.decode()

    async def sync(self, batch: Sequence[Sync]) -> Sequence[Sequence[Row] | None]:
        """See `State.sync`."""
        arguments: list[str | int] = [_PREFIX, self.instance, MOST_ROWS]
        for sync in batch:
            life = "" if sync.life is None else _milliseconds(sync.life)
            arguments += [sync.log, sync.known, life, len(sync.rows), *map(_text, sync.rows)]
        answer = await self._ask((await self._connected()).eval(_SYNC, [], arguments))
        return [_rows(each) for each in cast("list[list[bytes] | None]", answer)]

    async def delete(self, logs: Sequence[tuple[str, str]]) -> None:
        """See `State.delete`."""
        client = await self._connected()
        keys = [
            each
            for log, name in logs
            for each in (f"{_PREFIX}log:{log}", f"{_PREFIX}followers:{log}", f"{_PREFIX}name:{name}")
        ]
        await self._ask(client.delete(keys))
        await self._ask(client.zrem(f"{_PREFIX}all", [log for log, _ in logs]))

    async def living(self, instances: Collection[str]) -> set[str]:
        """See `State.living`."""
        asked = list(instances)
        answer = await self._ask((await self._connected()).mget([f"{_PREFIX}alive:{each}" for each in asked]))
        if time.monotonic() < self._steady_since + LEASE:
            return set(asked)  # they may have been away from the Redis as we were
        return {each for each, lease in zip(asked, answer, strict=True) if lease is not None}

    # What it is made of

    async def _connected(self) -> coredis.Redis[bytes]:
        """Wait for a Redis that is about to be there: at the start, or during its own restart."""
        client = self._client
        if client is not None:
            return client
        with anyio.move_on_after(WITHIN / 2):
            while self._client is None:
                await self._up.wait()
            return self._client
        raise StateUnavailable("the Redis that keeps the mailboxes cannot be reached")

    async def _ask(self, request: Awaitable[T]) -> T:
        from coredis.exceptions import RedisError

        try:
            with anyio.fail_after(WITHIN):
                return await request
        except (RedisError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
            raise StateUnavailable("the Redis that keeps the mailboxes does not answer as it should") from exc

    async def _stay_connected(self, follower: Follower) -> None:
        while True:
            try:
                await self._connect(follower)
            except* Exception:  # noqa: BLE001, S110 - whatever broke, it is tried again; `sync` says that it is away
                pass
            finally:
                self._client, self._up = None, anyio.Event()
            await anyio.sleep(_RETRY_EVERY)

    async def _connect(self, follower: Follower) -> None:
        import coredis
        from coredis.retry import NoRetryPolicy

        client = coredis.Redis.from_url(self._url, retry_policy=NoRetryPolicy(), connect_timeout=WITHIN)
        async with client:
            channel = f"{_PREFIX}told:{self.instance}"
            async with client.pubsub(
                channels=[channel], ignore_subscribe_messages=True, retry_policy=NoRetryPolicy()
            ) as told:
                await self._beat(client)
                self._steady_since = time.monotonic()
                self._client = client
                self._up.set()
                follower.lost_track()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._keep_beating, client)
                    async for message in told:
                        _pass_on(follower, cast("bytes", message["data"]))
                    tasks.cancel_scope.cancel()

    async def _keep_beating(self, client: coredis.Redis[bytes]) -> None:
        while True:
            await anyio.sleep(_BEAT_EVERY)
            await self._beat(client)

    async def _beat(self, client: coredis.Redis[bytes]) -> None:
        """Give a sign of life, and look at the clock."""
        before = time.monotonic()
        if before > self._lease_until:
            self._steady_since = before  # we were away for as long as others are taken for dead
        with anyio.fail_after(WITHIN):
            await client.set(f"{_PREFIX}alive:{self.instance}", b"1", px=_milliseconds(LEASE))
            asked = time.monotonic()
            now = await client.time()
            answered = time.monotonic()
        self._lease_until = before + LEASE
        offset = now.timestamp() - (asked + answered) / 2
        if not self._is_told_time or answered - asked < _BEAT_EVERY / 10:
            self._offset, self._is_told_time = offset, True

    async def _give_up_lease(self) -> None:
        if self._client is not None:
            try:
                await self._ask(self._client.delete([f"{_PREFIX}alive:{self.instance}"]))
            except StateUnavailable:
                return  # it ends by itself


def _text(row: Row) -> str:
    return json.dumps(row, separators=(",", ":"))


def _rows(answer: Sequence[bytes] | None) -> Sequence[Row] | None:
    return None if answer is None else [cast("Row", json.loads(row)) for row in answer]


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * _MILLISECONDS))


def _pass_on(follower: Follower, told: bytes) -> None:
    for words in told.split(b"\n\n"):
        log, start, *rows = words.split(b"\n")
        follower.follow(log.decode(), int(start), _rows(rows) or ())
