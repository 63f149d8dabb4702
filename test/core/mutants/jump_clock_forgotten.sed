# A restart in a jump that is being merged knows the clocks up to the vector only.
# found by test_jump a_restart_between_any_two_slices
s/^    replic__clock_seen\(&r->clock, r->now_ms, to, 0\);$//
