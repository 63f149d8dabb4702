# The grace before relaying begins again with whatever comes directly.
# found by test_links a_slow_link_is_helped
# found by nobody_waits
s/: lacks_what_is_old\(r, entry, at\);/: is_grace_over(r, at->lag_since_ms);/
