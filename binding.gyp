# Three targets, each knowing only the one above it: SQLite, the core, the addon. Warnings are no
# errors here: whoever builds a release may have a newer compiler. CI and test/core/Makefile are
# strict.
{
  'includes': ['src/sqlite/options.gypi'],
  'variables': {
    # Where npm has put them: asked of Node, so that hoisting works; relative, as gyp wants its
    # sources.
    'sqlite_dir': '<!(node -p "path.relative(\'.\', path.dirname(require.resolve(\'better-sqlite3/package.json\')))")/deps/sqlite3',
    'node_addon_api_dir': '<!(node -p "require(\'node-addon-api\').include_dir")',
  },
  'target_defaults': {
    'cflags': ['-fvisibility=hidden'],
    'xcode_settings': {
      'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
      'MACOSX_DEPLOYMENT_TARGET': '11.0',
    },
  },
  'targets': [
    {
      'target_name': 'sqlite3',
      'type': 'static_library',
      'sources': ['<(sqlite_dir)/sqlite3.c'],
      # "=": instead of what node-gyp gives every target. SQLite and the core do not see Node's
      # headers.
      'include_dirs=': [],
      'defines': ['<@(sqlite_options)'],
      'conditions': [['OS!="win"', { 'defines': ['<@(sqlite_posix_options)'] }]],
      'cflags': ['-w'],
      'xcode_settings': { 'WARNING_CFLAGS': ['-w'] },
      'msvs_settings': { 'VCCLCompilerTool': { 'WarningLevel': '0' } },
      'direct_dependent_settings': { 'include_dirs': ['<(sqlite_dir)'] },
    },
    {
      'target_name': 'replic_core',
      'type': 'static_library',
      'dependencies': ['sqlite3'],
      'export_dependent_settings': ['sqlite3'],
      'sources': [
        'src/core/backup.c',
        'src/core/check.c',
        'src/core/checkpoint.c',
        'src/core/claim.c',
        'src/core/clock.c',
        'src/core/compact.c',
        'src/core/crc.c',
        'src/core/definition.c',
        'src/core/digest.c',
        'src/core/engine.c',
        'src/core/epoch.c',
        'src/core/error.c',
        'src/core/forget.c',
        'src/core/fork.c',
        'src/core/guard.c',
        'src/core/identity.c',
        'src/core/incoming.c',
        'src/core/jump.c',
        'src/core/log.c',
        'src/core/merge.c',
        'src/core/migrate.c',
        'src/core/open.c',
        'src/core/optimize.c',
        'src/core/outgoing.c',
        'src/core/pace.c',
        'src/core/params.c',
        'src/core/patches.c',
        'src/core/peek.c',
        'src/core/pending.c',
        'src/core/query.c',
        'src/core/rights.c',
        'src/core/schema.c',
        'src/core/skew.c',
        'src/core/sql.c',
        'src/core/stuck.c',
        'src/core/sync.c',
        'src/core/vector.c',
        'src/core/wal_file.c',
        'src/core/wire.c',
      ],
      'include_dirs=': ['src/core'],
      'defines=': [],
      'cflags!': ['-Wno-unused-parameter'],
      'cflags': ['<@(strict_warnings)'],
      'cflags_c': ['-std=c11', '-Wstrict-prototypes', '-Wmissing-prototypes'],
      'variables': {
        'strict_warnings': [
          '-Wall', '-Wextra', '-Wpedantic', '-Wshadow', '-Wconversion', '-Wvla',
        ],
      },
      'xcode_settings': {
        'GCC_C_LANGUAGE_STANDARD': 'c11',
        'WARNING_CFLAGS': ['<@(strict_warnings)', '-Wstrict-prototypes', '-Wmissing-prototypes'],
      },
      'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['/std:c11', '/utf-8'] } },
      'direct_dependent_settings': { 'include_dirs': ['src/core'] },
    },
    {
      'target_name': 'replic_sqlite',
      'dependencies': ['replic_core'],
      'sources': [
        'src/napi/addon.cc',
        'src/napi/checkpoints.cc',
        'src/napi/connection.cc',
        'src/napi/cursor.cc',
        'src/napi/error.cc',
        'src/napi/offline.cc',
        'src/napi/queue.cc',
        'src/napi/read_jobs.cc',
        'src/napi/read_threads.cc',
        'src/napi/reader.cc',
        'src/napi/report.cc',
        'src/napi/step_jobs.cc',
        'src/napi/values.cc',
        'src/napi/watch.cc',
        'src/napi/write_jobs.cc',
        'src/napi/write_lock.cc',
      ],
      'include_dirs': ['<(node_addon_api_dir)'],
      # Node-API 8 is what Node 20 and Bun both have, and all that we need. The addon throws no C++
      # exceptions, and a worker that is terminated in the middle of a call must not end the process
      # because nothing can be thrown there.
      'defines': [
        'NAPI_VERSION=8',
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
        'NAPI_DISABLE_CPP_EXCEPTIONS',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
      ],
      'cflags_cc': ['-std=c++17', '-Wall', '-Wextra'],
      'xcode_settings': {
        'CLANG_CXX_LANGUAGE_STANDARD': 'c++17',
        'CLANG_CXX_LIBRARY': 'libc++',
        'WARNING_CFLAGS': ['-Wall', '-Wextra'],
      },
      'msvs_settings': {
        'VCCLCompilerTool': { 'AdditionalOptions': ['/std:c++17', '/utf-8'] },
      },
    },
  ],
}
