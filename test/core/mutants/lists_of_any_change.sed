# Changes of a list of linked peers are applied though others before them were lost.
# found by test_neighbours changes_are_taken_in_order
s/\|\| since > l->direct_at \|\|/||/
