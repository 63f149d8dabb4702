# Retention removes what patches supersede that are ahead of the vector.
# found by test_jump who_merges_is_a_source_too
s/^  if \(rc != REPLIC_OK \|\| is_ahead\) return rc; \/\* what is beyond/  if (rc != REPLIC_OK) return rc; \/\* what is beyond/
