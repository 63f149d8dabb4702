# Who has jumped serves others as if nothing had been pruned.
s/if \(t->floor > entry->pruned\.floor\) entry->pruned\.floor = t->floor;//
