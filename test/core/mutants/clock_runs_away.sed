# Peers that answer each other drive their clocks away from time.
# found by test_clock peers_that_answer
s/clock->is_hurried = 1;/clock->is_hurried = 0;/
