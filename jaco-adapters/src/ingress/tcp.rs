//! Published TCP ports: bytes both ways between a client and the least busy replica.

use std::net::SocketAddr;
use std::rc::Rc;

use jaco_core::manifest::spec::Protocol;
use jaco_core::node::balance;
use jaco_core::node::ingress::PortRoute;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use super::live::{Flight, Live};
use super::worker::Worker;
use super::{pool, preamble};

/// Per direction and connection.
const BUFFER: usize = 32 * 1024;

/// Serves one connection under the table of this moment, until both sides have ended.
pub(super) async fn serve(worker: Rc<Worker>, mut client: TcpStream, peer: SocketAddr, port: u16) {
    let table = worker.table();
    let Some(route) = table.routes.ports.get(&(port, Protocol::Tcp)) else {
        return;
    };
    let Some((mut upstream, _flight)) = connect(&worker, &table, route).await else {
        return;
    };
    if route.proxy_protocol {
        let Ok(to) = client.local_addr() else {
            return;
        };
        if upstream
            .write_all(&preamble::header(peer, to))
            .await
            .is_err()
        {
            return;
        }
    }
    // A connection may last; it must not keep this table.
    drop(table);
    // An error is one side gone without a farewell; dropping tells the other.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await;
}

/// Tries the upstreams one after the other, least busy first.
async fn connect(worker: &Worker, table: &Live, route: &PortRoute) -> Option<(TcpStream, Flight)> {
    let upstreams = &route.upstreams;
    let mut tried = Vec::new();
    while let Some(at) = balance::least_connections(upstreams, &tried, |u| table.load(u)) {
        let flight = table.begin(&upstreams[at]);
        match pool::dial(upstreams[at].address, worker.limits.connect).await {
            Ok(stream) => return Some((stream, flight)),
            Err(_) => flight.eject(worker.limits.ejection),
        }
        tried.push(at);
    }
    None
}
