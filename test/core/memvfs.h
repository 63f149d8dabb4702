/* memvfs.h - disks in memory, as an SQLite VFS: deterministic, fast, and able to lose what a real
 * one loses.
 *
 * Every file lies on a numbered disk: the path "/7/a.db" is on disk 7. A file is kept twice, as it
 * was written and as it was when it was last synced, so that the same disk can show
 *
 *   a process that was killed   what was written is there, locks and shared memory are gone
 *   a power cut                 of what was not synced, each sector of 512 bytes is there or not
 *
 * A killed process must not tidy up, and yet its connections have to be closed to free their
 * memory. So: memvfs_freeze the disk, close everything (every call fails and changes nothing),
 * memvfs_thaw it.
 *
 * Several connections may have one file open, with SQLite's locks and the shared memory of WAL
 * (xShm*). One thread. Nothing here reads a clock or draws a random number. */
#ifndef MEMVFS_H
#define MEMVFS_H

#include "harness.h"

/* Makes it SQLite's default VFS, without any disk; resp. the one before it again. */
void memvfs_install(void);
void memvfs_uninstall(void);
/* Forgets all disks. No file may be open. Also makes SQLite's own random numbers start anew. */
void memvfs_reset(void);
/* Whether the synced content is kept (it is, at first). Without it a power cut is a mere kill, and
 * a disk takes half the memory. */
void memvfs_keep_synced(bool keep);
/* Whether a write leaves what is beside it alone, when power is cut (it does, at first). Without
 * that property SQLite writes a WAL in other pieces. */
void memvfs_powersafe(bool is);

/* The n-th change (write, truncation, sync, deletion) of this disk from now on fails; with
 * `for_good` all after it do too, and so does everything else, as after memvfs_freeze. 0: none. */
void memvfs_arm(int disk, int64_t n, bool for_good);
/* Whether that change has come, since memvfs_arm. */
bool memvfs_has_failed(int disk);

void memvfs_freeze(int disk);
void memvfs_thaw(int disk);
bool memvfs_is_frozen(int disk);
/* Loses a random part of what was not synced. No file of the disk may be open. */
void memvfs_cut_power(int disk, rng *g);

bool memvfs_exists(const char *path);
/* Copies what was written; the copy counts as synced. A source that is not there removes the
 * target. The target must not be open. */
void memvfs_copy(const char *from, const char *to);
void memvfs_remove(const char *path);
void memvfs_remove_disk(int disk);
/* Bytes of all files of a disk, as written. */
int64_t memvfs_size(int disk);

#endif
