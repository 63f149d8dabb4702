# Retention removes what patches supersede that are ahead of the vector.
# found by test_jump who_merges_is_a_source_too
s/^  if \(r->is_ahead\) return REPLIC_OK; \/\* what is beyond.*$//
