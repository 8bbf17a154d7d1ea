//! The kernel's mesh, routes and packet filter keep the promises of their ports, in a network
//! namespace of their own.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::process::Command;

use jaco_adapters::netlink::LinuxNetwork;
use jaco_adapters::nftables::Nftables;
use jaco_adapters::wireguard::WireGuardMesh;
use jaco_testkit::contract::host_network;
use nix::sched::{CloneFlags, unshare};

/// Runs one command of a system's tool here.
fn system(line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    assert!(command.args(words).status().unwrap().success(), "{line}");
}

#[test]
fn the_kernel_keeps_the_contracts_of_the_host() {
    // This thread alone moves, and with it what it starts.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    system("ip link set lo up");
    system("ip link add bridge0 type bridge");
    // What an engine would have made.
    system("iptables -N DOCKER-USER");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mesh = WireGuardMesh::new([5; 32], 51820);
        host_network::mesh(&mesh).await;
        host_network::host_network(&LinuxNetwork, "bridge0").await;
        host_network::firewall(&Nftables::start()).await;
    });
}
