//! Published TCP ports.

use std::net::{Ipv4Addr, SocketAddr};

use super::support::{Rig, Upstream, Wire, addresses, free_port, nowhere, port, tcp, until};

/// Says its name, and repeats lines until the client has ended; then it says goodbye.
fn echo(name: &'static str) -> Upstream {
    Upstream::raw(move |mut wire| {
        wire.send(&format!("{name}\n"));
        while let Some(line) = wire.line() {
            wire.send(&format!("{line}\n"));
        }
        wire.send("goodbye\n");
    })
}

struct Published {
    rig: Rig,
    port: u16,
}

impl Published {
    fn new(addresses: &[SocketAddr]) -> Self {
        let published = Self {
            rig: Rig::new(),
            port: free_port(),
        };
        published.to(addresses);
        published
    }

    fn to(&self, addresses: &[SocketAddr]) {
        self.rig.change(|table| {
            table.ports.insert(tcp(self.port), port(addresses));
        });
    }

    fn client(&self) -> Wire {
        Wire::connect((Ipv4Addr::LOCALHOST, self.port).into())
    }
}

#[test]
fn a_published_port_leads_to_a_replica() {
    let published = Published::new(&[echo("one").address]);
    let mut client = published.client();
    assert_eq!(client.line().unwrap(), "one");
    client.send("hello\n");
    assert_eq!(client.line().unwrap(), "hello");
}

#[test]
fn one_side_may_end_while_the_other_goes_on() {
    let published = Published::new(&[echo("one").address]);
    let mut client = published.client();
    client.send("last\n");
    client.finish();
    assert_eq!(client.rest(), b"one\nlast\ngoodbye\n");
}

#[test]
fn large_transfers_arrive_whole() {
    let upstream = Upstream::raw(|mut wire| {
        let bytes = wire.rest();
        wire.write(&bytes).unwrap();
    });
    let published = Published::new(&[upstream.address]);
    let bytes: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut client = published.client();
    client.write(&bytes).unwrap();
    client.finish();
    assert!(client.rest() == bytes);
}

#[test]
fn the_least_busy_replica_is_taken() {
    let replicas = [echo("one"), echo("two"), echo("three")];
    let published = Published::new(&addresses(&[&replicas[0], &replicas[1], &replicas[2]]));
    let mut clients: Vec<_> = (0..9).map(|_| published.client()).collect();
    let mut names: Vec<_> = clients
        .iter_mut()
        .map(|client| client.line().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "one", "one", "one", "three", "three", "three", "two", "two", "two"
        ]
    );
}

#[test]
fn a_local_replica_is_preferred() {
    let (far, near) = (echo("far"), echo("near"));
    let published = Published::new(&[far.address, near.address]);
    published.rig.change(|table| {
        let route = table.ports.get_mut(&tcp(published.port)).unwrap();
        let mut upstreams = route.upstreams.to_vec();
        upstreams[0].local = false;
        route.upstreams = upstreams.into();
    });
    let mut client = published.client();
    assert_eq!(client.line().unwrap(), "near");
}

#[test]
fn the_next_replica_is_tried_when_one_cannot_be_reached() {
    let upstream = echo("one");
    let published = Published::new(&[nowhere(), nowhere(), upstream.address]);
    for _ in 0..5 {
        assert_eq!(published.client().line().unwrap(), "one");
    }
}

#[test]
fn a_connection_that_no_replica_takes_is_closed() {
    for addresses in [vec![], vec![nowhere()]] {
        let published = Published::new(&addresses);
        assert!(published.client().ended());
    }
}

#[test]
fn a_connection_outlives_its_port() {
    let (one, two) = (echo("one"), echo("two"));
    let published = Published::new(&[one.address]);
    let mut client = published.client();
    assert_eq!(client.line().unwrap(), "one");
    published.to(&[two.address]);
    assert_eq!(published.client().line().unwrap(), "two");
    client.send("still here\n");
    assert_eq!(client.line().unwrap(), "still here");
    published.rig.change(|table| table.ports.clear());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, published.port));
    until("nobody listens", || {
        std::net::TcpStream::connect(address).is_err()
    });
    client.send("and here\n");
    assert_eq!(client.line().unwrap(), "and here");
}
