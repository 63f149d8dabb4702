# A local patch may get the clock of one that it is to come after.
# found by test_clock a_patch_from_elsewhere
s/int is_greater = at->origin >= self;/int is_greater = !self;/
