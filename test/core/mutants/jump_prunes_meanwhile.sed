# Retention removes what patches supersede that are ahead of the vector.
# found by test_jump who_merges_is_a_source_too
s/if \(replic__log_is_ahead\(r\)\)$/if (0)/
