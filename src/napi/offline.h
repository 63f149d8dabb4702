// offline.h - a database file without a Replica: looked at and copied, also while another process
// has it open. Nothing of it is changed: no lock, no peerId, no table of the engine's.
#pragma once

#include <napi.h>

// (sql, params, first, readBigInts, path) -> rows, as Connection's querySync. Synchronous. Throws
// ReplicErrors.
Napi::Value offline_query(const Napi::CallbackInfo &info);
// (from, to) -> undefined: copies the database as Connection's backups do. Synchronous.
Napi::Value offline_copy(const Napi::CallbackInfo &info);
