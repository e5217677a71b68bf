"""Scripts of the operations on tickets. Redis runs each of them as a whole; see :mod:`harness.queues.tickets`.

``KEYS`` are the ticket and the set of tickets that are not over; ``ARGV`` is what the comment above each says.
"""

from __future__ import annotations

OVER_KEPT = 200
"""Number of jobs of each outcome whose ids are kept, for the monitor."""

_NOW = "local t = redis.call('TIME'); local now = t[1] + t[2] / 1e6; local K, D = KEYS[1], KEYS[2]; "

SCRIPTS = {
    # id, round, digest, message, lease, eta delay, kind, whether the id must be unused; more keys: requests, then sets
    # of jobs that are over
    "open": _NOW + """
        local s = redis.call('HMGET', K, 'state', 'n', 'round', 'digest')
        if s[1] and (s[1] ~= 'over' or ARGV[8] == '1') then return {0, tonumber(s[2]), s[3], s[4], s[1]} end
        local n = redis.call('HINCRBY', K, 'n', 1)
        redis.call('HDEL', K, 'owner', 'outcome', 'starts', 'unknown', 'executions', 'copies', 'queue', 'eta',
            'retries')
        redis.call('HSET', K, 'state', 'sending', 'round', ARGV[2], 'digest', ARGV[3], 'message', ARGV[4],
            'kind', ARGV[7])
        if tonumber(ARGV[6]) > 0 then redis.call('HSET', K, 'eta', string.format('%.3f', now + ARGV[6])) end
        redis.call('PERSIST', K)
        redis.call('DEL', KEYS[3], KEYS[4])
        for i = 5, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
        redis.call('ZADD', D, now + ARGV[5], ARGV[1])
        return {1, n, ARGV[2], ARGV[3], 'sending'}
    """,
    # id, n, stray, longest
    "sent": _NOW + """
        local s = redis.call('HMGET', K, 'state', 'n', 'eta', 'copies')
        if s[1] ~= 'sending' or tonumber(s[2]) ~= tonumber(ARGV[2]) then return 0 end
        redis.call('HSET', K, 'state', 'waiting')
        redis.call('HDEL', K, 'copies')
        redis.call('ZADD', D, math.max(now, tonumber(s[3] or 0)) + ARGV[3], ARGV[1])
        return 1
    """,
    # id, n, owner, lease
    "received": _NOW + """
        local s = redis.call('HMGET', K, 'state', 'n')
        if tonumber(s[2]) ~= tonumber(ARGV[2]) then return 0 end
        if s[1] ~= 'sending' and s[1] ~= 'waiting' and s[1] ~= 'reserved' then return 0 end
        redis.call('HSET', K, 'state', 'reserved', 'owner', ARGV[3])
        redis.call('ZADD', D, now + ARGV[4], ARGV[1])
        return 1
    """,
    # id, n (0: the message has none), owner, lease, round, digest, message, kind, text of new progress, its TTL;
    # one more key: jobs that failed. For a process that knows the job's code, which is reached now, three more: the
    # heartbeat, the requests to the job and to its parallel run; and the progress, if it is kept here.
    "claim": _NOW + """
        local s = redis.call('HMGET', K, 'state', 'n', 'outcome', 'round', 'unknown', 'executions', 'owner',
            'digest')
        local n, executions = tonumber(ARGV[2]), tonumber(s[6] or 0)
        local repeated = s[1] == 'running' and s[7] == ARGV[3]
        if s[1] then
            -- numbers of a ticket only grow: this message is of a ticket that was lost
            if n >= tonumber(s[2]) and ARGV[6] ~= '' and s[8] ~= ARGV[6] then return {'other'} end
            if s[1] == 'over' and not (s[3] == 'failed' and n == tonumber(s[2])) then return {'over'} end
            if n ~= 0 and n ~= tonumber(s[2]) then return {'stale'} end
            if s[1] == 'parked' then return {'stale'} end
            if s[1] == 'running' and not repeated then
                local due = redis.call('ZSCORE', D, ARGV[1])
                if due and tonumber(due) > now then return {'busy'} end
            end
            if ARGV[6] ~= '' and s[8] ~= ARGV[6] then return {'other'} end
        elseif ARGV[7] == '' then
            return {'none'}
        else
            s[2] = math.max(n, 1)
            redis.call('HSET', K, 'n', s[2], 'round', ARGV[5], 'digest', ARGV[6], 'message', ARGV[7],
                'kind', ARGV[8])
        end
        redis.call('PERSIST', K)
        if s[1] == 'over' then redis.call('ZREM', KEYS[3], ARGV[1]) end
        redis.call('HSET', K, 'state', 'running', 'owner', ARGV[3])
        redis.call('HDEL', K, 'eta')
        redis.call('ZADD', D, now + ARGV[4], ARGV[1])
        if not KEYS[4] then
            local starts = redis.call('HINCRBY', K, 'starts', 1)
            return {'ok', s[4] or ARGV[5], tonumber(s[5] or 0), executions, starts, tonumber(s[2])}
        end
        if repeated then executions = executions - 1 end
        redis.call('HSET', K, 'starts', 0, 'executions', executions + 1)
        local found = {'ok', s[4] or ARGV[5], tonumber(s[5] or 0), executions, 0, tonumber(s[2]), t[1], t[2]}
        for i = 4, #KEYS do
            local held = redis.pcall('GET', KEYS[i])
            if type(held) == 'table' then held = 0 end
            found[#found + 1] = held
        end
        if KEYS[7] and not found[12] then
            redis.call('SET', KEYS[7], ARGV[9])
            if tonumber(ARGV[10]) > 0 then redis.call('EXPIRE', KEYS[7], ARGV[10]) end
        end
        return found
    """,
    # id, owner, lease, n, round, digest, message, kind
    "owned": _NOW + """
        local s = redis.call('HMGET', K, 'owner', 'state')
        if s[2] then return s[1] == ARGV[2] and s[2] == 'running' and 1 or 0 end
        redis.call('HSET', K, 'state', 'running', 'owner', ARGV[2], 'n', ARGV[4], 'round', ARGV[5], 'digest', ARGV[6],
            'message', ARGV[7], 'kind', ARGV[8], 'starts', 0, 'executions', 1)
        redis.call('ZADD', D, now + ARGV[3], ARGV[1])
        return 2
    """,
    # lease; then of each ticket: its key, id, owner. Returns the owners of those that are lost.
    "renew": _NOW + """
        local lost = {}
        for i = 2, #ARGV, 3 do
            local s = redis.call('HMGET', ARGV[i], 'owner', 'state')
            if s[1] == ARGV[i + 2] and (s[2] == 'running' or s[2] == 'reserved') then
                redis.call('ZADD', K, now + ARGV[1], ARGV[i + 1])
            else
                lost[#lost + 1] = ARGV[i + 2]
            end
        end
        return lost
    """,
    # id, owner, lease, delay, queue, whether this worker knew the job, whether this is a retry
    "requeue": _NOW + """
        local s = redis.call('HMGET', K, 'owner', 'state')
        if s[1] ~= ARGV[2] or s[2] ~= 'running' then return {} end
        local n = redis.call('HINCRBY', K, 'n', 1)
        local eta = now + ARGV[4]
        redis.call('HDEL', K, 'owner', 'copies')
        redis.call('HSET', K, 'state', 'sending', 'eta', string.format('%.3f', eta), 'starts', 0)
        if ARGV[5] ~= '' then redis.call('HSET', K, 'queue', ARGV[5]) end
        local unknown = 0
        if ARGV[6] == '0' then unknown = redis.call('HINCRBY', K, 'unknown', 1)
        else redis.call('HDEL', K, 'unknown') end
        if ARGV[7] == '1' then redis.call('HINCRBY', K, 'retries', 1) end
        redis.call('ZADD', D, now + ARGV[3], ARGV[1])
        return {n, unknown}
    """,
    # id, owner
    "park": _NOW + """
        local s = redis.call('HMGET', K, 'owner', 'state')
        if s[1] ~= ARGV[2] or s[2] ~= 'running' then return 0 end
        redis.call('HDEL', K, 'owner', 'eta')
        redis.call('HSET', K, 'state', 'parked', 'starts', 0)
        redis.call('ZADD', D, '+inf', ARGV[1])
        return 1
    """,
    # id, owner ('': whoever has it), outcome, ttl, number of ids kept; one more key: jobs of that outcome
    "close": _NOW + """
        local s = redis.call('HMGET', K, 'owner', 'state')
        if not s[2] or s[2] == 'over' then return 0 end
        if ARGV[2] ~= '' and s[1] ~= ARGV[2] then return 0 end
        redis.call('HDEL', K, 'owner', 'eta')
        redis.call('HSET', K, 'state', 'over', 'outcome', ARGV[3])
        redis.call('ZREM', D, ARGV[1])
        redis.call('EXPIRE', K, ARGV[4])
        redis.call('ZADD', KEYS[3], now, ARGV[1])
        redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[5])
        redis.call('EXPIRE', KEYS[3], ARGV[4])
        return 1
    """,
    # id, lease, owner ('': any whose time is over), first stray, longest stray
    "take": _NOW + """
        local s = redis.call('HMGET', K, 'state', 'n', 'owner')
        local due = redis.call('ZSCORE', D, ARGV[1])
        if not due then return {} end
        if not s[1] or s[1] == 'over' then redis.call('ZREM', D, ARGV[1]); return {} end
        if ARGV[3] == '' then
            if tonumber(due) > now then return {} end
        elseif s[3] ~= ARGV[3] then
            return {}
        end
        if s[1] == 'parked' then redis.call('ZADD', D, '+inf', ARGV[1]); return {} end
        local n = tonumber(s[2])
        if s[1] == 'waiting' then
            local copies = redis.call('HINCRBY', K, 'copies', 1)
            redis.call('ZADD', D, now + math.min(ARGV[4] * 2 ^ copies, ARGV[5]), ARGV[1])
        else
            n = redis.call('HINCRBY', K, 'n', 1)
            redis.call('HDEL', K, 'owner')
            redis.call('HSET', K, 'state', 'sending')
            redis.call('ZADD', D, now + ARGV[2], ARGV[1])
        end
        return {n, s[1]}
    """,
    # id, lease
    "resume": _NOW + """
        if redis.call('HGET', K, 'state') ~= 'parked' then return {} end
        local n = redis.call('HINCRBY', K, 'n', 1)
        redis.call('HSET', K, 'state', 'sending')
        redis.call('ZADD', D, now + ARGV[2], ARGV[1])
        return {n}
    """,
    # id, lease, whether a completed job may be done again, message to store and its number ('': keep the message);
    # more keys: requests, then sets of jobs that are over
    "reopen": _NOW + """
        local s = redis.call('HMGET', K, 'state', 'outcome', 'n')
        if s[1] ~= 'over' or (s[2] == 'completed' and ARGV[3] == '0') then return {} end
        if ARGV[4] ~= '' then
            if s[3] ~= ARGV[5] then return {} end
            redis.call('HSET', K, 'message', ARGV[4])
        end
        local n = redis.call('HINCRBY', K, 'n', 1)
        redis.call('HDEL', K, 'owner', 'outcome', 'starts', 'unknown', 'copies', 'eta', 'retries')
        redis.call('HSET', K, 'state', 'sending')
        redis.call('PERSIST', K)
        redis.call('DEL', KEYS[3], KEYS[4])
        for i = 5, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
        redis.call('ZADD', D, now + ARGV[2], ARGV[1])
        return {n}
    """,
}  # fmt: skip
