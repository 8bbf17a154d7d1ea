//! What is measured beside others, and what runs for longer than a test: one program, so that
//! the release build links once. The `Makefile` has a target for each.

mod apply;
mod conformance;
mod dns;
mod failover;
mod ingress;
mod mesh;
mod parity;
mod soak_ingress;
mod soak_rollout;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use jaco_benches::front;

/// Benches beside peers, and soak runs under load.
#[derive(Parser)]
#[command(name = "jaco-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// From `apply` to running containers, beside Docker Swarm.
    Apply,
    /// Names of our own, beside dnsmasq.
    Dns,
    /// The loss of the leader and of a host, beside Docker Swarm.
    Failover,
    /// The ingress, beside nginx, `HAProxy` and Caddy.
    Ingress,
    /// TCP over the encrypted mesh, beside the bare link.
    Mesh,
    /// The requests of a public corpus through the ingress.
    Conformance,
    /// Containers, key by key, beside those of docker-compose.
    Parity,
    /// The ingress under changes, with long-lived and hostile clients.
    SoakIngress,
    /// Updates, scaling, drains and leader kills under load.
    SoakRollout,
    /// The ingress that the others ask.
    #[command(hide = true, name = front::SERVE)]
    Serve {
        /// What it serves.
        file: PathBuf,
    },
    /// The responder that `dns` asks.
    #[command(hide = true, name = dns::SERVE)]
    ServeDns {
        /// Where it listens.
        port: u16,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Action::Apply => apply::main(),
        Action::Dns => dns::main(),
        Action::Failover => failover::main(),
        Action::Ingress => ingress::main(),
        Action::Mesh => mesh::main(),
        Action::Conformance => conformance::main(),
        Action::Parity => parity::main(),
        Action::SoakIngress => soak_ingress::main(),
        Action::SoakRollout => soak_rollout::main(),
        Action::Serve { file } => front::serve(&file),
        Action::ServeDns { port } => dns::serve(port),
    }
}
