//! Replicas come and go: no host goes on naming them, and nothing of them stays behind (spec 07).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jaco_core::cluster::deployment::ReplicaState;
use jaco_core::view::status::Status;

use crate::bed::{Bed, Host, SOON, StatusWatch, poll_ok, poll_until};
use crate::project::Project;

/// The deployment; its one service is `web`, on the network `front`.
pub const DEPLOYMENT: &str = "shop";
/// Asks for `web`, type A.
const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01";
/// A responder that says nothing for so long names nothing.
const SILENCE: Duration = Duration::from_millis(200);
/// What has not been named for so long, while it was asked for all the time, is forgotten.
const FORGOTTEN: Duration = Duration::from_millis(100);

/// What a churn showed.
#[derive(Clone, Debug, Default)]
pub struct Churn {
    /// Changes of the service's size.
    pub moves: usize,
    /// For each replica that went, how long after that the last host still named it.
    pub named_for: Vec<Duration>,
}

/// Applies the deployment with three replicas and waits until they run.
///
/// # Errors
/// When they do not.
pub fn prepare(bed: &Bed, project: &Project) -> Result<()> {
    let image = bed.image("web:1");
    project.write(
        "compose.yaml",
        &format!(
            "services:\n  web: {{image: '{image}', networks: [front]}}\nnetworks: {{front: {{}}}}\n"
        ),
    )?;
    project.write(
        "jaco.yaml",
        &format!("deployment: {DEPLOYMENT}\nservices:\n  - {{name: web, replicas: 3}}\n"),
    )?;
    let path = project.path("jaco.yaml");
    bed.host(1).jaco_text(&["apply", &path, "--wait"])?;
    Ok(())
}

/// Changes the size of the service for as long as `goes_on` says, through one host after the
/// other, while every host is asked for its name all the time.
///
/// # Errors
/// When a change does not come, or a host goes on naming what went.
pub fn churn(bed: &Bed, goes_on: impl Fn(usize) -> bool) -> Result<Churn> {
    let status = status(bed.host(1))?;
    let address = status.replicas.first().and_then(|row| row.address);
    let gateway = u32::from(address.context("an address")?) & !0xff | 1;
    let asked = Asked {
        gateway: gateway.into(),
        over: AtomicBool::new(false),
        named: Mutex::default(),
    };
    thread::scope(|scope| {
        for host in bed.hosts() {
            scope.spawn(|| asked.ask(host));
        }
        let churned = scale(bed, &asked, goes_on);
        asked.over.store(true, Ordering::Relaxed);
        churned
    })
}

fn scale(bed: &Bed, asked: &Asked, goes_on: impl Fn(usize) -> bool) -> Result<Churn> {
    let watch = StatusWatch::start(bed.host(1), DEPLOYMENT)?;
    let (_, mut before) = watch.next(SOON)?;
    let mut churn = Churn::default();
    while goes_on(churn.moves) {
        let count = [1, 5, 2, 6, 3][churn.moves % 5];
        let through = bed.host(churn.moves % bed.hosts().len() + 1);
        through.jaco_text(&["scale", &format!("{DEPLOYMENT}/web={count}")])?;
        let mut left = BTreeMap::new();
        loop {
            let (at, now) = watch.next(SOON)?;
            for address in serving(&before).difference(&serving(&now)) {
                left.insert(*address, at);
            }
            let settled = now.replicas.len() == count && serving(&now).len() == count;
            before = now;
            if settled {
                break;
            }
        }
        for (address, at) in left {
            poll_until(SOON, "no host names what went", || {
                asked
                    .forgotten_since(address)
                    .is_none_or(|since| since >= FORGOTTEN)
            })?;
            let last = asked.last_named(address);
            churn
                .named_for
                .push(last.map_or(Duration::ZERO, |last| last.duration_since(at)));
        }
        churn.moves += 1;
    }
    Ok(churn)
}

/// The addresses of the replicas that serve.
fn serving(status: &Status) -> BTreeSet<Ipv4Addr> {
    let rows = status.replicas.iter();
    let serving = rows.filter(|row| row.state == ReplicaState::Running);
    serving.filter_map(|row| row.address).collect()
}

fn status(host: &Host) -> Result<Status> {
    let status = host.jaco_json(&["status", DEPLOYMENT])?;
    Ok(serde_json::from_value(status)?)
}

/// Every host's peers, routes, networks and rules are those of a fresh rendering of the state, and
/// none has a neighbour of its own making.
///
/// # Errors
/// With the first difference that lasts.
pub fn as_rendered_anew(bed: &Bed) -> Result<()> {
    poll_ok(SOON, "the hosts have what the state asks for", || {
        let checked = bed.host(1).jaco_json(&["net", "check"])?;
        let rows = checked["checks"].as_array().cloned().unwrap_or_default();
        let tables = rows.iter().filter(|row| row["check"] == "tables");
        ensure!(tables.clone().count() == bed.hosts().len(), "{rows:?}");
        ensure!(tables.clone().all(|row| row["ok"] == true), "{rows:?}");
        Ok(())
    })?;
    for host in bed.hosts() {
        for kind in [["nud", "permanent"].as_slice(), &["proxy"]] {
            let mut command = std::process::Command::new("ip");
            let words = [&["-4", "neigh", "show"], kind].concat();
            let output = host.run(command.args(&words))?;
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(!shown.contains("10.244."), "{}: {shown}", host.name());
        }
    }
    Ok(())
}

/// What the responders of all hosts say, asked without a pause.
struct Asked {
    gateway: Ipv4Addr,
    over: AtomicBool,
    /// When each address was last named, by any host.
    named: Mutex<BTreeMap<Ipv4Addr, Instant>>,
}

impl Asked {
    fn ask(&self, host: &Host) {
        let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        let Ok(Ok(socket)) = host.enter(bind) else {
            return;
        };
        let _ = socket.set_read_timeout(Some(SILENCE));
        let mut buffer = [0; 512];
        while !self.over.load(Ordering::Relaxed) {
            // Without a replica a host has no bridge, and no responder on it.
            let sent = socket.send_to(QUESTION, (self.gateway, 53));
            match sent.and_then(|_| socket.recv(&mut buffer)) {
                Ok(length) => self.note(&addresses(&buffer[..length])),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn note(&self, addresses: &[Ipv4Addr]) {
        let now = Instant::now();
        let mut named = self.named();
        named.extend(addresses.iter().map(|address| (*address, now)));
    }

    fn last_named(&self, address: Ipv4Addr) -> Option<Instant> {
        self.named().get(&address).copied()
    }

    fn forgotten_since(&self, address: Ipv4Addr) -> Option<Duration> {
        self.last_named(address).map(|at| at.elapsed())
    }

    fn named(&self) -> std::sync::MutexGuard<'_, BTreeMap<Ipv4Addr, Instant>> {
        let named = self.named.lock();
        named.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The addresses in an answer to [`QUESTION`].
fn addresses(answer: &[u8]) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut rest = answer.get(QUESTION.len()..).unwrap_or_default();
    // Each name is a pointer, or labels up to the empty one.
    while let Some(end) = rest.iter().position(|byte| *byte == 0 || *byte >= 0xc0) {
        let fixed = end + if rest[end] == 0 { 1 } else { 2 };
        let Some(record) = rest.get(fixed..).filter(|record| record.len() >= 10) else {
            break;
        };
        let length = usize::from(u16::from_be_bytes([record[8], record[9]]));
        let Some(data) = record.get(10..10 + length) else {
            break;
        };
        if let (1, Ok(octets)) = (record[1], <[u8; 4]>::try_from(data)) {
            found.push(Ipv4Addr::from(octets));
        }
        rest = &record[10 + length..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_an_answer() {
        let mut answer = QUESTION.to_vec();
        for last in [2, 9] {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 244, 0, last]);
        }
        let expected = [Ipv4Addr::new(10, 244, 0, 2), Ipv4Addr::new(10, 244, 0, 9)];
        assert_eq!(addresses(&answer), expected);
        assert!(addresses(QUESTION).is_empty());
        assert_eq!(addresses(&answer[..answer.len() - 1]), expected[..1]);
    }
}
