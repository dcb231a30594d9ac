"""A process that makes requests with one key, from four threads at once, and prints how many were let through.

``rate_process.py <url> <prefix> <key>``; it begins when it is told to by a line.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from flask_aibridge.errors import RateLimited
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.services.redis.connection import RedisConnection
from flask_aibridge.services.redis.keys import Keys
from flask_aibridge.services.redis.store import RedisStore

REQUESTS = 60


def let_through(store: RedisStore, key: str) -> bool:
    try:
        store.admit(None, Credential(key=key))
    except RateLimited:
        return False
    return True


if __name__ == "__main__":
    url, prefix, key = sys.argv[1:]
    with closing(RedisStore(RedisConnection(url), keys=Keys(prefix))) as store, ThreadPoolExecutor(4) as pool:
        sys.stdin.readline()
        print(sum(pool.map(lambda _: let_through(store, key), range(REQUESTS))))
