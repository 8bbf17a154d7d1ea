//! Certificates of a real CA on real hosts (spec 08, Certificates).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use jaco_testkit::bed::{Bed, Host, poll_until};
use jaco_testkit::project::Project;
use serde_json::{Value, json};

use support::network::events;
use support::{apply, bed, leader, voters};

const SOON: Duration = Duration::from_secs(60);

/// Three hosts whose daemons order from the bed's CA.
fn cluster(name: &str, settings: &[(&str, &str)]) -> Bed {
    let bed = bed(name, 3);
    let acme = bed.acme();
    acme.start(settings).unwrap();
    for host in bed.hosts() {
        host.write_config(&[
            ("acme_ca", json!(acme.directory_url())),
            ("acme_ca_root", json!(acme.root_file())),
            ("acme_email", json!("ops@example.com")),
            ("dns", json!({"forwarders": [acme.resolver()]})),
        ])
        .unwrap();
    }
    bed.form_cluster().unwrap();
    bed
}

/// Writes a project with one web service behind these domains.
fn write(bed: &Bed, project: &Project, domains: &[String]) {
    let route = |domain: &String| format!("  - {{domain: {domain}, service: web, port: 80}}\n");
    let routes: String = domains.iter().map(route).collect();
    support::write_web(bed, project, &routes, 1);
}

/// A domain's line of `jaco cert list`.
fn row(host: &Host, domain: &str) -> Value {
    let list = host.jaco_json(&["cert", "list"]).unwrap();
    let rows = list["certs"].as_array().unwrap();
    let row = rows.iter().find(|row| row["domain"] == domain);
    row.cloned().unwrap_or_default()
}

fn wait_for(host: &Host, domain: &str, state: &str) -> Value {
    let reached = poll_until(SOON, "the certificate's state", || {
        row(host, domain)["state"] == state
    });
    let row = row(host, domain);
    assert!(reached.is_ok(), "{domain} is not {state}: {row}");
    row
}

/// Runs a program with some input; its standard output.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The serial of the certificate that an address shows for a name; empty when it shows none.
fn shown(from: &Host, address: Ipv4Addr, name: &str) -> String {
    let at = format!("{address}:443");
    let words = ["s_client", "-connect", &at, "-servername", name];
    let hello = from.enter(|| run("openssl", &words, b"")).unwrap();
    let serial = run("openssl", &["x509", "-noout", "-serial"], hello.as_bytes());
    let serial = serial.trim().trim_start_matches("serial=");
    serial.trim_start_matches('0').to_lowercase()
}

/// What curl gets within TLS, trusting the CA's root only: the HTTP version and the status.
fn fetched(bed: &Bed, from: &Host, address: Ipv4Addr, name: &str) -> String {
    let root = from.directory().join("issuer-root.pem");
    std::fs::write(&root, bed.acme().issuer_root().unwrap()).unwrap();
    let resolve = format!("{name}:443:{address}");
    let (root, url) = (root.display().to_string(), format!("https://{name}/"));
    let words = [
        "--silent",
        "--noproxy",
        "*",
        "--cacert",
        &root,
        "--resolve",
        &resolve,
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_version} %{http_code}",
        &url,
    ];
    from.enter(|| run("curl", &words, b"")).unwrap()
}

fn plain(from: &Host, address: Ipv4Addr, name: &str) -> u16 {
    let response = from.http_get(name, &format!("{address}:80"), "/");
    response.map_or(0, |response| response.status)
}

#[test]
fn regression_every_domain_is_issued_through_any_node_and_served_by_all_at_once() {
    // A third of all good nonces is refused.
    let bed = cluster("certs", &[("PEBBLE_WFE_NONCEREJECT", "30")]);
    let addresses: Vec<Ipv4Addr> = bed.hosts().iter().map(Host::address).collect();
    let domains: Vec<String> = (0..20).map(|n| format!("d{n}.test")).collect();
    for (number, domain) in domains.iter().enumerate() {
        let address = addresses[number % addresses.len()];
        bed.acme().set_addresses(domain, &[address]).unwrap();
    }
    let project = Project::new("certs").unwrap();
    write(&bed, &project, &domains);
    let host = bed.host(2);
    apply(host, &project);
    for domain in &domains {
        let row = wait_for(host, domain, "issued");
        assert_eq!(row["environment"], "prod");
        let serial = row["serial"].as_str().unwrap().trim_start_matches('0');
        for &address in &addresses {
            assert_eq!(
                shown(host, address, domain),
                serial,
                "{domain} at {address}"
            );
            assert_eq!(plain(host, address, domain), 308);
        }
    }
    for &address in &addresses {
        assert_eq!(fetched(&bed, host, address, &domains[0]), "2 200");
    }
    let issued = events(host, "certificate_issued");
    assert_eq!(issued.len(), domains.len());

    // A renewal is served by all at the next handshake, and nobody was restarted.
    let (domain, pids) = (&domains[0], pids(&bed));
    let before = shown(host, addresses[0], domain);
    host.jaco_text(&["cert", "renew", domain]).unwrap();
    poll_until(SOON, "the renewal", || {
        row(host, domain)["last_renewal_at"].is_string()
    })
    .unwrap();
    let row = row(host, domain);
    let serial = row["serial"].as_str().unwrap().trim_start_matches('0');
    assert_ne!(serial, before);
    for &address in &addresses {
        assert_eq!(shown(host, address, domain), serial);
    }
    assert_eq!(pids, self::pids(&bed));

    // With the deployment its certificates go.
    host.jaco_text(&["delete", "web"]).unwrap();
    poll_until(SOON, "no certificate is shown", || {
        shown(host, addresses[0], domain).is_empty()
    })
    .unwrap();
}

fn pids(bed: &Bed) -> Vec<Option<i32>> {
    bed.hosts().iter().map(|host| host.daemon().pid()).collect()
}

#[test]
fn regression_acme_fails_and_plain_http_goes_on() {
    let bed = cluster("certfail", &[]);
    let (host, address) = (bed.host(1), bed.host(3).address());
    let [lost, unseen, late] = ["lost.test", "unseen.test", "late.test"].map(str::to_owned);
    let project = Project::new("certfail").unwrap();
    // One domain leads elsewhere, which is seen before the CA is asked.
    bed.acme()
        .set_addresses(&lost, &[Ipv4Addr::new(10, 99, 0, 200)])
        .unwrap();
    write(&bed, &project, std::slice::from_ref(&lost));
    apply(host, &project);
    let first = wait_for(host, &lost, "failed");
    assert_eq!(first["details"]["stage"], "preflight", "{first}");
    let reason = first["last_error"].as_str().unwrap();
    assert!(reason.contains("10.99.0.200"), "{reason}");
    // One is found by the nodes, but not by the CA.
    bed.acme().set_addresses(&unseen, &[address]).unwrap();
    let blind = "add table inet blind\n\
                 add chain inet blind out { type filter hook output priority 0; }\n\
                 add rule inet blind out tcp dport 80 reject with tcp reset\n";
    bed.switch().nft(blind).unwrap();
    write(&bed, &project, &[lost.clone(), unseen.clone()]);
    apply(host, &project);
    let second = wait_for(host, &unseen, "failed");
    assert_eq!(second["details"]["stage"], "validation", "{second}");
    let reason = second["last_error"].as_str().unwrap();
    assert!(reason.contains("unseen.test"), "{reason}");
    bed.switch().nft("delete table inet blind\n").unwrap();
    // For the last there is no CA.
    bed.acme().set_addresses(&late, &[address]).unwrap();
    bed.acme().stop().unwrap();
    write(
        &bed,
        &project,
        &[lost.clone(), unseen.clone(), late.clone()],
    );
    apply(host, &project);
    for domain in [&lost, &unseen, &late] {
        let row = wait_for(host, domain, "failed");
        assert_eq!(row["code"], "cert_failed", "{row}");
        assert!(row["next_attempt_at"].is_string(), "{row}");
        assert_eq!(plain(host, address, domain), 200);
        assert_eq!(shown(host, address, domain), "");
    }
    let failures = events(host, "certificate_failed").len();

    // Who leads next knows what failed, and waits as long.
    let before = row(host, &late);
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let old = leader(&bed).unwrap();
    bed.host(old).kill_daemon().unwrap();
    let witness = bed.hosts().iter().find(|host| host.index() != old).unwrap();
    poll_until(SOON, "another leader", || {
        leader_of(witness).is_some_and(|name| name != bed.host(old).name())
    })
    .unwrap();
    assert_eq!(row(witness, &late), before);
    bed.host(old).start_daemon().unwrap();
    assert_eq!(events(witness, "certificate_failed").len(), failures);

    // The CA comes back as one that has forgotten everything; an operator has it tried at once.
    bed.acme().start(&[]).unwrap();
    bed.acme().set_addresses(&lost, &[address]).unwrap();
    for domain in [&lost, &unseen, &late] {
        poll_until(SOON, "the certificate", || {
            let state = row(witness, domain)["state"].clone();
            if state == "failed" {
                witness.jaco_text(&["cert", "renew", domain]).unwrap();
            }
            state == "issued"
        })
        .unwrap();
        assert_ne!(shown(witness, address, domain), "");
    }
}

fn leader_of(host: &Host) -> Option<String> {
    let status = jaco_testkit::bed::cluster_status(host).ok()?;
    status["leader"].as_str().map(str::to_owned)
}
