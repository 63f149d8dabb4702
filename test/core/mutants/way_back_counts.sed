# What an acknowledgement waits for on its way back counts as a queue on the way there.
# found by test_links a_full_way_back
s/measured\(r, pace, took_ms, wall_ms - pace->sent_ms\)/(void)wall_ms, measured(r, pace, took_ms, took_ms)/
