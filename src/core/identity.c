/* identity.c - who am I? Decided at open, from the peerId in the database, that in the witness
 * (file/lock.c), and the one that the application gives:
 *
 *   no witness, or another peerId in it   the file was copied or moved:  goes on as a new peer
 *   witness ahead of the database         a backup was restored:         goes on as a new peer
 *
 * A peerId that the application fixed cannot be changed, so then both are REPLIC_RESTORED. */
#include "core.h"

int replic__identity_settle(replic *r) {
  const replic__identity *id = r->identity;
  uint32_t wanted = r->config.peer_id;
  int64_t kept;
  int rc = replic__int(r, "SELECT value FROM main._replic_meta WHERE key = 'peerId'", &kept);
  if (rc != REPLIC_OK) return rc;
  uint32_t stored = (uint32_t)kept, self = wanted ? wanted : stored;
  int64_t issued = self ? replic__vector_sequence(r, self) : 0;
  int restored = self && id->peer_id == self && id->sequence > issued;
  int copied = self && self == stored && id->peer_id != self;

  if (wanted && restored)
    return replic__fail(
        r, REPLIC_ERESTORED,
        "%s holds %lld patches of peer %u, which has issued %lld: it was restored from a backup. "
        "Open it "
        "without peerId or with a new one; the lost patches come back from the other peers",
        r->path, issued, self, id->sequence);
  if (wanted && copied)
    return replic__fail(
        r, REPLIC_ERESTORED,
        "%s belongs to peer %u, but %s does not: the file was copied or moved without it. Open it "
        "without peerId or with a new one, or move both files together",
        r->path, self, id->name);
  if (wanted && wanted != stored && issued)
    return replic__fail(r, REPLIC_ERESTORED,
                        "%s already holds patches of a peer %u, which is not the one it was "
                        "written by (%u): choose a "
                        "peerId that was never used",
                        r->path, wanted, stored);
  r->peer_id = wanted ? wanted : stored && !restored && !copied ? stored : r->config.new_peer_id;
  r->is_new_peer = stored && r->peer_id != stored;
  /* a crash may have left the witness of the new peerId beside the database of the old one */
  int moved = id->peer_id != stored && id->peer_id != wanted;
  int behind = id->peer_id == stored && id->sequence > replic__vector_sequence(r, stored);
  r->yields = r->is_new_peer && wanted && !moved && !behind;
  if (!r->peer_id)
    return replic__fail(r, REPLIC_EUSAGE, "a new peerId is needed, and none was given");
  if (!replic__vector_entry(r, r->peer_id)) return SQLITE_NOMEM;
  if (r->peer_id == stored) return REPLIC_OK;
  char *sql = sqlite3_mprintf(
      "INSERT OR REPLACE INTO main._replic_meta(key, value) VALUES('peerId', %u)", r->peer_id);
  rc = sql ? replic__exec(r, sql) : SQLITE_NOMEM;
  sqlite3_free(sql);
  return rc;
}

/* Where it cannot be written it lags, which is allowed: the next commit or the close tries again.
 */
int replic__identity_witness(replic *r) {
  replic__identity *id = r->identity;
  int64_t issued = replic__vector_entry(r, r->peer_id)->committed.sequence;
  if (id->peer_id == r->peer_id && id->sequence == issued) return REPLIC_OK;
  int rc = replic__witness_write(id, r->peer_id, issued);
  if (rc == SQLITE_OK) return REPLIC_OK;
  replic__event(r, (replic_event){.kind = REPLIC_EVENT_ERROR, .code = rc},
                "%s: cannot be written (%s)", id->name, sqlite3_errstr(rc));
  if (id->peer_id == r->peer_id) return REPLIC_OK;
  return replic__fail(r, rc, "%s: cannot be written (%s)", id->name, sqlite3_errstr(rc));
}

void replic__identity_leave(replic *r) {
  if (r->identity && r->identity->peer_id == r->peer_id && r->peer_id && !r->gone)
    replic__identity_witness(r);
}
