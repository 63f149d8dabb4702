#!/usr/bin/env bash
# run.sh [PREFIX]
# Proves the simulator: each script of this folder puts a typical bug back into a copy of the core,
# and the simulator has to find it within a thousand seeds: its test clusters_converge, or the one
# that a line "# found by …" names. Of the program only what differs is compiled anew. From the
# Makefile's folder, with its MUTANT_CC, MUTANT_FLAGS and MUTANT_LIBS.
# shellcheck disable=SC2086,SC2010 # lists of words; our own file names
set -euo pipefail

core=../../src/core out=../../build/test/sim

fail() {
  echo "# $2"
  echo "not ok mutant_$1"
  failed=$((failed + 1))
}

passed=0 failed=0
for script in mutants/*.sed; do
  name=$(basename "$script" .sed)
  [[ mutant_$name == "${1:-}"* ]] || continue
  here=$out/mutants/$name
  rm -rf "$here"
  mkdir -p "$here"
  objects=()
  for source in "$core"/*.c; do
    base=$(basename "$source" .c)
    sed -E -f "$script" "$source" >"$here/$base.c"
    if cmp -s "$source" "$here/$base.c"; then
      rm "$here/$base.c"
      objects+=("$out/core_$base.o")
    else
      $MUTANT_CC $MUTANT_FLAGS -c "$here/$base.c" -o "$here/$base.o"
      objects+=("$here/$base.o")
    fi
  done
  if ! ls "$here"/*.o >/dev/null 2>&1; then
    fail "$name" "$script no longer applies to any file of the core"
    continue
  fi
  others=$(ls "$out"/*.o | grep -v '/core_\|/test_\|/fuzz_')
  $MUTANT_CC "${objects[@]}" $others "$out/test_sim.o" $MUTANT_LIBS -o "$here/test_sim"
  finder=$(sed -n 's/^# found by //p' "$script") status=0
  SEEDS=${SEEDS:-1000} timeout 300 "$here/test_sim" "${finder:-clusters_converge}" \
    >"$here/log" 2>&1 || status=$?
  if [ "$status" = 0 ]; then
    fail "$name" "the simulator does not notice it"
  elif [ "$status" = 124 ]; then
    fail "$name" "the simulator has not noticed it in five minutes"
  else
    grep -m2 "^# .*:.*:\|replay\|runtime error" "$here/log" || true
    echo "ok mutant_$name"
    passed=$((passed + 1))
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
