/*
 * The refresh of one session by N instances on one shared store. README.md
 * explains the protocol, the invariants and what is left out; check.sh runs
 * this with the faults and the mutations it names.
 *
 * Versions are compared for equality only and never come twice, so an instance
 * keeps one bit instead of the number: whether the version it read is still
 * that of the store. A cached read is an old read: any time may pass between
 * reading and what follows.
 */

#ifndef N
#define N 2		/* instances */
#endif

/* How often each thing may happen in one run. */
#ifndef TICKS
#define TICKS 2		/* access tokens age: fresh, due, expired */
#endif
#ifndef TOUCH
#define TOUCH 0		/* the last use is written: a new version, nothing else */
#endif
#ifndef LOGOUT
#define LOGOUT 0
#endif
#ifndef FOREIGN
#define FOREIGN 0	/* an ID token turns out to be somebody else's */
#endif
#ifndef CRASH
#define CRASH 0		/* an instance dies, and is started again */
#endif
#ifndef PAUSE
#define PAUSE 0		/* an instance stands still, and goes on */
#endif
#ifndef CUT
#define CUT 0		/* one instance loses the store, and finds it again */
#endif
#ifndef OUTAGE
#define OUTAGE 0	/* all lose the store, and find it again */
#endif
#ifndef LATE
#define LATE 0		/* a write reported as failed lands, now or later or never */
#endif
#ifndef LOST
#define LOST 0		/* the connection breaks on a redemption, which took place or will or not */
#endif
#ifndef SLOW
#define SLOW 0		/* no answer in time: the server is still at work on the request */
#endif
#ifndef DOWN
#define DOWN 0		/* the authorization server refuses for the moment */
#endif

#define TOKENS 8

mtype = { Idle, Acquire, Watch, Confirm, Send, Wait, Hold, Commit1, Judge, Commit2, Land, Delete, Release, Dead };
mtype = { NoRequest, Sent, Granted, Rejected, Unavailable };	/* a redemption */
mtype = { NoWrite, LateAcquire, LateCommit, LateRelease };

/* The authorization server: refresh token k, redeemed, gives refresh token and
   access token k+1. So a number names a rotation and both of its tokens. */
byte newest;
bool revoked;
byte age[TOKENS];	/* of access tokens: 0 fresh, 1 due, 2 expired */
bool judged[TOKENS];
byte orphan;		/* 1 + a refresh token under way that nobody waits for any more */
bool slowOrphan;	/* it is the one of a request that timed out */

/* The store: the item, and the lease beside it. */
bool up = true;
bool gone;
byte rot;		/* the rotation, and the refresh token of it */
byte at;		/* the access token */
byte lease;		/* 0, or 1 + the instance that believes in it, or ABANDONED */
#define ABANDONED 255
#ifdef OWNER_PER_PROCESS
byte leaseName;		/* 1 + the instance that took it last */
#endif

/* A write that was reported as failed. */
mtype late = NoWrite;
byte lateRot, lateAt, lateBy;
bool lateCurrent;	/* what it compares with (version, lease) is still so */

/* The instances. */
mtype pc[N] = Idle;
byte hrot[N], hat[N];	/* the record in hand: read, or made from an answer */
bool current[N];	/* its version is the store's */
bool unlanded[N];	/* a commit failed: the record in hand is the truth here */
mtype net[N] = NoRequest;
bool again[N];		/* the token has been sent before, without an answer */
bool paused[N], cut[N];

/* What happened, for the invariants. */
bool stalled[N];	/* stood still or was cut off, and lost its lease by that */
bool anyStall;
bool riskyStall;	/* from the last confirmed beat before sending to the commit of the answer */
bool anyCrash;		/* between sending a refresh token and committing the next */
bool anyLost;		/* an answer */
bool loggedOut, foreign;
#define cause (riskyStall || anyCrash || anyLost)
/* A commit that was under way may outlive its instance. */
#define lateOfTheDead (crashes < CRASH && lates < LATE)

byte ticks = TICKS, touches = TOUCH, logouts = LOGOUT, foreigns = FOREIGN;
byte crashes = CRASH, pauses = PAUSE, cuts = CUT, outages = OUTAGE;
byte lates = LATE, losses = LOST, slows = SLOW, downs = DOWN;

#define runs(i) (!paused[i] && pc[i] != Dead)
#define reach(i) (up && !cut[i])

byte k;		/* for loops inside atomic, 0 outside */

/* Everybody's version is an old one now. */
inline changed() {
	for (k : 0 .. N-1) { current[k] = false }
	k = 0;
	if
	:: late == LateCommit || late == LateAcquire -> lateCurrent = false
	:: else
	fi
}

/* The compare-and-set has held: the item is written. */
inline put(r, a) {
	assert(r >= rot);		/* no older rotation over a newer one */
	assert(!loggedOut && !foreign);	/* nothing comes back */
	changed();
	gone = false; rot = r; at = a;
}

inline forget(i) {
	hrot[i] = 0; hat[i] = 0; current[i] = false; unlanded[i] = false; again[i] = false; net[i] = NoRequest
}

inline leaseMoves(to) {
	if
	:: late == LateRelease -> lateCurrent = false
	:: else
	fi;
	lease = to
}

/* Instance i does not believe in its lease any more, the store still does. */
inline abandon(i) {
	if
	:: lease == i+1 -> lease = ABANDONED
	:: else
	fi
}

inline win(i) {
	leaseMoves(i+1);
#ifdef OWNER_PER_PROCESS
	leaseName = i+1;
#endif
	stalled[i] = false; pc[i] = Confirm
}

/* What a request does with the record in hand: nobody hands out a token that
   nobody judged. An expired one is not used: serving asks the clock. */
inline serve(i) {
	assert(age[hat[i]] == 2 || hat[i] == 0 || judged[hat[i]])
}

/* A commit of the record in hand that did not succeed: it is the truth here. */
inline failed(i, next) {
#ifdef NO_MEMORY
	forget(i); pc[i] = Release
#else
	unlanded[i] = true; pc[i] = next
#endif
}

/* One try to commit (hrot, a); then is the step after success, otherwise that
   after a failure. */
inline commit(i, a, then, otherwise) {
	if
	:: !reach(i) -> failed(i, otherwise)
	:: reach(i) && lates > 0 && late == NoWrite ->
		lates--; late = LateCommit; lateRot = hrot[i]; lateAt = a; lateCurrent = current[i];
		failed(i, otherwise)
	:: reach(i) && gone ->
#ifdef UPSERT
		put(hrot[i], a); current[i] = true; unlanded[i] = false; pc[i] = then
#else
		/* Who has not stood still loses to a logout only. */
		assert(loggedOut || foreign || stalled[i]);
		revoked = true; forget(i); pc[i] = Release
#endif
	:: reach(i) && !gone && current[i] ->
		put(hrot[i], a); current[i] = true; unlanded[i] = false; pc[i] = then
	:: reach(i) && !gone && !current[i] ->
		if
#ifndef NO_ROTATION
		:: rot > hrot[i] -> forget(i); pc[i] = Release		/* adopt */
#endif
		:: rot == hrot[i] && at == a -> current[i] = true; unlanded[i] = false; pc[i] = then
		:: else -> current[i] = true				/* merge, try again */
		fi
	fi
}

/* A refresh token is sent and the next is not committed. */
#define atRisk(i) (net[i] == Sent || net[i] == Granted || pc[i] == Commit1 || ((unlanded[i] || pc[i] == Commit2) && rot < hrot[i]))

#ifdef NO_HOLD
#define serverDone true
#else
#define serverDone !slowOrphan
#endif

/* An owner in Send has just seen its beat arrive, and sends before the lease can
   be taken, unless it stands still there. */
#define silent(i) (paused[i] || (cut[i] && pc[i] != Send))

active [N] proctype Instance() {
	byte i = _pid;
end:	do
	/* A request reads. What is in memory counts over an item that is there. */
	:: atomic { runs(i) && pc[i] == Idle && !unlanded[i] && reach(i) && !gone ->
		hrot[i] = rot; hat[i] = at; current[i] = true; pc[i] = Acquire }
	:: atomic { runs(i) && pc[i] == Idle && unlanded[i] && reach(i) ->
		if
		:: gone || rot > hrot[i] -> forget(i); pc[i] = Release
		:: else -> serve(i); pc[i] = Land
		fi }
#ifdef MEMORY_BLIND
	:: atomic { runs(i) && pc[i] == Idle && unlanded[i] && age[hat[i]] < 2 -> assert(!loggedOut) }
#endif

	/* Serve what was read, and refresh if it is due. */
	:: atomic { runs(i) && pc[i] == Acquire ->
		serve(i);
		if
		:: age[hat[i]] == 0 || !reach(i) || gone -> forget(i); pc[i] = Idle
#ifndef NO_VERSION
		:: age[hat[i]] > 0 && reach(i) && !gone && !current[i] -> forget(i); pc[i] = Idle
#define matches(i) current[i]
#else
#define matches(i) true
#endif
		:: age[hat[i]] > 0 && reach(i) && !gone && matches(i) && lease == 0 -> win(i)
#ifdef OWNER_PER_PROCESS
		:: age[hat[i]] > 0 && reach(i) && !gone && matches(i) && lease == ABANDONED && leaseName == i+1 -> win(i)
#endif
		:: age[hat[i]] > 0 && reach(i) && !gone && matches(i) && lease != 0 -> pc[i] = Watch
		:: age[hat[i]] > 0 && reach(i) && !gone && lates > 0 && late == NoWrite ->
			lates--; late = LateAcquire; lateBy = i+1; lateCurrent = current[i];
			forget(i); pc[i] = Idle
		fi }

	/* Busy: woken by a push, or the owner is silent while the store answers. */
	:: atomic { runs(i) && pc[i] == Watch && (!reach(i) || gone || !current[i] || lease == 0) ->
		forget(i); pc[i] = Idle }
#ifndef NO_TAKEOVER
	:: atomic { runs(i) && pc[i] == Watch && reach(i) && !gone && current[i] && lease == ABANDONED ->
		win(i) }
	:: atomic { runs(i) && pc[i] == Watch && reach(i) && !gone && current[i] &&
		lease > 0 && lease <= N && silent(lease-1) ->
		stalled[lease-1] = true; anyStall = true;
		if
		:: atRisk(lease-1) || pc[lease-1] == Send -> riskyStall = true
		:: else
		fi;
		if
		:: win(i)
		:: lates > 0 -> lates--; leaseMoves(ABANDONED); forget(i); pc[i] = Idle
		fi }
#endif

	/* A beat has to arrive before a token is sent. */
	:: atomic { runs(i) && pc[i] == Confirm ->
#ifndef NO_CONFIRM
		if
		:: !reach(i) || lease != i+1 -> forget(i); pc[i] = Release
		:: reach(i) && lease == i+1 -> pc[i] = Send
		fi }
#else
		pc[i] = Send }
#endif
	/* Redeem. Who has not stood still holds the lease, and is alone. */
	:: atomic { runs(i) && pc[i] == Send ->
		assert(lease == i+1 || stalled[i]);
		assert(anyStall || lateOfTheDead || gone || age[at] > 0);	/* and the token is due */
		for (k : 0 .. N-1) { assert(k == i || net[k] != Sent || stalled[i] || stalled[k]) }
		k = 0;
		assert(!slowOrphan || orphan != hrot[i]+1 || anyStall || crashes < CRASH);	/* two of one token */
		net[i] = Sent; pc[i] = Wait }
	/* After a time-out the lease is kept until the server is done with the request: the
	   back-off is at least that long. */
	:: atomic { runs(i) && pc[i] == Hold && serverDone -> forget(i); pc[i] = Release }
	:: atomic { runs(i) && pc[i] == Wait && net[i] == Granted ->
		net[i] = NoRequest; again[i] = false; hrot[i]++;
#ifdef JUDGE_FIRST
		pc[i] = Judge }
#else
		pc[i] = Commit1 }
#endif
	:: atomic { runs(i) && pc[i] == Wait && net[i] == Unavailable -> forget(i); pc[i] = Release }
	:: atomic { runs(i) && pc[i] == Wait && net[i] == Rejected ->
		if
		:: !reach(i) || gone -> forget(i); pc[i] = Release
		:: reach(i) && !gone && rot > hrot[i] -> forget(i); pc[i] = Release	/* adopt */
		:: reach(i) && !gone && rot == hrot[i] -> net[i] = NoRequest; pc[i] = Delete
		fi }
	/* The session ends, if it is still this refresh that may say so. */
	:: atomic { runs(i) && pc[i] == Delete ->
		if
		:: !reach(i) || gone -> skip
#ifdef END_ANY
		:: reach(i) && !gone ->
#else
		:: reach(i) && !gone && (rot > hrot[i] || lease != i+1) -> skip
		:: reach(i) && !gone && rot == hrot[i] && lease == i+1 ->
#endif
			assert(cause); gone = true; rot = 0; at = 0; changed()
		fi;
		forget(i); pc[i] = Release }

	/* The refresh token, under the old access token. */
	:: atomic { runs(i) && pc[i] == Commit1 ->
#ifdef SHOW_UNJUDGED
		commit(i, hrot[i], Judge, Judge)
#else
		commit(i, hat[i], Judge, Judge)
#endif
		}
	/* If it is judged at once, one commit is enough. */
	:: atomic { runs(i) && pc[i] == Commit1 -> judged[hrot[i]] = true; hat[i] = hrot[i]; pc[i] = Commit2 }
	:: atomic { runs(i) && pc[i] == Commit1 && foreigns > 0 && reach(i) ->
		foreigns--; foreign = true; gone = true; rot = 0; at = 0; changed(); forget(i); pc[i] = Release }
	:: atomic { runs(i) && pc[i] == Judge -> judged[hrot[i]] = true; hat[i] = hrot[i]; pc[i] = Commit2 }
	:: atomic { runs(i) && pc[i] == Judge && foreigns > 0 && reach(i) ->
		foreigns--; foreign = true; gone = true; rot = 0; at = 0; changed(); forget(i); pc[i] = Release }
	:: atomic { runs(i) && pc[i] == Commit2 ->
#ifdef RELEASE_EARLY
		commit(i, hat[i], Release, Release)
#else
		commit(i, hat[i], Release, Idle)
#endif
		}
	/* Requests need not wait for a commit that takes long, if the session is there.
	   They could come for ever, which is no progress. */
#ifdef EARLY_UNJUDGED
	:: atomic { runs(i) && pc[i] == Judge && reach(i) && !gone -> assert(judged[hrot[i]]) }
#endif
#ifdef EARLY_BLIND
	:: atomic { runs(i) && pc[i] == Commit2 -> serve(i); assert(!loggedOut) }
#elif !defined(LIVE)
	:: atomic { runs(i) && pc[i] == Commit2 && reach(i) && !gone -> serve(i); assert(!loggedOut) }
#endif
	:: atomic { runs(i) && pc[i] == Land -> commit(i, hat[i], Release, Idle) }

	:: atomic { runs(i) && pc[i] == Release ->
#ifdef RELEASE_EARLY
		if
		:: !unlanded[i] -> forget(i)
		:: else
		fi;
#else
		forget(i);
#endif
		if
#ifdef RELEASE_ANY
		:: reach(i) -> leaseMoves(0)
#else
		:: reach(i) && lease == i+1 -> leaseMoves(0)
		:: reach(i) && lease != i+1 -> skip
#endif
		:: !reach(i) -> abandon(i)
		:: reach(i) && lease == i+1 && lates > 0 && late == NoWrite ->
			lates--; late = LateRelease; lateBy = i+1; lateCurrent = true; abandon(i)
		fi;
		stalled[i] = false; pc[i] = Idle }

	/* What may befall it, and passes. */
	:: atomic { crashes > 0 && pc[i] != Dead -> crashes--;
		if
		:: !gone && atRisk(i) -> anyCrash = true
		:: else
		fi;
		if
		:: net[i] == Sent && orphan == 0 -> orphan = hrot[i]+1
		:: else
		fi;
		abandon(i); forget(i); paused[i] = false; stalled[i] = false; pc[i] = Dead }
	:: atomic { pc[i] == Dead -> pc[i] = Idle }
	:: atomic { pauses > 0 && runs(i) -> pauses--; paused[i] = true }
	:: paused[i] -> paused[i] = false
	:: atomic { cuts > 0 && !cut[i] -> cuts--; cut[i] = true }
	:: cut[i] -> cut[i] = false
	od
}

/* The authorization server. A refresh token is good once. */
inline redeem(t) {
	if
	:: revoked -> granted = false
	:: !revoked && t == newest -> newest++; age[newest] = 0; granted = true
	:: !revoked && t != newest ->
		assert(cause);		/* redeemed twice */
#ifndef REFUSE_ONLY
		revoked = true;
#endif
		granted = false
	fi
}

/* The connection breaks. The client asks once more with the same token. */
inline unanswered(j) {
	losses--; anyLost = true; net[j] = NoRequest;
	if
	:: again[j] -> forget(j); pc[j] = Release
	:: else -> again[j] = true; pc[j] = Confirm
	fi
}

/* The connection stands and no answer comes in time. The token is not sent again. */
inline timedOut(j) {
	slows--; anyLost = true; orphan = hrot[j]+1; slowOrphan = true; net[j] = NoRequest;
#ifdef RESEND
	pc[j] = Confirm
#else
	pc[j] = Hold
#endif
}

active proctype Server() {
	byte j;
	bool granted;
end:	do
	:: atomic { orphan > 0 -> redeem(orphan-1); orphan = 0; slowOrphan = false; granted = false }
	:: atomic { orphan > 0 -> orphan = 0; slowOrphan = false }
	:: atomic {
		if
		:: net[0] == Sent -> j = 0
		:: net[1] == Sent -> j = 1
#if N > 2
		:: net[2] == Sent -> j = 2
#endif
		fi;
		if
		:: redeem(hrot[j]);
			if
			:: granted -> net[j] = Granted
			:: else -> net[j] = Rejected
			fi
		:: downs > 0 -> downs--; net[j] = Unavailable
		:: losses > 0 && runs(j) && orphan == 0 -> orphan = hrot[j]+1; unanswered(j)
		:: losses > 0 && runs(j) -> redeem(hrot[j]); unanswered(j)
		:: slows > 0 && runs(j) && orphan == 0 -> timedOut(j)
		fi;
		granted = false; j = 0 }
	od
}

active proctype World() {
	byte m;
end:	do
	:: atomic { ticks > 0 -> ticks--;
		for (m : 0 .. TOKENS-1) {
			if
			:: m <= newest && age[m] < 2 -> age[m]++
			:: else
			fi
		}
		m = 0 }
	:: atomic { touches > 0 && !gone && up -> touches--; changed() }
	:: atomic { logouts > 0 && !gone && up -> logouts--;
		loggedOut = true; gone = true; rot = 0; at = 0; changed() }

	:: atomic { outages > 0 && up -> outages--; up = false }

	:: !up -> up = true

#ifdef WITNESS
	/* That this can happen: the check expects a violation. */
	:: atomic { (WITNESS) -> assert(false) }
#endif
#ifdef LEASE_TTL
	/* The store's clock runs while nobody can renew. */
	:: atomic { !up && lease == ABANDONED -> leaseMoves(0) }
	:: atomic { !up && lease > 0 && lease <= N && pc[lease-1] != Send -> leaseMoves(0) }
#endif

	:: atomic { late != NoWrite && up ->
		if
		:: late == LateCommit && !gone && lateCurrent -> put(lateRot, lateAt)
		:: late == LateAcquire && !gone && lateCurrent && lease == 0 -> lease = ABANDONED;
#ifdef OWNER_PER_PROCESS
			leaseName = lateBy
		:: late == LateRelease && lease != 0 && leaseName == lateBy -> lease = 0
#else
		:: late == LateRelease && lateCurrent -> lease = 0
#endif
		:: true		/* or never */
		fi;
		late = NoWrite; lateRot = 0; lateAt = 0; lateBy = 0; lateCurrent = false }
	od
}

#ifdef LIVE
#define due (!gone && age[at] > 0)
#define settled (gone || age[at] == 0)
ltl refreshed { [] (due -> <> settled) }
#endif
