//! The responder keeps the promises of its port.

use std::net::{TcpListener, UdpSocket};

use hickory_proto::rr::RecordType;
use jaco_adapters::dns::HickoryDns;
use jaco_testkit::contract::dns_responder::{World, gateways, suite};

use super::support::{Client, free_port, pool, settings};

#[tokio::test]
async fn the_responder_keeps_the_contract() {
    for over_tcp in [false, true] {
        let [free, taken] = gateways(pool());
        let port = free_port();
        let _datagrams = (!over_tcp).then(|| UdpSocket::bind((taken, port)).unwrap());
        let _connections = over_tcp.then(|| TcpListener::bind((taken, port)).unwrap());
        let responder = HickoryDns::start(settings(port, &[])).unwrap();
        let world = World {
            pool: pool(),
            answers: &|gateway| {
                let client = Client::new(free, gateway, port);
                let question = |client: &Client| client.try_ask("web", RecordType::A);
                question(&client).is_some() && client.try_tcp("web", RecordType::A).is_some()
            },
        };
        suite(&responder, &world).await;
    }
}
