# A newer patch hides an older one, also in the columns that the newer one does not set.
s/if \(newer && !memchr\(.*\) return REPLIC_OK;/if (newer) return REPLIC_OK;/
