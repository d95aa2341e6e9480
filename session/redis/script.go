package redis

import (
	"context"

	"github.com/redis/rueidis"
)

// script is one step of the protocol: the server runs it as a whole or not at all. The
// hash is a literal, because computing SHA-1 ends a program in FIPS-only mode. A test
// compares it with the text.
type script struct{ sha, lua string }

// readBoth is the beginning of the scripts that check an item and its lease.
const readBoth = `
local item = redis.call('GET', KEYS[1])
if item and #item < 16 then return redis.error_reply('MALFORMED item') end
local lease = redis.call('GET', KEYS[2])
if lease and #lease ~= 24 then return redis.error_reply('MALFORMED lease') end
`

// replaceScript is the commit of a refresh (session.Store.Replace): it overwrites an item
// of the given version. It does not check the lease: every write raises the version, so an
// instance that lost its lease and was overtaken gets 0.
//
//	KEYS: item, lease, label. ARGV: present version, new item, its time to live in ms, label
//	answer: 1, 0 if the item is missing or has another version, or an error if it is malformed
//
// The lease gets the item's time to live, so that the lease does not end before the item.
// An item without any time left is deleted. While a cluster slot moves, the script may get
// only the item's key; then the lease's time to live and the label do not change; see
// runOnOneKey. codec.go has the layout of items and leases.
var replaceScript = script{"23250aa4145597ebb4062338977e5dff39cf7855", `
local item = redis.call('GET', KEYS[1])
if item and #item < 16 then return redis.error_reply('MALFORMED item') end
if not item or item:sub(1, 8) ~= ARGV[1] then return 0 end
if tonumber(ARGV[3]) <= 0 then
	redis.call('DEL', unpack(KEYS))
else
	redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
	if KEYS[2] then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
	if KEYS[3] and ARGV[4] ~= '' then
		redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[3])
	elseif KEYS[3] then
		redis.call('DEL', KEYS[3])
	end
end
return 1
`}

// createScript creates an item with a label. Its keys are those of the item and the label.
//
//	new item, its time to live in ms, label → 1, or 0 if the ID has an item
//
// Without the label's key, the item has no label before its next write; see runOnOneKey.
var createScript = script{"7affda89ce3bb6d7a0efd9ed9c3c24a1a132523d", `
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2]) end
return 1
`}

// deleteAtScript deletes an item of the given version with its lease and its label. Its
// keys are those of the three.
//
//	version, holder or nothing → 1, or 0 for a conflict
var deleteAtScript = script{"49c5cfc6f506e5638f60f8bcd5e12b3bbccc4dbc", readBoth + `
if not item or item:sub(1, 8) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' and (not lease or lease:sub(1, 16) ~= ARGV[2]) then return 0 end
redis.call('DEL', unpack(KEYS))
return 1
`}

// Answers of acquireScript. The present lease follows the last two.
const (
	acquireGone = iota
	acquireMoved
	acquireBusy
	acquireWon
)

// acquireScript gives the lease of an item to a new holder.
//
//	version, new lease, the lease as seen or nothing → answer, lease
//
// The script writes the lease even if it does not change. So a server that refuses
// writes, for example for lack of memory, returns an error: otherwise the caller would
// see a lease without heartbeats and take it over, while its holder merely cannot write.
var acquireScript = script{"71eae35b7720db90b9ebd3ac5431b55d22d83e91", readBoth + `
if not item then return {0} end
if item:sub(1, 8) ~= ARGV[1] then return {1} end
local life = redis.call('PTTL', KEYS[1])
if life < 0 then return redis.error_reply('MALFORMED item, it does not expire') end
local busy = lease and lease ~= ARGV[3]
if not busy then lease = ARGV[2] end
redis.call('SET', KEYS[2], lease, 'PX', math.max(1, life))
return {busy and 2 or 3, lease}
`}

// beatScript raises the beat of a lease. Its keys are those of the lease and the item.
//
//	lease with the new beat → 1, or 0 if the holder does not have the lease
//
// A late beat does not lower the beat. Without the item's key, the script keeps the
// time to live of the lease; see runOnOneKey.
var beatScript = script{"dc76bac6c9bb166cb2e66cebcbc244ca1667bb65", `
local lease = redis.call('GET', KEYS[1])
if lease and #lease ~= 24 then return redis.error_reply('MALFORMED lease') end
if not lease or lease:sub(1, 16) ~= ARGV[1]:sub(1, 16) then return 0 end
local life = redis.call('PTTL', KEYS[#KEYS])
if life == -2 then return 0 end
if life < 0 then return redis.error_reply('MALFORMED item, it does not expire') end
if struct.unpack('>I8', lease, 17) < struct.unpack('>I8', ARGV[1], 17) then lease = ARGV[1] end
redis.call('SET', KEYS[1], lease, 'PX', math.max(1, life))
return 1
`}

// releaseScript frees a lease. Its key is that of the lease, its argument the holder.
var releaseScript = script{"c749c4c33f1ab2d96acd99fed9522236b5c882f6", `
local lease = redis.call('GET', KEYS[1])
if lease and #lease ~= 24 then return redis.error_reply('MALFORMED lease') end
if lease and lease:sub(1, 16) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`}

// announceScript stores an announcement and returns all recent ones.
//
//	holder, announcement → announcements
//
// The script calls TIME, so Redis 6 must replicate the writes of the script and not the
// script; later versions always do so. A hash with more entries than any number of
// instances was not written by this package, and is deleted.
var announceScript = script{"4b08268cc38037586ee96dc8047d10bc969c7bff", `
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('HLEN', KEYS[1]) > 1000 then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[1], struct.pack('>I8', now) .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], 60000)
local all = redis.call('HGETALL', KEYS[1])
local notes = {}
for i = 1, #all, 2 do
	local note = all[i + 1]
	local age = #note >= 8 and #note <= 8 + 4096 and now - struct.unpack('>I8', note)
	if age and math.abs(age) <= 60000 then
		notes[#notes + 1] = note:sub(9)
	else
		redis.call('HDEL', KEYS[1], all[i])
	end
end
return notes
`}

// indexScript adds an item to the index of a tag, or to a set of the list.
//
//	ID, end of the entry, now, time until the end in ms, largest number of entries
//
// All times come from the caller, so that the server's clock does not matter.
var indexScript = script{"73e353e48cd6667be3ff3dc56821beebdac9e35a", `
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[5])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1
`}

// build returns a command made with the given builder.
type build func(rueidis.Builder) rueidis.Completed

// send runs a command on the server.
type send func(context.Context, build) rueidis.RedisResult

// runOnOneKey runs the script on all keys, or on the first key only while the slot
// moves between two nodes of a cluster. During a move, the nodes refuse commands with
// several keys if one of them is missing, as most leases are. Heartbeats and commits
// therefore succeed during a move. Acquire needs both keys and waits for its end.
func (s script) runOnOneKey(ctx context.Context, send send, keys []string, args ...string) rueidis.RedisResult {
	res := s.run(ctx, send, keys, args...)
	if !isMoving(res) {
		return res
	}
	return s.run(ctx, send, keys[:1], args...)
}

func isMoving(res rueidis.RedisResult) bool {
	refusal, ok := rueidis.IsRedisErr(res.Error())
	return ok && refusal.IsTryAgain()
}

// run runs the script by its hash, or by its text if the server does not have it.
func (s script) run(ctx context.Context, send send, keys []string, args ...string) rueidis.RedisResult {
	res := send(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Evalsha().Sha1(s.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	})
	if answer, ok := rueidis.IsRedisErr(res.Error()); !ok || !answer.IsNoScript() {
		return res
	}
	return send(ctx, func(b rueidis.Builder) rueidis.Completed {
		return b.Eval().Script(s.lua).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	})
}
