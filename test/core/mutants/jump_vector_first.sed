# The vector moves with the first slice of a jump, not with the last.
# found by test_jump a_jump_is_merged_in_slices
s/rc = \*done \? set_vector\(r\) : store_targets\(r\);/{ rc = set_vector(r); if (!*done \&\& rc == REPLIC_OK) { s->merging->is_stored = 0; rc = store_targets(r); } }/
