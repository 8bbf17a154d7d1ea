//! The adapters of JACO: each module implements one port of `jaco-core`.
