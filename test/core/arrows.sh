#!/usr/bin/env bash
# arrows.sh CORE OBJECTS: fails where a file of a lower floor of src/core includes a header of a higher one, where
# its object file takes a symbol from one there (nm), or where files call each other in a circle, unless arrows.txt
# lists it; and where that lists what is gone. Floors from below: base, file, tables, data, links, then what lies
# in src/core itself. `file` and `tables` do not know each other. What the caller may use (replic.h, query.h,
# errors.h) belongs to no floor, and state.h stands between data and links.
set -euo pipefail
core=$1 objects=$2
listed=$(grep -v '^#' "$(dirname "$0")/arrows.txt" | sort -u)

# For awk: up(a, b) says whether a file at `a` must not need one at `b`.
floors='
function floor(path) {
  if (path == "state.h") return 3
  if (path !~ /\//) return path ~ /^(replic|query|errors)\.h$/ ? -1 : 5
  sub(/\/.*/, "", path)
  if (!(path in number)) { print "no floor: " path; exit 1 }
  return number[path]
}
function up(a, b) { return floor(b) > floor(a) || (a ~ /^tables\// && b ~ /^file\//) }
BEGIN { n = split("base file tables data links", name, " "); for (i = 1; i <= n; i++) number[name[i]] = i - 1 }'

calls() { # of other files: who calls, who is called, and what
  (cd "$core" && ls ./*.c ./*/*.c) | sed -E 's|^\./(.*)\.c$|\1|' | while read -r file; do
    nm "$objects/$file.o" | awk -v file="$file.c" '$(NF - 1) ~ /^[A-TV-Z]$/ { print "has", $NF, file }
      $(NF - 1) == "U" { print "takes", $NF, file }'
  done | sort | awk '$1 == "has" { of[$2] = $3; next } $2 in of { print $3, of[$2], $2 }'
}

includes() {
  (cd "$core" && grep -n '^#include "' ./*.[ch] ./*/*.[ch]) | sed -E 's|^\./([^:]*):[0-9]+:#include "(.*)"|\1 \2|' |
    awk "$floors"' up($1, $2) { print $1, $2 }'
}

called=$(calls)
between=$(echo "$called" | awk '{ print "circle", $1, $2 }' | sort -u)
allowed=$(comm -12 <(echo "$between") <(echo "$listed"))
found=$({ includes; echo "$called" | awk "$floors"' up($1, $2) { print $1, $2 ":" $3 }'; echo "$allowed"; } | sort -u)
new=$(comm -23 <(echo "$found") <(echo "$listed"))
gone=$(comm -13 <(echo "$found") <(echo "$listed"))
circle=$(comm -23 <(echo "$between") <(echo "$allowed") | cut -d' ' -f2,3 | tsort 2>&1 >/dev/null || true)
[ -z "$new" ] || echo "arrows that go up: a file needs what stands above it"$'\n'"$new"
[ -z "$gone" ] || echo "arrows.txt lists what is gone: take these lines out"$'\n'"$gone"
[ -z "$circle" ] || echo "files that call each other in a circle"$'\n'"$circle"
[ -z "$new$gone$circle" ]
