# Each origin is sent to its end before the next one.
# found by test_links a_small_write_does_not_wait
# found by nobody_waits
s/idle < n && replic__has_room\(r, l\); k\+\+\)/idle < n \&\& replic__has_room(r, l); k += idle > 0)/
s/^  while \(first < n && s->due\[first\].*/  first = 0;/
