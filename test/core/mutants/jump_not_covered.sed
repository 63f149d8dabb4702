# A jump is made although not all of it has been staged.
s/if \(\*rc != REPLIC_OK \|\| staged < t\.to\.sequence\) return 0;/if (*rc != REPLIC_OK) return 0;/
