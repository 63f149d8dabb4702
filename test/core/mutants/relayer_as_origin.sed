# Patches of another peer are relayed as if they were the relayer's own.
s/replic__put_varint\(&head, origin\);/replic__put_varint(\&head, r->peer_id);/
