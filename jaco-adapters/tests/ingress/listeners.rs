//! When the ingress listens, and what happens to connections when it stops.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};

use jaco_adapters::ingress::Limits;
use jaco_core::ports::ingress_proxy::IngressProxy;

use super::support::{DEADLINE, Rig, Upstream, free_port, get, ok, port, route, tcp, until};

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

#[test]
fn http_is_listened_for_while_a_domain_is_routed() {
    let upstream = Upstream::text("one");
    let rig = Rig::new();
    assert_eq!(rig.ingress.http_address(), None);
    for _ in 0..3 {
        rig.route("a.test", "", &[&upstream]);
        let address = rig.ingress.http_address().unwrap();
        assert_eq!(rig.get("/").text(), "one");
        rig.change(|table| table.domains.clear());
        assert_eq!(rig.ingress.http_address(), None);
        until("nobody listens", || !listens(address));
    }
}

#[test]
fn every_worker_serves_the_same_address() {
    let upstream = Upstream::text("one");
    let rig = Rig::on((Ipv4Addr::LOCALHOST, 0).into(), 4, Limits::default());
    rig.route("a.test", "", &[&upstream]);
    for _ in 0..40 {
        assert_eq!(rig.get("/").text(), "one");
    }
    // Each worker has a pool of its own.
    assert!(
        (2..=4).contains(&upstream.connections()),
        "{}",
        upstream.connections()
    );
}

#[test]
fn an_address_that_is_taken_is_reported_and_tried_again() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let rig = Rig::on(address, 2, Limits::default());
    assert!(rig.ingress.failed_listeners().is_empty());
    let upstream = Upstream::text("one");
    rig.route("a.test", "", &[&upstream]);
    let failed = rig.ingress.failed_listeners();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, address.to_string());
    assert!(failed[0].1.contains("in use"), "{failed:?}");
    drop(taken);
    until("the address is listened on", || {
        rig.ingress.failed_listeners().is_empty()
    });
    assert_eq!(rig.get("/").text(), "one");
}

#[test]
fn two_ingresses_do_not_share_an_address_unnoticed() {
    let upstream = Upstream::text("one");
    let first = Rig::single(&upstream);
    let address = first.ingress.http_address().unwrap();
    let second = Rig::on(address, 1, Limits::default());
    second.route("a.test", "", &[&upstream]);
    assert_eq!(second.ingress.failed_listeners().len(), 1);
}

#[test]
fn a_request_goes_on_when_its_route_and_its_listener_are_gone() {
    let (step, steps) = mpsc::channel::<()>();
    let steps = Mutex::new(steps);
    let upstream = Upstream::answering(move |_| {
        steps.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        Some(ok("late"))
    });
    let rig = Rig::single(&upstream);
    let address = rig.ingress.http_address().unwrap();
    let mut client = rig.client();
    client.send(&get("a.test", "/"));
    until("the upstream has it", || upstream.requests().len() == 1);
    rig.change(|table| table.domains.clear());
    until("nobody listens", || !listens(address));
    step.send(()).unwrap();
    assert_eq!(client.response().text(), "late");
    client.send(&get("a.test", "/"));
    assert_eq!(client.response().status(), 404);
}

#[test]
fn no_change_of_the_table_drops_a_connection() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let rig = Rig::single(&one);
    let published = free_port();
    let mut clients: Vec<_> = (0..8).map(|_| rig.client()).collect();
    for round in 0..40 {
        rig.change(|table| {
            let upstream = if round % 2 == 0 { &two } else { &one };
            let routes = table.domains.get_mut("a.test").unwrap();
            *routes = vec![route("", false, &[upstream.address])];
            if round % 3 == 0 {
                table.ports.insert(tcp(published), port(&[one.address]));
            } else {
                table.ports.clear();
            }
        });
        for client in &mut clients {
            client.send(&get("a.test", "/"));
            let expected = if round % 2 == 0 { "two" } else { "one" };
            assert_eq!(client.response().text(), expected);
        }
    }
}

#[test]
fn dropping_the_ingress_frees_its_addresses() {
    let upstream = Upstream::text("one");
    let rig = Rig::single(&upstream);
    let address = rig.ingress.http_address().unwrap();
    let mut client = rig.client();
    client.send(&get("a.test", "/"));
    client.response();
    drop(rig);
    assert!(client.ended());
    assert!(!listens(address));
}

#[test]
fn an_address_that_is_wanted_again_at_once_is_no_failure() {
    let upstream = Upstream::text("one");
    let published = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, published));
    let rig = Rig::new();
    for _ in 0..5 {
        rig.change(|table| {
            table
                .ports
                .insert(tcp(published), port(&[upstream.address]));
        });
        assert!(rig.ingress.failed_listeners().is_empty());
        until("the port is open", || listens(address));
        rig.change(|table| table.ports.clear());
    }
}
