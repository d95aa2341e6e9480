#!/bin/bash
# Checks the model of the refresh protocol. The invariants must hold under the faults
# named here. The faults that the protocol survives must occur in the model. Without any
# one of its guards, an invariant must break. Prints nothing on success; -v shows each
# run. Needs spin and gcc.
set -euo pipefail
cd "$(dirname "$0")"
verbose=${1:-}
for tool in spin gcc; do
	command -v $tool >/dev/null || { echo "check.sh: $tool is not installed" >&2; exit 1; }
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Each row has a name, the expected result, and the flags. "holds" is an exhaustive search
# that finds no broken assertion. "live" is an exhaustive search, under weak fairness, that
# finds no due session which is never settled; "stuck" must find one. "witness" is a state
# that must be reachable. Any other result is the assertion that must break, as spin prints
# it.
runs() {
	# Faults that cost no session: it never ends, and no token is sent twice.
	row calm-3            holds -DN=3 -DOUTAGE=1 -DTOUCH=1 -DDOWN=1 -DLOGOUT=1
	row calm-late-2       holds -DN=2 -DOUTAGE=1 -DTOUCH=1 -DDOWN=1 -DLOGOUT=1 -DFOREIGN=1 -DLATE=2
	row calm-long-2       holds -DN=2 -DOUTAGE=2 -DTOUCH=1 -DLATE=1 -DTICKS=3
	# All other faults.
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
	# Every due session is settled.
	row live-3            live  -DLIVE -DN=3 -DOUTAGE=1 -DLATE=1
	row live-crash-3      live  -DLIVE -DN=3 -DCRASH=1
	row live-crash-2      live  -DLIVE -DN=2 -DCRASH=1 -DOUTAGE=1 -DLATE=1
	row live-pause-2      live  -DLIVE -DN=2 -DPAUSE=1 -DLATE=1 -DTOUCH=1
	row live-cut-2        live  -DLIVE -DN=2 -DCUT=1 -DLOST=1 -DDOWN=1
	row live-slow-2       live  -DLIVE -DN=2 -DSLOW=1 -DOUTAGE=1
	row live-logout-2     live  -DLIVE -DN=2 -DLOGOUT=1 -DFOREIGN=1 -DPAUSE=1

	# Without these the runs above could hold because the faults do not occur.
	row refreshed-twice   witness -DN=3 "-DWITNESS='(at==2&&rot==2&&lease==0)'"
	row outage-written    witness -DN=2 -DOUTAGE=1 "-DWITNESS='(up&&pc[0]==RetryWrite&&pc[1]==AwaitLease)'"
	row crash-recovered   witness -DN=2 -DCRASH=1 "-DWITNESS='(crashes==0&&pc[0]==Dead&&lease==2&&at==1)'"
	row crash-relogin     witness -DN=2 -DCRASH=1 "-DWITNESS='(gone&&anyCrash)'"
	row pause-survived    witness -DN=2 -DPAUSE=1 "-DWITNESS='(anyStall&&at==1&&!revoked&&lease==0)'"
	row pause-relogin     witness -DN=2 -DPAUSE=1 "-DWITNESS='(gone&&anyStall)'"
	row lost-relogin      witness -DN=2 -DLOST=1 "-DWITNESS='(gone&&anyLost)'"
	row lost-survived     witness -DN=2 -DLOST=1 "-DWITNESS='(at==1&&anyLost)'"
	row slow-survived     witness -DN=2 -DSLOW=1 "-DWITNESS='(slows==0&&at==1&&lease==0)'"
	row slow-relogin      witness -DN=2 -DSLOW=1 "-DWITNESS='(gone&&slows==0)'"
	row crash-unwritten   witness -DN=2 -DCRASH=1 "-DWITNESS='(gone&&anyCrash&&verified[1]&&at==0)'"
	row late-merged       witness -DN=2 -DLATE=1 -DTOUCH=1 "-DWITNESS='(lates==0&&touches==0&&at==1&&lease==0)'"
	row logout-in-flight  witness -DN=2 -DLOGOUT=1 "-DWITNESS='(loggedOut&&net[0]==Granted)'"

	# Each guard removed.
	row no-version        'age[at]>0'      -DN=2 -DNO_VERSION
	row no-rotation       'hrot[i]>=rot'   -DN=2 -DNO_ROTATION -DPAUSE=1
	row upsert            '!(loggedOut)&&' -DN=2 -DUPSERT -DLOGOUT=1
	row no-confirm        riskyStall       -DN=2 -DNO_CONFIRM -DCUT=1
	row release-any       'lease==(i+1)'   -DN=2 -DRELEASE_ANY -DPAUSE=1
	row holder-per-process 'lease==(i+1)'   -DN=2 -DHOLDER_PER_PROCESS -DLATE=1
	row verify-first      'anyCrash'       -DN=2 -DVERIFY_FIRST -DCRASH=1
	row show-unverified   'verified[hat[i]]' -DN=2 -DSHOW_UNVERIFIED
	row no-memory         'anyCrash'       -DN=2 -DNO_MEMORY -DOUTAGE=1
	row memory-blind      '!(loggedOut)'   -DN=2 -DMEMORY_BLIND -DOUTAGE=1 -DLOGOUT=1
	row publish-unverified 'verified[hrot[i]]' -DN=2 -DPUBLISH_UNVERIFIED
	row publish-blind     '!(loggedOut)'   -DN=2 -DPUBLISH_BLIND -DLOGOUT=1
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
	*) cc=(-DSAFETY -DBFS) run=(-n -w20) ;; # finds the shortest path
	esac
	mkdir "$dir/$name"
	cd "$dir/$name"
	if ! out=$(spin -a "${flags[@]}" "$model" 2>&1) || grep -qi error <<<"$out"; then
		echo "$name: spin: $out"
		return 1
	fi
	# No optimization: compiling would take longer than it saves.
	gcc -w -DMEMLIM=1000 "${cc[@]}" -o pan pan.c
	# The limit stops a model that has grown by mistake, even on a busy machine.
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
