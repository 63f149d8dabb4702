#!/usr/bin/env bash
# run-tests.sh OUT PREFIX PROGRAM...
# Runs test programs one after another, each only those tests whose name starts with PREFIX (all, if
# empty), below the command $RUNNER if that is set. Writes "passed failed" to OUT.count. A program
# that dies counts as one failure more.
set -uo pipefail

out=$1 prefix=$2
shift 2
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for program; do
  echo "# $(basename "$program")"
  # shellcheck disable=SC2086 # RUNNER is a command with its options
  ${RUNNER:-} "$program" ${prefix:+"$prefix"} | tee "$log"
  status=${PIPESTATUS[0]}
  ok=$(grep -c '^ok ' "$log")
  not_ok=$(grep -c '^not ok ' "$log")
  if [ "$status" != 0 ] && [ "$not_ok" = 0 ]; then
    echo "not ok $(basename "$program") ended with status $status"
    not_ok=1
  fi
  passed=$((passed + ok)) failed=$((failed + not_ok))
done
echo "$passed $failed" >"$out.count"
echo "# core: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
