//! Changes of the table under load: nobody notices. The long form is `make soak-ingress`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use jaco_adapters::ingress::Limits;
use jaco_core::id::Domain;

use super::support::{Authority, Rig, Upstream, Visitor, addresses, get, route, secure, until};

/// Four clients that ask until they are told to stop, and how often each was answered.
struct Crowd {
    stop: AtomicBool,
    answered: [AtomicUsize; 4],
}

impl Crowd {
    /// Lets each client run while `work` does; it may go on once all have been answered again.
    fn around(client: impl Fn(usize) + Sync, work: impl FnOnce(&dyn Fn())) {
        let crowd = Self {
            stop: AtomicBool::new(false),
            answered: Default::default(),
        };
        thread::scope(|scope| {
            for number in 0..crowd.answered.len() {
                let (crowd, client) = (&crowd, &client);
                scope.spawn(move || {
                    while !crowd.stop.load(Ordering::Relaxed) {
                        client(number);
                        crowd.answered[number].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let counts = || crowd.answered.each_ref().map(|n| n.load(Ordering::Relaxed));
            work(&|| {
                let before = counts();
                let all = || {
                    counts()
                        .iter()
                        .zip(before)
                        .all(|(now, before)| *now > before)
                };
                until("everybody is answered again", all);
            });
            crowd.stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn no_request_is_lost_to_changes_of_routes() {
    let upstreams = [Upstream::text("one"), Upstream::text("two")];
    let rig = Rig::on(([127, 0, 0, 1], 0).into(), 2, Limits::default());
    rig.route("a.test", "", &[&upstreams[0], &upstreams[1]]);
    let sets = [
        addresses(&[&upstreams[0]]),
        addresses(&[&upstreams[1]]),
        addresses(&[&upstreams[0], &upstreams[1]]),
    ];
    // Some keep their connection, some come anew for each request.
    let client = |number: usize| {
        let mut client = rig.client();
        for _ in 0..=(number % 2) * 20 {
            client.send(&get("a.test", "/"));
            let response = client.response();
            assert_eq!(response.first(), "HTTP/1.1 200 OK");
        }
    };
    Crowd::around(client, |proceed| {
        for round in 0..60 {
            rig.change(|table| {
                let routes = vec![route("", false, &sets[round % 3])];
                table.domains.insert(Domain::from("a.test"), routes.clone());
                let other = Domain::new(format!("b{}.test", round % 7));
                if table.domains.remove(&other).is_none() {
                    table.domains.insert(other, routes);
                }
            });
            proceed();
        }
    });
}

#[test]
fn no_handshake_fails_while_certificates_change() {
    let authority = Authority::new();
    let upstream = Upstream::text("one");
    let rig = Rig::on(([127, 0, 0, 1], 0).into(), 2, Limits::default());
    rig.add("a.test", secure(&upstream));
    let issue = |serial| {
        let served = Arc::new(authority.issue("a.test", serial));
        rig.change(|table| drop(table.certificates.insert(Domain::from("a.test"), served)));
    };
    issue(1);
    let address = rig.ingress.https_address().unwrap();
    let client = |_| {
        let visitor = Visitor::connect(address, "a.test", authority.client(&[]));
        let mut wire = visitor.unwrap().wire();
        wire.send(&get("a.test", "/"));
        assert_eq!(wire.response().text(), "one");
    };
    Crowd::around(client, |proceed| {
        for serial in 2..30 {
            issue(serial);
            proceed();
        }
    });
}
