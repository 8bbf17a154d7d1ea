//! The ingress on real sockets: what a client and an upstream see of it.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod churn;
mod contract;
mod forwarding;
mod grpc;
mod headers;
mod http2;
mod limits;
mod listeners;
mod preamble;
mod retries;
mod routing;
mod smuggling;
mod support;
mod tcp;
mod telemetry;
mod tls;
mod udp;
mod upgrades;
