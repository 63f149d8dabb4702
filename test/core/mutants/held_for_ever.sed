# What is held is never asked for again, so it stays where it is when there is room, or time.
s/if \(l->n_held \&\& r->now_ms - l->held_ms >= /if (0 \&\& r->now_ms - l->held_ms >= /
