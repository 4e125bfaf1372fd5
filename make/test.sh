#!/usr/bin/env bash
# Runs cargo test and says how much passed: test.sh LIFECYCLE CARGO-TEST-ARGUMENTS...
#
# LIFECYCLE is the directory of the executables that the acceptance tests run. A test that cannot run here (it needs root,
# docker, runc ...) prints "skipped: " and why; those lines are repeated at the end.
set -uo pipefail
cd "$(dirname "$0")/.."

lifecycle=${1:?usage: make/test.sh LIFECYCLE CARGO-TEST-ARGUMENTS...}
shift
make/need.sh bash=bash busybox=busybox-static docker-registry=docker-registry skopeo=skopeo umoci=umoci jq=jq runc=runc \
  debootstrap=debootstrap ||
  echo "test: without these the tests that need them skip themselves"

log=$(mktemp)
# What passing tests print is kept for the lines that say "skipped", but not shown.
LIFECYCLE=$lifecycle cargo test --locked --no-fail-fast "$@" -- --show-output 2>&1 | tee "$log" |
  awk '/^successes:$/ { hide = 1 } /^(failures:|test result:)/ { hide = 0 } !hide'
status=${PIPESTATUS[0]}

echo
grep -E '^skipped: ' "$log" | sort | uniq -c
read -r passed failed ignored < <(awk '/^test result:/ { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$log")
rm -f "$log"
# A suite that does not compile, or is killed, has no "failed" tests of its own.
((status == 0 || failed > 0)) || failed=1
((ignored == 0)) || echo "$ignored ignored"
echo "$passed passed, $failed failed"
exit "$status"
