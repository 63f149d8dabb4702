# What is applied at the other side has left the line, whichever way it came.
# found by test_links what_comes_another_way
s/^  int64_t on_line = l->pace.sent - l->pace.arrived_there;/  int64_t on_line = 0;/
