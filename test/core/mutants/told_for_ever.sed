# What was only told of an origin never gives way to what that says itself.
# found by test_liar what_was_only_told
s/!t\.up_to \|\| t\.merged >= t\.up_to/1/
