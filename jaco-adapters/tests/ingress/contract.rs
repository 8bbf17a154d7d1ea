//! The ingress keeps the promises of its port.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use jaco_testkit::contract::ingress_proxy::{World, suite};

use super::support::{Rig, free_port};

#[tokio::test]
async fn the_ingress_keeps_the_contract() {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let taken = TcpListener::bind((any, 0)).unwrap();
    let world = World {
        free: free_port(),
        taken: taken.local_addr().unwrap().port(),
        listens: &|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
    };
    let rig = tokio::task::spawn_blocking(Rig::new).await.unwrap();
    suite(&rig.ingress, &world).await;
    tokio::task::spawn_blocking(move || drop(rig))
        .await
        .unwrap();
}
