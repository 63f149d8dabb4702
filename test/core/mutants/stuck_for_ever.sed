# found by schemas_converge
# Rows that could not be stored are not tried again when the schema has changed.
s/if \(guarded \|\| t->has_stuck\) rc = settle_table/if (0) rc = settle_table/
