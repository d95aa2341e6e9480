#!/usr/bin/env bash
# Searches the product's dependencies for known vulnerabilities in called code.
# The database is on the internet; GOVULNDB=file:///path selects a local copy.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$(go tool -modfile=tools/vuln/go.mod govulncheck ./... 2>&1)
status=$?
printf '%s\n' "$out"
case $out in
*'fetching vulnerabilities'*)
	echo 'vuln: NOT CHECKED: the vulnerability database is unreachable. Run this with internet access, or set GOVULNDB=file:///path to a local copy.' >&2
	;;
esac
exit $status
