//! Shared parts of the peer benches.
