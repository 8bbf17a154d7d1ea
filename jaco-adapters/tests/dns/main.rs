//! The responder on real sockets: what a container and an upstream see of it.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod contract;
mod forwarding;
mod lookup;
mod names;
mod noise;
mod support;
