//! The two programs of JACO: the daemon and the command line.

pub mod cli;
pub mod daemon;
