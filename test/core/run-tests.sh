#!/usr/bin/env bash
# run-tests.sh OUT PREFIX PROGRAM...
# Runs test programs, as many at once as there are processors, each only those tests whose name starts
# with PREFIX (all, if empty), below the command $RUNNER if that is set. What a program prints comes when
# it has ended, as a whole. Writes "passed failed" to OUT.count. A program that dies counts as one
# failure more.
set -uo pipefail

if [ "$1" = --one ]; then # LOGS PREFIX PROGRAM: what xargs starts
  log=$2/$(basename "$(dirname "$4")").$(basename "$4") start=$SECONDS
  # shellcheck disable=SC2086 # RUNNER is a command with its options
  ${RUNNER:-} "$4" ${3:+"$3"} >"$log" 2>&1
  status=$?
  if [ "$status" != 0 ] && ! grep -q '^not ok ' "$log"; then
    echo "not ok $(basename "$4") ended with status $status" >>"$log"
  fi
  echo "# ${log##*/}: $((SECONDS - start)) s" >>"$log"
  cat "$log"
  exit 0
fi

out=$1 prefix=$2
shift 2
logs=$(mktemp -d)
trap 'rm -r "$logs"' EXIT
printf '%s\0' "$@" | xargs -0 -n 1 -P "$(getconf _NPROCESSORS_ONLN)" "$0" --one "$logs" "$prefix"
passed=$(cat "$logs"/* | grep -c '^ok ')
failed=$(cat "$logs"/* | grep -c '^not ok ')
echo "$passed $failed" >"$out.count"
echo "# core: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
