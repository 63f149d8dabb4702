# What was given up once is refused for ever, also where everybody else keeps it.
# found by forks_heal
s/DELETE FROM main\._replic_dropped WHERE origin/DELETE FROM main._replic_dropped WHERE 0 AND origin/
