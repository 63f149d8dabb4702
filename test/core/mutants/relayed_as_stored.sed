# What this version holds of a patch is handed on, and not what was received.
# found by schemas_converge
s/\.raw = raw \? &pending\.raw : NULL/.raw = raw \&\& !held ? \&pending.raw : NULL/
