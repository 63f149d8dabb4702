# found by schemas_converge
# A patch of a key whose row could not be stored makes a row of its own columns alone.
s/t->has_stuck = t->may_lack_rows = 1;/t->has_stuck = 1;/
s/t->may_lack_rows = t->has_stuck \|\| t->n_required > 0;/t->may_lack_rows = t->n_required > 0;/
