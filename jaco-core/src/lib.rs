//! Decides how containers run across a cluster. Pure: no IO, no clock, no randomness.
