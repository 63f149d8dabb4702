# Any progress of the other side begins its grace again, so a link slower than what is written is never helped.
# found by test_sync a_mesh_gets_round_a_slow_link
s/return at->acked < at->backlog \?/return at->acked >= 0 ?/
