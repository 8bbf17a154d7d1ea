//! Published ports on three hosts: every host opens them and forwards to a replica (spec 08).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;

use support::network::seats;
use support::{apply, bed, refusal};

const PORT: u16 = 6000;

/// A client outside of the cluster's network, on one host.
struct Client(UdpSocket);

impl Client {
    fn of(from: &Host, to: &Host) -> Self {
        let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let socket = from.enter(bind).unwrap();
        socket.connect((to.address(), PORT)).unwrap();
        let wait = Duration::from_millis(200);
        socket.set_read_timeout(Some(wait)).unwrap();
        Self(socket)
    }

    /// Who answers, if anybody does at once.
    fn try_ask(&self) -> Option<String> {
        let mut bytes = [0; 512];
        // A host that does not listen is an error, as is silence.
        let asked = self.0.send(b"hello").and_then(|_| self.0.recv(&mut bytes));
        let said = String::from_utf8_lossy(&bytes[..asked.ok()?]).into_owned();
        said.strip_suffix(" hello").map(str::to_owned)
    }

    fn ask(&self) -> String {
        let mut answer = None;
        let answered = || {
            answer = self.try_ask();
            answer.is_some()
        };
        poll_until(SOON, "a datagram is answered", answered).unwrap();
        answer.unwrap()
    }
}

fn deploy(bed: &Bed, project: &Project, replicas: usize) {
    let image = bed.image("sleep:1");
    let jaco = format!("deployment: ports\nservices:\n  - {{name: store, replicas: {replicas}}}\n");
    let compose =
        format!("services:\n  store:\n    image: {image}\n    ports: ['{PORT}:{PORT}/udp']\n");
    project
        .write("jaco.yaml", &jaco)
        .unwrap()
        .write("compose.yaml", &compose)
        .unwrap();
    apply(bed.host(1), project);
}

#[test]
fn a_udp_port_leads_to_a_replica_through_any_host_and_to_another_when_that_is_gone() {
    let bed = bed("ports", 3);
    bed.form_cluster().unwrap();
    let project = Project::new("ports").unwrap();
    deploy(&bed, &project, 3);
    let stores = seats(&bed, "ports");
    assert_eq!(stores.len(), 3);
    for store in &stores {
        store.repeat_datagrams(PORT);
    }
    let local = |host: &Host| {
        let mut on_host = stores.iter().filter(|store| store.host == host.index());
        on_host.next().map(|store| store.name.clone())
    };
    let mut clients = Vec::new();
    for host in bed.hosts() {
        let from = bed.host(host.index() % 3 + 1);
        // The nearest for the first flow, the least busy for the next.
        let flows: Vec<_> = (0..3).map(|_| Client::of(from, host)).collect();
        let said: Vec<_> = flows.iter().map(Client::ask).collect();
        assert_eq!(Some(&said[0]), local(host).as_ref());
        let names: BTreeSet<_> = said.iter().collect();
        assert_eq!(names.len(), 3, "{said:?}");
        // A flow stays where it is.
        let again: Vec<_> = flows.iter().map(Client::ask).collect();
        assert_eq!(said, again);
        clients.extend(flows);
    }
    // The same number can be had for TCP, and by nobody else for UDP.
    let other = Project::new("other").unwrap();
    let taken = format!(
        "services:\n  web:\n    image: {}\n    ports: ['{PORT}:80/udp']\n",
        bed.image("web:1")
    );
    let jaco = "deployment: other\nservices:\n  - {name: web}\n";
    other
        .write("jaco.yaml", jaco)
        .unwrap()
        .write("compose.yaml", &taken)
        .unwrap();
    let refused = refusal(bed.host(2), &["apply", &other.path("jaco.yaml")]);
    assert_eq!(refused["code"], "port_conflict", "{refused}");
    other
        .write("compose.yaml", &taken.replace("/udp", ""))
        .unwrap();
    apply(bed.host(2), &other);
    let response = bed
        .host(3)
        .http_get("x", &format!("{}:{PORT}", bed.host(1).address()), "/");
    assert_eq!(response.unwrap().status, 200);
    // Flows whose replica goes move to one that stays.
    deploy(&bed, &project, 1);
    poll_until(SOON, "one replica", || seats(&bed, "ports").len() == 1).unwrap();
    let left = seats(&bed, "ports").remove(0).name;
    for client in &clients {
        poll_until(SOON, "the flow has moved", || {
            client.try_ask().as_ref() == Some(&left)
        })
        .unwrap();
    }
}
