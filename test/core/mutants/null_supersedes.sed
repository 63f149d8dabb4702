# Retention removes a value once it has been overwritten with NULL, which no NOT NULL column can hold.
# found by schemas_converge
s/if \(take\[i\] != TAKE_ANY && .*REPLIC_NULL\) \{/if (0) {/
