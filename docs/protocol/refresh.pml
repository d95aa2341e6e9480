/*
 * The refresh of one session by N instances on one shared store. README.md
 * explains the protocol, the invariants and what the model leaves out; check.sh
 * runs the model with faults and mutations.
 *
 * Versions are compared for equality only and never repeat, so an instance
 * keeps one bit instead of the number: whether the version that it read is
 * still that of the store. A cached read is an old read: any time may pass
 * between a read and the next step.
 */

#ifndef N
#define N 2		/* instances */
#endif

/* How often each event may happen in one run. */
#ifndef TICKS
#define TICKS 2		/* access tokens age from fresh to due to expired */
#endif
#ifndef TOUCH
#define TOUCH 0		/* the last use is written, which changes the version alone */
#endif
#ifndef LOGOUT
#define LOGOUT 0
#endif
#ifndef FOREIGN
#define FOREIGN 0	/* an ID token is of another login */
#endif
#ifndef CRASH
#define CRASH 0		/* an instance dies and restarts */
#endif
#ifndef PAUSE
#define PAUSE 0		/* an instance stops and resumes */
#endif
#ifndef CUT
#define CUT 0		/* one instance loses the store for a while */
#endif
#ifndef OUTAGE
#define OUTAGE 0	/* all instances lose the store for a while */
#endif
#ifndef LATE
#define LATE 0		/* a write that reports an error succeeds now, later or never */
#endif
#ifndef LOST
#define LOST 0		/* the connection breaks; the server redeems the token now, later or never */
#endif
#ifndef SLOW
#define SLOW 0		/* no answer in time: the server still works on the request */
#endif
#ifndef DOWN
#define DOWN 0		/* the authorization server is unavailable */
#endif

#define TOKENS 8

mtype = { Idle, Acquire, AwaitLease, Confirm, Send, AwaitAnswer, KeepLease, Commit1, Verify, Commit2, RetryWrite, Delete, Release, Dead };
mtype = { NoRequest, Sent, Granted, Rejected, Unavailable };	/* a redemption */
mtype = { NoWrite, LateAcquire, LateCommit, LateRelease };

/* The authorization server: refresh token k, redeemed, gives refresh token and
   access token k+1. So a number names a rotation and both of its tokens. */
byte newest;
bool revoked;
byte age[TOKENS];	/* of access tokens: 0 fresh, 1 due, 2 expired */
bool verified[TOKENS];
byte orphan;		/* 1 + a refresh token in a request without a waiting client */
bool slowOrphan;	/* the request of orphan has timed out */

/* The store: the item and the lease. */
bool up = true;
bool gone;
byte rot;		/* the rotation, which also names the refresh token */
byte at;		/* the access token */
byte lease;		/* 0, or 1 + its holder, or ABANDONED: no instance renews it */
#define ABANDONED 255
#ifdef HOLDER_PER_PROCESS
byte leaseHolder;		/* 1 + the instance that acquired it last */
#endif

/* A write that has reported an error. */
mtype late = NoWrite;
byte lateRot, lateAt, lateBy;
bool lateCurrent;	/* the version or lease that it compares is still current */

/* The instances. */
mtype pc[N] = Idle;
byte hrot[N], hat[N];	/* the instance's record: read, or made from an answer */
bool current[N];	/* its version is that of the store */
bool unwritten[N];	/* a commit failed: the record is served from memory */
mtype net[N] = NoRequest;
bool resent[N];		/* the token has been sent before, without an answer */
bool paused[N], cut[N];

/* Past events, for the invariants. */
bool stalled[N];	/* was stopped or cut off, and lost its lease */
bool anyStall;
bool riskyStall;	/* between the last renewal before sending and the commit of the answer */
bool anyCrash;		/* between sending a refresh token and committing the next */
bool anyLost;		/* an answer was lost */
bool loggedOut, foreign;
#define cause (riskyStall || anyCrash || anyLost)
/* A late commit of an instance that has crashed. */
#define lateOfTheDead (crashes < CRASH && lates < LATE)

byte ticks = TICKS, touches = TOUCH, logouts = LOGOUT, foreigns = FOREIGN;
byte crashes = CRASH, pauses = PAUSE, cuts = CUT, outages = OUTAGE;
byte lates = LATE, losses = LOST, slows = SLOW, downs = DOWN;

#define runs(i) (!paused[i] && pc[i] != Dead)
#define reach(i) (up && !cut[i])

byte k;		/* for loops inside atomic, 0 outside */

/* The item has a new version: that of every instance is outdated. */
inline newVersion() {
	for (k : 0 .. N-1) { current[k] = false }
	k = 0;
	if
	:: late == LateCommit || late == LateAcquire -> lateCurrent = false
	:: else
	fi
}

/* The compare-and-set succeeds: the item is written. */
inline write(r, a) {
	assert(r >= rot);		/* no older rotation replaces a newer one */
	assert(!loggedOut && !foreign);	/* no session returns after its end */
	newVersion();
	gone = false; rot = r; at = a;
}

inline forget(i) {
	hrot[i] = 0; hat[i] = 0; current[i] = false; unwritten[i] = false; resent[i] = false; net[i] = NoRequest
}

inline setLease(to) {
	if
	:: late == LateRelease -> lateCurrent = false
	:: else
	fi;
	lease = to
}

/* Instance i no longer renews its lease; the store still has it. */
inline abandon(i) {
	if
	:: lease == i+1 -> lease = ABANDONED
	:: else
	fi
}

inline takeLease(i) {
	setLease(i+1);
#ifdef HOLDER_PER_PROCESS
	leaseHolder = i+1;
#endif
	stalled[i] = false; pc[i] = Confirm
}

/* A request is served from the instance's record. The token must be verified, unless it
   has expired: that is never served. */
inline serve(i) {
	assert(age[hat[i]] == 2 || hat[i] == 0 || verified[hat[i]])
}

/* A commit has failed: the record is served from memory. */
inline failed(i, next) {
#ifdef NO_MEMORY
	forget(i); pc[i] = Release
#else
	unwritten[i] = true; pc[i] = next
#endif
}

/* One try to commit (hrot, a). The next step is then after a success, and otherwise
   after a failure. */
inline commit(i, a, then, otherwise) {
	if
	:: !reach(i) -> failed(i, otherwise)
	:: reach(i) && lates > 0 && late == NoWrite ->
		lates--; late = LateCommit; lateRot = hrot[i]; lateAt = a; lateCurrent = current[i];
		failed(i, otherwise)
	:: reach(i) && gone ->
#ifdef UPSERT
		write(hrot[i], a); current[i] = true; unwritten[i] = false; pc[i] = then
#else
		/* Only a logout makes an instance that was not stopped lose its tokens. */
		assert(loggedOut || foreign || stalled[i]);
		revoked = true; forget(i); pc[i] = Release
#endif
	:: reach(i) && !gone && current[i] ->
		write(hrot[i], a); current[i] = true; unwritten[i] = false; pc[i] = then
	:: reach(i) && !gone && !current[i] ->
		if
#ifndef NO_ROTATION
		:: rot > hrot[i] -> forget(i); pc[i] = Release		/* use that record */
#endif
		:: rot == hrot[i] && at == a -> current[i] = true; unwritten[i] = false; pc[i] = then
		:: else -> current[i] = true				/* merge the use, try again */
		fi
	fi
}

/* A refresh token was sent, and the next one is not committed. */
#define atRisk(i) (net[i] == Sent || net[i] == Granted || pc[i] == Commit1 || ((unwritten[i] || pc[i] == Commit2) && rot < hrot[i]))

#ifdef NO_HOLD
#define serverDone true
#else
#define serverDone !slowOrphan
#endif

/* A holder in Send has just renewed its lease. It sends before another instance can take
   the lease over, unless it is stopped there. */
#define leaseExpired(i) (paused[i] || (cut[i] && pc[i] != Send))

active [N] proctype Instance() {
	byte i = _pid;
end:	do
	/* A request reads. A record in memory replaces an older item that exists. */
	:: atomic { runs(i) && pc[i] == Idle && !unwritten[i] && reach(i) && !gone ->
		hrot[i] = rot; hat[i] = at; current[i] = true; pc[i] = Acquire }
	:: atomic { runs(i) && pc[i] == Idle && unwritten[i] && reach(i) ->
		if
		:: gone || rot > hrot[i] -> forget(i); pc[i] = Release
		:: else -> serve(i); pc[i] = RetryWrite
		fi }
#ifdef MEMORY_BLIND
	:: atomic { runs(i) && pc[i] == Idle && unwritten[i] && age[hat[i]] < 2 -> assert(!loggedOut) }
#endif

	/* Serve the record, and refresh it if it is due. */
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
		:: age[hat[i]] > 0 && reach(i) && !gone && matches(i) && lease == 0 -> takeLease(i)
#ifdef HOLDER_PER_PROCESS
		:: age[hat[i]] > 0 && reach(i) && !gone && matches(i) && lease == ABANDONED && leaseHolder == i+1 -> takeLease(i)
#endif
		:: age[hat[i]] > 0 && reach(i) && !gone && matches(i) && lease != 0 -> pc[i] = AwaitLease
		:: age[hat[i]] > 0 && reach(i) && !gone && lates > 0 && late == NoWrite ->
			lates--; late = LateAcquire; lateBy = i+1; lateCurrent = current[i];
			forget(i); pc[i] = Idle
		fi }

	/* Wait for a push, or until the lease expires while the store answers. */
	:: atomic { runs(i) && pc[i] == AwaitLease && (!reach(i) || gone || !current[i] || lease == 0) ->
		forget(i); pc[i] = Idle }
#ifndef NO_TAKEOVER
	:: atomic { runs(i) && pc[i] == AwaitLease && reach(i) && !gone && current[i] && lease == ABANDONED ->
		takeLease(i) }
	:: atomic { runs(i) && pc[i] == AwaitLease && reach(i) && !gone && current[i] &&
		lease > 0 && lease <= N && leaseExpired(lease-1) ->
		stalled[lease-1] = true; anyStall = true;
		if
		:: atRisk(lease-1) || pc[lease-1] == Send -> riskyStall = true
		:: else
		fi;
		if
		:: takeLease(i)
		:: lates > 0 -> lates--; setLease(ABANDONED); forget(i); pc[i] = Idle
		fi }
#endif

	/* The lease must be renewed before a token is sent. */
	:: atomic { runs(i) && pc[i] == Confirm ->
#ifndef NO_CONFIRM
		if
		:: !reach(i) || lease != i+1 -> forget(i); pc[i] = Release
		:: reach(i) && lease == i+1 -> pc[i] = Send
		fi }
#else
		pc[i] = Send }
#endif
	/* Redeem. An instance that was not stopped has the lease, and is the only one. */
	:: atomic { runs(i) && pc[i] == Send ->
		assert(lease == i+1 || stalled[i]);
		assert(anyStall || lateOfTheDead || gone || age[at] > 0);	/* the token is due */
		for (k : 0 .. N-1) { assert(k == i || net[k] != Sent || stalled[i] || stalled[k]) }
		k = 0;
		assert(!slowOrphan || orphan != hrot[i]+1 || anyStall || crashes < CRASH);	/* no second request with one token */
		net[i] = Sent; pc[i] = AwaitAnswer }
	/* After a time-out the lease is held until the server has finished the request: the
	   back-off is at least that long. */
	:: atomic { runs(i) && pc[i] == KeepLease && serverDone -> forget(i); pc[i] = Release }
	:: atomic { runs(i) && pc[i] == AwaitAnswer && net[i] == Granted ->
		net[i] = NoRequest; resent[i] = false; hrot[i]++;
#ifdef VERIFY_FIRST
		pc[i] = Verify }
#else
		pc[i] = Commit1 }
#endif
	:: atomic { runs(i) && pc[i] == AwaitAnswer && net[i] == Unavailable -> forget(i); pc[i] = Release }
	:: atomic { runs(i) && pc[i] == AwaitAnswer && net[i] == Rejected ->
		if
		:: !reach(i) || gone -> forget(i); pc[i] = Release
		:: reach(i) && !gone && rot > hrot[i] -> forget(i); pc[i] = Release	/* use that record */
		:: reach(i) && !gone && rot == hrot[i] -> net[i] = NoRequest; pc[i] = Delete
		fi }
	/* The session ends if this instance still has the lease. */
	:: atomic { runs(i) && pc[i] == Delete ->
		if
		:: !reach(i) || gone -> skip
#ifdef END_ANY
		:: reach(i) && !gone ->
#else
		:: reach(i) && !gone && (rot > hrot[i] || lease != i+1) -> skip
		:: reach(i) && !gone && rot == hrot[i] && lease == i+1 ->
#endif
			assert(cause); gone = true; rot = 0; at = 0; newVersion()
		fi;
		forget(i); pc[i] = Release }

	/* Commit the refresh token with the old access token. */
	:: atomic { runs(i) && pc[i] == Commit1 ->
#ifdef SHOW_UNVERIFIED
		commit(i, hrot[i], Verify, Verify)
#else
		commit(i, hat[i], Verify, Verify)
#endif
		}
	/* If the ID token is verified at once, one commit is enough. */
	:: atomic { runs(i) && pc[i] == Commit1 -> verified[hrot[i]] = true; hat[i] = hrot[i]; pc[i] = Commit2 }
	:: atomic { runs(i) && pc[i] == Commit1 && foreigns > 0 && reach(i) ->
		foreigns--; foreign = true; gone = true; rot = 0; at = 0; newVersion(); forget(i); pc[i] = Release }
	:: atomic { runs(i) && pc[i] == Verify -> verified[hrot[i]] = true; hat[i] = hrot[i]; pc[i] = Commit2 }
	:: atomic { runs(i) && pc[i] == Verify && foreigns > 0 && reach(i) ->
		foreigns--; foreign = true; gone = true; rot = 0; at = 0; newVersion(); forget(i); pc[i] = Release }
	:: atomic { runs(i) && pc[i] == Commit2 ->
#ifdef RELEASE_EARLY
		commit(i, hat[i], Release, Release)
#else
		commit(i, hat[i], Release, Idle)
#endif
		}
	/* Requests do not wait for a slow commit if the session exists. They could repeat
	   without end, which would not be progress. */
#ifdef PUBLISH_UNVERIFIED
	:: atomic { runs(i) && pc[i] == Verify && reach(i) && !gone -> assert(verified[hrot[i]]) }
#endif
#ifdef PUBLISH_BLIND
	:: atomic { runs(i) && pc[i] == Commit2 -> serve(i); assert(!loggedOut) }
#elif !defined(LIVE)
	:: atomic { runs(i) && pc[i] == Commit2 && reach(i) && !gone -> serve(i); assert(!loggedOut) }
#endif
	:: atomic { runs(i) && pc[i] == RetryWrite -> commit(i, hat[i], Release, Idle) }

	:: atomic { runs(i) && pc[i] == Release ->
#ifdef RELEASE_EARLY
		if
		:: !unwritten[i] -> forget(i)
		:: else
		fi;
#else
		forget(i);
#endif
		if
#ifdef RELEASE_ANY
		:: reach(i) -> setLease(0)
#else
		:: reach(i) && lease == i+1 -> setLease(0)
		:: reach(i) && lease != i+1 -> skip
#endif
		:: !reach(i) -> abandon(i)
		:: reach(i) && lease == i+1 && lates > 0 && late == NoWrite ->
			lates--; late = LateRelease; lateBy = i+1; lateCurrent = true; abandon(i)
		fi;
		stalled[i] = false; pc[i] = Idle }

	/* Faults, and their end. */
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

/* The authorization server redeems a refresh token once. */
inline redeem(t) {
	if
	:: revoked -> granted = false
	:: !revoked && t == newest -> newest++; age[newest] = 0; granted = true
	:: !revoked && t != newest ->
		assert(cause);		/* redeemed a second time */
#ifndef REFUSE_ONLY
		revoked = true;
#endif
		granted = false
	fi
}

/* The connection breaks. The client sends the same token once more. */
inline unanswered(j) {
	losses--; anyLost = true; net[j] = NoRequest;
	if
	:: resent[j] -> forget(j); pc[j] = Release
	:: else -> resent[j] = true; pc[j] = Confirm
	fi
}

/* No answer comes in time. The token is not sent again. */
inline timedOut(j) {
	slows--; anyLost = true; orphan = hrot[j]+1; slowOrphan = true; net[j] = NoRequest;
#ifdef RESEND
	pc[j] = Confirm
#else
	pc[j] = KeepLease
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
	:: atomic { touches > 0 && !gone && up -> touches--; newVersion() }
	:: atomic { logouts > 0 && !gone && up -> logouts--;
		loggedOut = true; gone = true; rot = 0; at = 0; newVersion() }

	:: atomic { outages > 0 && up -> outages--; up = false }

	:: !up -> up = true

#ifdef WITNESS
	/* The state is reachable: the check expects a violation. */
	:: atomic { (WITNESS) -> assert(false) }
#endif
#ifdef LEASE_TTL
	/* The store's clock runs while no instance can renew. */
	:: atomic { !up && lease == ABANDONED -> setLease(0) }
	:: atomic { !up && lease > 0 && lease <= N && pc[lease-1] != Send -> setLease(0) }
#endif

	:: atomic { late != NoWrite && up ->
		if
		:: late == LateCommit && !gone && lateCurrent -> write(lateRot, lateAt)
		:: late == LateAcquire && !gone && lateCurrent && lease == 0 -> lease = ABANDONED;
#ifdef HOLDER_PER_PROCESS
			leaseHolder = lateBy
		:: late == LateRelease && lease != 0 && leaseHolder == lateBy -> lease = 0
#else
		:: late == LateRelease && lateCurrent -> lease = 0
#endif
		:: true		/* never */
		fi;
		late = NoWrite; lateRot = 0; lateAt = 0; lateBy = 0; lateCurrent = false }
	od
}

#ifdef LIVE
#define due (!gone && age[at] > 0)
#define settled (gone || age[at] == 0)
ltl refreshed { [] (due -> <> settled) }
#endif
