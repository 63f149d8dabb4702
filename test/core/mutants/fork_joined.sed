# Nobody looks which patch a frame follows.
# found by forks_heal
s/return mine && mine != p->after_clock;/return 0;/
