/* links.h - floor 4 of the core: who lacks what, and the frames that mend it. Here is what its
 * files do for each other; what a link is, and knows of its peer, is in link.h.
 *
 *   wire.c        bytes and frames; the layout on top
 *   link.c        the links, what each knows of its peer, what is said over one
 *   claims.c      what a peer says that it has: is it believed?
 *   asking.c      NEED: what is lacking is asked for
 *   hello.c       HELLO and ACK: what each side has
 *   definitions.c SCHEMA: which table an id stands for
 *   outgoing.c    patches from the log to the links
 *   incoming.c    patches from the links to the log
 *   flush.c       after a commit: each link gets what there is for it
 *   session.c     a frame comes in, a heartbeat, a link begins or ends
 *   report.c      links, for the caller
 *   pace.c        how much may be on its way over a link
 *   arrival.c     what every frame with patches needs
 *   jump_source.c the side whose log is pruned
 *   staging.c     pieces of a jump are kept until it is covered
 *   merging.c     a jump that is covered is merged
 *   jump.c        whose turn it is, when it is covered, slice by slice
 *   fork.c        two histories under one peerId
 *   told.c        what is known of an origin by the word of another, and how that gives way
 *   skew.c        clocks that are wrong
 *   recheck.c     a jump is looked at once more, with another peer
 *   neighbours.c  to whom each peer is linked itself
 *   rights.c      links over which one side only reads
 *   forget.c      forgets what others have said
 *
 * For src/core only: `link` is also a function of unistd.h's. */
#ifndef REPLIC_LINKS_H
#define REPLIC_LINKS_H

#include "links/link.h"
#include "links/session.h"

/* ---- link.c ---- */

/* Returns a + b, at most INT64_MAX: sums of what peers claim may exceed any number. */
int64_t replic__sum(int64_t a, int64_t b);
/* Returns the link of that id; NULL: there is none. */
link *replic__link_find(const replic *r, uint32_t id);
/* Returns the position of an origin, borrowed until one is added; NULL: there is none. */
position *replic__find_position(const link *l, uint32_t origin);
/* The same, added where there is none. NULL: there is no room, see replic__no_position. */
position *replic__position(link *l, uint32_t origin);
/* The same, of ascending origins: *at is where to look on, at first 0. */
position *replic__next_position(link *l, uint32_t origin, size_t *at);
/* Says what it means that there is none: SQLITE_NOMEM; or REPLIC_OK, where the link knows as many
 * origins as it may. Both sides are told of that once, and whatever concerns the origin is passed
 * over. The peers' own positions are there from the beginning. */
int replic__no_position(replic *r, link *l, uint32_t origin);
/* Notes that the peer has applied an origin up to there. */
void replic__learn(replic *r, link *l, position *at, int64_t applied);
/* Whether the link is ready, leads to that peer, and is neither ending nor of a fork. */
int replic__reaches(const link *l, uint32_t peer);
/* Whether there is such a link, which carries what that peer sends. */
int replic__is_linked(const replic *r, uint32_t peer);
/* Whether both links give the same rights: only such stand in for each other. */
int replic__same_rights(const link *a, const link *b);
/* Whether it is the first one to its peer. */
int replic__link_first(const replic *r, link *l);
/* Whether it carries patches: of several links to one peer only the first does. */
int replic__link_active(const replic *r, link *l);
/* Lets the next flush look at all links. */
void replic__stir(replic *r);
/* Notes that the peer has told what it has. l->skew_ms is that of this frame. */
void replic__note_word(const replic *r, link *l);
/* Returns how many patches `origin` has issued, as it says itself on a link of its own other than
 * `l`. NO_WORD: it is not linked here, or says less than what is applied here (then its history is
 * another one, and fork.c has to find out). */
#define NO_WORD (-1)
int64_t replic__own_word(const replic *r, const link *l, uint32_t origin);
/* Returns up to which patch of `origin` it is believed what comes over `l`. */
int64_t replic__believed(const replic *r, const link *l, uint32_t origin);
/* Returns the origin's end in a jump; NULL: it is none of its. */
target *replic__find_target(const replic__merging *m, uint32_t origin);
/* Whether the origin belongs to a jump that is being merged: nothing of that is taken another way.
 */
int replic__is_jumping(const replic *r, uint32_t origin);
/* Puts a frame into the outbox. Takes over the caller's reference. NULL, or without memory: lost,
 * and repaired like any loss. */
void replic__send(replic *r, link *l, replic_frame *frame);
void replic__send_error(replic *r, link *l, int code, const char *text);
/* Counts patches that are sent once more. */
void replic__count_again(replic *r, link *l, int64_t patches);
/* Whether a heartbeat has passed since then. Almost: who asks once per heartbeat is not always as
 * late. */
int replic__is_heartbeat_past(const replic *r, int64_t since_ms);
/* Sends definitions again, as one may have been lost. */
void replic__define_again(replic *r, link *l);
/* Whether the application may hear of one more trouble of the link in this heartbeat. */
int replic__may_tell(const replic *r, link *l);
/* Holds what follows `after`: it cannot be applied before `until_ms`, 0: nobody knows when. It is
 * asked for again later, and both sides are told once. The other side is told to send no more of it
 * than it is asked for; of a jump it is asked for all. */
enum { OF_A_JUMP = -1 };
void replic__hold(replic *r, link *l, position *at, int code, int64_t after, int64_t until_ms,
                  const char *text);
void replic__release(link *l, position *at);
/* Ends the link and tells both sides why. */
void replic__refuse(replic *r, link *l, int code, const char *text);
/* Set the error; return REPLIC_EPROTOCOL, and REPLIC_EFORK with l->fork_origin. */
int replic__malformed(replic *r, const link *l, const char *frame);
int replic__forked(replic *r, link *l, uint32_t origin, int64_t sequence, const char *how);
/* Read an origin, or a position, of a list in ascending order: anything else fails the reader.
 * *last: at first 0. */
uint32_t replic__get_origin(replic__reader *in, uint32_t *last);
void replic__get_position(replic__reader *in, uint32_t *last, replic_position *position);

/* ---- claims.c ---- */

/* Fails with REPLIC_EFORK where it is of another history. One history per peerId: nobody knows more
 * of mine than I do, and one (origin, sequence) has one epoch and one clock. Where it is pruned
 * here, its neighbours say between which ones it lies. */
int replic__check_fork(replic *r, link *l, const replic_position *theirs);
/* Compares what the peer says that it has of one origin, or notes it for a later heartbeat where
 * *left, the look-ups that may still be made, is used up. */
int replic__check_claim(replic *r, link *l, position *at, const replic_position *theirs, int *left);
int replic__check_budget(const replic *r); /* look-ups of one frame */
/* With a heartbeat: compares what was noted. */
void replic__check_claims(replic *r, link *l);
/* `l` says that there are patches up to `claimed` of an origin that denies it. That it is ahead of
 * the origin's own link for a moment is usual, so it is told when it goes on. */
void replic__doubt(replic *r, link *l, position *at, int64_t claimed);

/* ---- asking.c ---- */

/* Sends NEED, at most once per heartbeat. */
void replic__send_need(replic *r, link *l, position *at);
/* Asks again for what is held: the rest may be on its way, and would come twice. */
void replic__ask_for_held(replic *r, link *l);
/* Returns over which link to ask for what is to come over `l`, which has been asked for `asked`
 * times in vain: l, or another one to the same peer. */
link *replic__ask_over(replic *r, link *l, int asked);
/* What the peer lacks was asked for over `l`: from here on that carries. */
void replic__carry_over(replic *r, link *l);
/* After an ACK. is_idle: it says that nothing is on its way. */
void replic__look_for_idleness(replic *r, link *l, int is_idle);

/* ---- hello.c ---- */

/* flags: FLAG_… */
void replic__send_hello(replic *r, link *l, int flags);
/* The vector has gone back: tells so, where it is due; the other side has told it. */
void replic__tell_void(replic *r, link *l);
void replic__hear_void(const replic *r, link *l);
void replic__send_ack(replic *r, link *l);
/* A frame that has come; `in` stands behind its head. */
int replic__on_hello(replic *r, link *l, replic__reader *in);
int replic__on_ack(replic *r, link *l, replic__reader *in);

/* ---- report.c ---- */

/* Returns how many patches the other side has not acknowledged, but for its own. *most: what it has
 * of the origin that it lacks most of; origin 0: it lacks nothing. */
int64_t replic__lag_of(const replic *r, const link *l, position *most);

/* ---- pace.c ---- */

/* Whether one more frame may be on its way over the link, and after how many bytes it is to end. */
int replic__has_room(const replic *r, const link *l);
int64_t replic__slice(const replic *r, const link *l);
/* A frame of patches goes out; one has come in. */
void replic__pace_sent(const replic *r, link *l, const replic_frame *frame);
void replic__pace_arrived(link *l, size_t len);
/* What an ACK says of both; 0: malformed. `wall_ms`: the other side's clock. */
void replic__pace_put(const link *l, replic__writer *w);
int replic__pace_get(const replic *r, link *l, int64_t wall_ms, replic__reader *in);
/* Something is lost, and sent again. */
void replic__pace_lost(link *l);
/* There is more to send than the window takes. */
void replic__pace_full(link *l);

/* ---- neighbours.c ---- */

/* What an ACK says of the list of linked peers. */
enum { LIST_SAME, LIST_WHOLE, LIST_CHANGES };

int replic__link_direct(const link *l, uint32_t peer); /* it says that it is linked to `peer` */
void replic__put_neighbours(replic *r, replic__writer *w);
/* Up to where the other side's list is here, if it is needed, and what is not there of ours. */
void replic__put_neighbour_changes(replic *r, link *l, replic__writer *w);
/* What these have put; in->failed: malformed. */
int replic__get_neighbours(link *l, replic__reader *in);
int replic__get_neighbour_changes(link *l, replic__reader *in);

/* ---- rights.c ---- */

int replic__brings(int frame_type); /* it would change what is here, or what is known of it */
/* Tells both sides, once per link, that something of the peer is not taken. */
void replic__tell_reader(replic *r, link *l);
/* The peer has the origin up to `sequence`. */
void replic__reader_has(replic *r, link *l, uint32_t origin, int64_t sequence);
void replic__tick_reader(replic *r, link *l);

/* ---- arrival.c ---- */

/* Returns the table with that id; NULL: there is none. */
remote_table *replic__table_by_id(const table_list *list, uint32_t id);
/* Adds a table. The list owns it, unless it fails: SQLITE_NOMEM. */
int replic__table_add(table_list *list, remote_table *t);
void replic__tables_free(table_list *list);
/* SCHEMA has come. */
int replic__on_schema(replic *r, link *l, replic__reader *in);
/* Whether the frame says of the last patch applied here that it is another one. */
int replic__parts(replic *r, const replic__patches *p);
/* Notes the epochs that the frame tells of patches up to `up_to` that are not applied yet. Inside a
 * savepoint. */
int replic__note_epochs(replic *r, replic__patches p, int64_t up_to);
/* Return the work that one patch is: see replic_config.work_units. */
int64_t replic__units_of_reading(const remote_table *t);
int64_t replic__units_of_applying(const remote_table *t);
/* To be called when the first patch of an origin is applied, inside a savepoint that has the peer's
 * share. */
int replic__bring_origin(replic *r, uint32_t source, replic__entry *entry);

/* ---- incoming.c ---- */

/* PATCHES has come. What is more than the units allow is kept, and gone on with later. */
int replic__on_patches(replic *r, link *l, const uint8_t *bytes, size_t len);
void replic__apply_early(replic *r); /* frames that waited for what was just applied */
void replic__drop_rest(replic__sync *s);
void replic__drop_early(replic__sync *s, size_t i);

/* ---- told.c ---- */

/* Lets all links tell that the vector has gone back (replic__tell_void). */
void replic__void_told(replic *r);

/* Inside the savepoint of a jump, before the vector follows it: of what comes, `merged` is the last
 * patch. */
int replic__told_note(replic *r, uint32_t source, const replic_position *to, int64_t merged,
                      int64_t merged_at);
/* The peer of `l`, which is that origin, or is linked to it, says that there are `denied` patches
 * of it. Where more was only told, the vector goes back. */
int replic__told_gives_way(replic *r, link *l, uint32_t origin, int64_t denied);

/* ---- skew.c ---- */

/* Why a patch that comes over `l` is too far ahead, and whose clock is to be corrected. The caller
 * frees it; NULL: out of memory. */
char *replic__skew_text(const replic *r, const link *l, uint32_t origin, int64_t sequence,
                        int64_t patched_at);
void replic__tick_skew(replic *r); /* is it the clock of this machine that is off? */

/* ---- definitions.c ---- */

/* Returns the id of a table that is not ours, as a patch was received with it; 0: out of memory. */
uint32_t replic__foreign_id(replic__schema *schema, const replic__raw *raw);
/* Whether so many definitions are more than one frame is to bring. */
int replic__is_a_lot(size_t n, size_t bytes);
/* Forgets the oldest of the frames that are kept encoded: they speak of ids. */
void replic__ring_drop(replic__sync *s);
/* Before a frame: gives up the ids of others' tables where they are a lot. */
void replic__begin_lot(replic *r);
/* Returns the id behind the last one of a table here. */
uint32_t replic__ids_end(const replic__schema *schema);
/* Sends the definitions that the other side has not. */
void replic__send_schema(replic *r, link *l);

/* ---- outgoing.c ---- */

/* Sends patches, as far as the window allows. The link carries. */
void replic__flush_origins(replic *r, link *l);
/* ---- fork.c ---- */

/* Says what a frame's failure means: the peer is refused, or the frame is lost and asked for again.
 */
void replic__conclude(replic *r, link *l, int rc);
/* After a failure with `code`, about l->fork_origin. */
void replic__fork_found(replic *r, link *l, int code);
void replic__send_fork(replic *r, link *l);
/* Tells what is known here of an origin that has issued less than the other side has. */
void replic__advise(replic *r, link *l, uint32_t origin);
int replic__on_fork(replic *r, link *l, replic__reader *in);
int replic__was_dropped(const replic *r, const replic_position *patch);
/* The same of the patch that `p` stands on. */
int replic__brings_dropped(const replic *r, const replic__patches *p);
/* It is one that is pruned at the sender, between `from` and `to`, as the epochs tell. */
int replic__skips_dropped(const replic *r, const replic__patches *p, int64_t from, int64_t to);
void replic__tick_fork(replic *r, link *l);
int replic__tick_notes(replic *r); /* forgets notes of origins that deny them */

/* ---- jump_source.c ---- */

/* Grows with all that is applied and pruned. */
int64_t replic__age(const replic *r);
/* TAKE has come. */
int replic__on_take(replic *r, link *l, replic__reader *in);
void replic__take_again(replic *r, link *l); /* once per heartbeat, where it was asked for */
void replic__flush_jump(replic *r, link *l); /* sends JUMP and TAKE where they are due */

/* ---- staging.c ---- */

enum { TAKE_TOLD = 1, TAKE_AGAIN }; /* link.take_due */

/* STAGE has come. */
int replic__on_stage(replic *r, link *l, const uint8_t *bytes, size_t len);
/* The peer has sent pieces up to here: is one lost, or what we told of them? */
int replic__check_staged(replic *r, link *l, position *at, int64_t sent);
/* Sets *up_to to where an origin is staged from that source; to 0 where nothing is. */
int replic__staged_up_to(replic *r, uint32_t source, uint32_t origin, int64_t *up_to);
/* Lets TAKE be sent, at most once per heartbeat. due: TAKE_… */
void replic__want_take(replic *r, link *l, int due);
void replic__send_take(replic *r, link *l);
/* Holds an origin, as the peer may not bring `n` more of `what`, BROUGHT_…. */
void replic__hold_jump(replic *r, link *l, position *at, int what, int64_t n);
/* Forgets the latest JUMP and its link. What has begun to be merged goes on without it. */
void replic__jump_over(replic__sync *s);
/* Sets the vector of `origin` back, within a savepoint. What is staged of it goes: it follows what
 * is to come again, and would be taken for all up to its end. */
int replic__origin_back(replic *r, uint32_t origin, int64_t to, int64_t patched_at);
void replic__free_merging(replic__sync *s);
/* With a heartbeat: what was staged, and has come another way, or comes no more, is let go. */
int replic__tick_jump(replic *r);

/* ---- merging.c ---- */

/* Reads one position of a JUMP. 0: the reader has failed. */
int replic__next_target(replic__reader *in, uint32_t *last, target *t);
/* Makes s->merging of the latest JUMP, which is covered: of the origins that are lacking. */
int replic__read_targets(replic *r, uint32_t source);
/* Reads on, as far as the units allow. *done: all of it has been read, and may be merged. */
int replic__read_pieces(replic *r, link *l, int *done);
/* Merges as much as the units allow. *done: all of it. Inside a savepoint of all origins that has
 * the share of the source. */
int replic__merge_slice(replic *r, int *done);
/* Reads what memory knows of it from the disk, also after an undoing. */
int replic__load_merging(replic *r);
void replic__reload_merging(replic *r); /* the same; an error is passed over */
void replic__jump_settle(replic *r);    /* after a commit */

/* ---- jump.c ---- */

/* JUMP has come. */
int replic__on_jump(replic *r, link *l, const uint8_t *bytes, size_t len);
/* Takes the next jump from here, as long as this link makes progress. */
void replic__jump_prefer(replic *r, link *l);
/* After something was applied or staged: is the latest JUMP covered now? Then it is read and merged
 * as far as the units allow. REPLIC_OK or SQLITE_BUSY. */
int replic__try_jump(replic *r);
int replic__has_jump(const replic *r); /* a jump is being merged: to be gone on with */

#endif
