#!/bin/bash
# Checks the model of the refresh protocol: that it holds under the faults named
# here, that what it claims to survive does occur in it, and that without any of
# its guards it is caught. Quiet when all is well; -v shows each run.
# Needs spin and a C compiler.
set -euo pipefail
cd "$(dirname "$0")"
verbose=${1:-}
for tool in spin gcc; do
	command -v $tool >/dev/null || { echo "check.sh: $tool is not installed" >&2; exit 1; }
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# What is run: a name, what is expected of it, the flags. "holds" and "live" are
# searched to the end, for a broken assertion and, fairly, for a due session that
# is never settled. "witness" has to be reached. "stuck" is a liveness that fails.
# Everything else is the assertion that has to break, as the checker prints it.
runs() {
	# Nothing that costs a session: it is never ended, no token is sent twice.
	row calm-3            holds -DN=3 -DOUTAGE=1 -DTOUCH=1 -DDOWN=1 -DLOGOUT=1
	row calm-late-2       holds -DN=2 -DOUTAGE=1 -DTOUCH=1 -DDOWN=1 -DLOGOUT=1 -DFOREIGN=1 -DLATE=2
	row calm-long-2       holds -DN=2 -DOUTAGE=2 -DTOUCH=1 -DLATE=1 -DTICKS=3
	# All that may befall it.
	row crash-outage-3    holds -DN=3 -DCRASH=1 -DOUTAGE=1
	row crash-late-3      holds -DN=3 -DCRASH=1 -DLATE=1
	row pause-late-3      holds -DN=3 -DPAUSE=1 -DLATE=1 -DLOGOUT=1
	row pause-twice-3     holds -DN=3 -DPAUSE=2
	row cut-outage-3      holds -DN=3 -DCUT=1 -DOUTAGE=1 -DLOGOUT=1
	row lost-3            holds -DN=3 -DLOST=1 -DDOWN=1 -DLOGOUT=1
	row all-of-it-2       holds -DN=2 -DCRASH=1 -DPAUSE=1 -DOUTAGE=1 -DLOGOUT=1 -DTOUCH=1
	row slow-3            holds -DN=3 -DSLOW=1 -DLOGOUT=1
	row slow-down-2       holds -DN=2 -DSLOW=2 -DDOWN=1 -DLATE=1 -DTOUCH=1
	row slow-crash-2      holds -DN=2 -DSLOW=1 -DCRASH=1 -DOUTAGE=1
	row lost-crash-2      holds -DN=2 -DLOST=2 -DDOWN=1 -DCRASH=1 -DFOREIGN=1 -DTOUCH=1
	row refuse-cut-2      holds -DN=2 -DREFUSE_ONLY -DCUT=1 -DPAUSE=1 -DLATE=1
	row refuse-pause-2    holds -DN=2 -DREFUSE_ONLY -DPAUSE=2 -DLOST=1
	# Every due session is settled in the end.
	row live-3            live  -DLIVE -DN=3 -DOUTAGE=1 -DLATE=1
	row live-crash-3      live  -DLIVE -DN=3 -DCRASH=1
	row live-crash-2      live  -DLIVE -DN=2 -DCRASH=1 -DOUTAGE=1 -DLATE=1
	row live-pause-2      live  -DLIVE -DN=2 -DPAUSE=1 -DLATE=1 -DTOUCH=1
	row live-cut-2        live  -DLIVE -DN=2 -DCUT=1 -DLOST=1 -DDOWN=1
	row live-slow-2       live  -DLIVE -DN=2 -DSLOW=1 -DOUTAGE=1
	row live-logout-2     live  -DLIVE -DN=2 -DLOGOUT=1 -DFOREIGN=1 -DPAUSE=1

	# Without these the runs above could hold because nothing happens.
	row refreshed-twice   witness -DN=3 "-DWITNESS='(at==2&&rot==2&&lease==0)'"
	row outage-landed     witness -DN=2 -DOUTAGE=1 "-DWITNESS='(up&&pc[0]==Land&&pc[1]==Watch)'"
	row crash-recovered   witness -DN=2 -DCRASH=1 "-DWITNESS='(crashes==0&&pc[0]==Dead&&lease==2&&at==1)'"
	row crash-relogin     witness -DN=2 -DCRASH=1 "-DWITNESS='(gone&&anyCrash)'"
	row pause-survived    witness -DN=2 -DPAUSE=1 "-DWITNESS='(anyStall&&at==1&&!revoked&&lease==0)'"
	row pause-relogin     witness -DN=2 -DPAUSE=1 "-DWITNESS='(gone&&anyStall)'"
	row lost-relogin      witness -DN=2 -DLOST=1 "-DWITNESS='(gone&&anyLost)'"
	row lost-survived     witness -DN=2 -DLOST=1 "-DWITNESS='(at==1&&anyLost)'"
	row slow-survived     witness -DN=2 -DSLOW=1 "-DWITNESS='(slows==0&&at==1&&lease==0)'"
	row slow-relogin      witness -DN=2 -DSLOW=1 "-DWITNESS='(gone&&slows==0)'"
	row crash-unwritten   witness -DN=2 -DCRASH=1 "-DWITNESS='(gone&&anyCrash&&judged[1]&&at==0)'"
	row late-merged       witness -DN=2 -DLATE=1 -DTOUCH=1 "-DWITNESS='(lates==0&&touches==0&&at==1&&lease==0)'"
	row logout-in-flight  witness -DN=2 -DLOGOUT=1 "-DWITNESS='(loggedOut&&net[0]==Granted)'"

	# Each guard taken away.
	row no-version        'age[at]>0'      -DN=2 -DNO_VERSION
	row no-rotation       'hrot[i]>=rot'   -DN=2 -DNO_ROTATION -DPAUSE=1
	row upsert            '!(loggedOut)&&' -DN=2 -DUPSERT -DLOGOUT=1
	row no-confirm        riskyStall       -DN=2 -DNO_CONFIRM -DCUT=1
	row release-any       'lease==(i+1)'   -DN=2 -DRELEASE_ANY -DPAUSE=1
	row owner-per-process 'lease==(i+1)'   -DN=2 -DOWNER_PER_PROCESS -DLATE=1
	row judge-first       'anyCrash'       -DN=2 -DJUDGE_FIRST -DCRASH=1
	row show-unjudged     'judged[hat[i]]' -DN=2 -DSHOW_UNJUDGED
	row no-memory         'anyCrash'       -DN=2 -DNO_MEMORY -DOUTAGE=1
	row memory-blind      '!(loggedOut)'   -DN=2 -DMEMORY_BLIND -DOUTAGE=1 -DLOGOUT=1
	row early-unjudged    'judged[hrot[i]]' -DN=2 -DEARLY_UNJUDGED
	row early-blind       '!(loggedOut)'   -DN=2 -DEARLY_BLIND -DLOGOUT=1
	row release-early     'anyCrash'       -DN=2 -DRELEASE_EARLY -DOUTAGE=1
	row lease-ttl         'net[k]!='       -DN=2 -DLEASE_TTL -DOUTAGE=1
	row slow-resend       'slowOrphan'     -DN=2 -DSLOW=1 -DRESEND
	row slow-release      'slowOrphan'     -DN=2 -DSLOW=1 -DNO_HOLD
	row end-any           'stalled[i]'     -DN=2 -DEND_ANY -DPAUSE=1
	row no-takeover       stuck            -DN=2 -DLIVE -DNO_TAKEOVER -DCRASH=1
}

row() { printf '%s\t' "$@"; printf '\n'; }

# one checks one row. Memory is bounded: two at a time take 2 GB at most.
one() {
	local name=$1 want=$2 flags=("${@:3}") cc=(-DSAFETY) run=(-n -m200000 -w22) out states
	case $want in
	live | stuck) cc=(-DNFAIR=3) run+=(-a -f) ;;
	holds) ;;
	*) cc=(-DSAFETY -DBFS) run=(-n -w20) ;; # the shortest way there
	esac
	mkdir "$dir/$name"
	cd "$dir/$name"
	if ! out=$(spin -a "${flags[@]}" "$model" 2>&1) || grep -qi error <<<"$out"; then
		echo "$name: spin: $out"
		return 1
	fi
	# Not optimized: compiling would take longer than it saves.
	gcc -w -DMEMLIM=1000 "${cc[@]}" -o pan pan.c
	# The limit is for a model that has grown by mistake; a busy machine must not reach it.
	out=$(timeout 3600 ./pan "${run[@]}" 2>&1) || true
	states=$(awk '/states, stored/ {print $1; exit}' <<<"$out")
	case $want in
	holds | live) [[ $out == *"errors: 0"* && $out != *"max search depth too small"* && $out != *"out of memory"* && $out != *"not completed"* ]] ;;
	witness) grep -q 'assertion violated 0' <<<"$out" ;;
	stuck) grep -q 'acceptance cycle (at' <<<"$out" ;;
	*) grep 'assertion violated' <<<"$out" | grep -qF -- "$want" ;;
	esac || {
		printf '%s: expected: %s (%s)\n%s\n' "$name" "$want" "${flags[*]}" "$out"
		return 1
	}
	rm -rf "$dir/$name"
	[[ $verbose != -v ]] || printf '%-18s %-15s %9s states  %s\n' "$name" "$want" "$states" "${flags[*]}"
}

model=$PWD/refresh.pml
export dir model verbose
export -f one
runs | sed 's/\t$//' | tr '\t\n' '\n\0' | xargs -0 -P 2 -I{} bash -c 'mapfile -t row <<<"$1"; one "${row[@]}"' _ {}
