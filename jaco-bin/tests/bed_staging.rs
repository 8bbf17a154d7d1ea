//! Staging first, against two real CAs, while whoever leads is killed (spec 08, Stage first).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jaco_testkit::bed::{Bed, Host, SOON, cluster_status, poll_until};
use jaco_testkit::project::Project;
use serde_json::{Value, json};

use support::network::events;
use support::{apply, bed, leader, lets_encrypt, voters, write_web};

const DOMAIN: &str = "stage.test";
/// Pebble waits about as many seconds before it asks a node, so that each state is seen.
const SLOW: [(&str, &str); 2] = [("PEBBLE_VA_NOSLEEP", ""), ("PEBBLE_VA_SLEEPTIME", "4")];

/// Three hosts whose daemons know of no other CA than Let's Encrypt, which here is two Pebbles.
fn cluster() -> Bed {
    let bed = bed("staging", 3);
    let acme = bed.acme();
    acme.start(&SLOW).unwrap();
    acme.start_staging(&SLOW).unwrap();
    lets_encrypt::start(acme);
    for host in bed.hosts() {
        host.write_config(&[
            ("acme_ca_root", json!(acme.root_file())),
            ("acme_email", json!("ops@example.com")),
            ("dns", json!({"forwarders": [acme.resolver()]})),
        ])
        .unwrap();
    }
    bed.form_cluster().unwrap();
    bed
}

/// The domain's line of `jaco cert list`, by the first host that tells it.
fn row(bed: &Bed) -> Value {
    let list = |host: &Host| host.jaco_json(&["cert", "list"]).ok();
    let list = bed.hosts().iter().find_map(list).unwrap_or_default();
    list["certs"][0].clone()
}

/// The serial of the certificate that an address shows; empty when it shows none.
fn shown(from: &Host, address: Ipv4Addr) -> String {
    let line = format!(
        "openssl s_client -connect {address}:443 -servername {DOMAIN} </dev/null 2>/dev/null \
         | openssl x509 -noout -serial 2>/dev/null"
    );
    let output = from.run(Command::new("sh").args(["-c", &line])).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let serial = text.trim().trim_start_matches("serial=");
    serial.trim_start_matches('0').to_lowercase()
}

/// Kills whoever leads, and brings it back once another leads.
fn change_leader(bed: &Bed) {
    let old = bed.host(leader(bed).unwrap());
    old.kill_daemon().unwrap();
    let others = || {
        bed.hosts()
            .iter()
            .filter(|host| host.index() != old.index())
    };
    poll_until(SOON, "another leader", || {
        others().any(|host| {
            let status = cluster_status(host).unwrap_or_default();
            let leader = status["leader"].as_str();
            leader.is_some_and(|leader| leader != old.name())
        })
    })
    .unwrap();
    old.start_daemon().unwrap();
    poll_until(SOON, "three voters", || voters(bed) == Some(3)).unwrap();
}

#[test]
fn a_domain_is_promoted_once_although_every_leader_is_killed() {
    let bed = cluster();
    let address = bed.host(2).address();
    bed.acme().set_addresses(DOMAIN, &[address]).unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let project = Project::new("staging").unwrap();
    let route = format!("  - {{domain: {DOMAIN}, service: web, port: 80}}\n");
    write_web(&bed, &project, &route, 1);
    let done = AtomicBool::new(false);
    let (states, serials) = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut serials = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                for host in bed.hosts() {
                    serials.insert(shown(host, host.address()));
                }
                thread::sleep(Duration::from_millis(100));
            }
            serials
        });
        apply(bed.host(1), &project);
        let mut states = BTreeSet::new();
        let reached = poll_until(SOON, "the certificate", || {
            let row = row(&bed);
            let state = row["state"].as_str().unwrap_or_default().to_owned();
            let new = !state.is_empty() && states.insert(state.clone());
            if new && state != "issued" {
                change_leader(&bed);
            }
            state == "issued"
        });
        // Every node has what the state has, and it is watched for a moment.
        let everywhere = || {
            bed.hosts()
                .iter()
                .all(|h| !shown(h, h.address()).is_empty())
        };
        let everywhere = poll_until(SOON, "it is shown everywhere", everywhere);
        done.store(true, Ordering::Relaxed);
        assert!(
            reached.is_ok() && everywhere.is_ok(),
            "{states:?}: {}",
            row(&bed)
        );
        (states, watching.join().unwrap())
    });
    for state in ["staging", "pending_prod", "issued"] {
        assert!(states.contains(state), "{states:?}");
    }
    let row = row(&bed);
    let serial = row["serial"]
        .as_str()
        .unwrap()
        .trim_start_matches('0')
        .to_owned();
    assert_eq!(row["environment"], "prod");
    assert_eq!(serials, BTreeSet::from([String::new(), serial]));
    let issued = events(bed.host(3), "certificate_issued");
    let of = |environment: &str| {
        let of = |event: &&Value| event["payload"]["env"] == environment;
        issued.iter().filter(of).count()
    };
    assert_eq!((of("staging"), of("prod")), (1, 1), "{issued:?}");
}
