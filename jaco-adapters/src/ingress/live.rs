//! The published table together with what this node knows of each upstream at the moment.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jaco_core::cluster::certs::Issued;
use jaco_core::id::Domain;
use jaco_core::node::balance::Load;
use jaco_core::node::carrier::{ASK_AGAIN, Spoken};
use jaco_core::node::ingress::{Route, RouteTable, Upstream};
use jaco_core::ports::Sealer;
use rustls::sign::CertifiedKey;

use super::tally::{Tallies, Tally};
use super::tls::{self, Shown};

/// One published table. Replaced as a whole; whoever began with it keeps it.
#[derive(Default)]
pub(super) struct Live {
    pub(super) routes: Arc<RouteTable>,
    certificates: HashMap<Domain, Arc<Shown>>,
    peers: HashMap<SocketAddrV4, Arc<Peer>>,
    /// By the place of the route, which stays where it is for as long as the table.
    tallies: HashMap<usize, Arc<Tally>>,
}

/// One upstream address, shared by the workers and carried from table to table.
pub(super) struct Peer {
    in_flight: AtomicU32,
    /// Milliseconds after `born`; zero while the replica is not ejected.
    ejected_until: AtomicU64,
    /// Zero while it is not known whether the replica speaks HTTP/2, [`H2C`] when it does, else
    /// the milliseconds after `born` until which it counts as one that does not.
    http1_until: AtomicU64,
    born: Instant,
}

/// What `http1_until` is for a replica that speaks HTTP/2.
const H2C: u64 = u64::MAX;

/// One request or connection under way; ends when dropped.
pub(super) struct Flight(Arc<Peer>);

impl Live {
    /// Joins a table with what was known under the one before.
    pub(super) fn new(
        routes: Arc<RouteTable>,
        before: &Live,
        sealer: &dyn Sealer,
        tallies: Option<&Tallies>,
    ) -> Self {
        let http = routes.domains.values().flatten().map(|r| &r.upstreams);
        let ports = routes.ports.values().map(|route| &route.upstreams);
        let peer = |upstream: &Upstream| {
            let known = before.peers.get(&upstream.address).map(Arc::clone);
            (upstream.address, known.unwrap_or_default())
        };
        let upstreams = http.chain(ports).flat_map(|upstreams| upstreams.iter());
        let peers = upstreams.map(peer).collect();
        let certificates = routes.certificates.iter().filter_map(|(domain, served)| {
            let shown = before.shown(domain, served).or_else(|| {
                let opened = tls::open(domain, served, sealer);
                let told = |why: &String| {
                    tracing::error!(subsystem = "ingress", %domain, why, "certificate not served");
                };
                opened.inspect_err(told).ok().map(Arc::new)
            });
            Some((domain.clone(), shown?))
        });
        let counted = tallies.into_iter().flat_map(|tallies| {
            let all = routes.domains.iter();
            let all = all.flat_map(|(domain, routes)| routes.iter().map(move |r| (domain, r)));
            all.map(|(domain, route)| (place(route), tallies.of(domain, route)))
        });
        Self {
            tallies: counted.collect(),
            certificates: certificates.collect(),
            routes,
            peers,
        }
    }

    /// A certificate as it was opened for this table, if it is still the same.
    fn shown(&self, domain: &Domain, served: &Issued) -> Option<Arc<Shown>> {
        let shown = self.certificates.get(domain)?;
        (shown.serial == served.serial).then(|| Arc::clone(shown))
    }

    /// What is shown to visitors of a host.
    pub(super) fn certificate(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let shown = match self.certificates.get(host) {
            Some(shown) => shown,
            None if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                self.certificates.get(host.to_ascii_lowercase().as_str())?
            }
            None => return None,
        };
        Some(&shown.key)
    }

    /// The numbers of a route of this table; none when nothing is counted.
    pub(super) fn tally(&self, route: &Route) -> Option<&Arc<Tally>> {
        match self.tallies.is_empty() {
            true => None,
            false => self.tallies.get(&place(route)),
        }
    }

    /// True when some certificate can be shown.
    pub(super) fn shows_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    pub(super) fn knows(&self, address: &SocketAddrV4) -> bool {
        self.peers.contains_key(address)
    }

    pub(super) fn load(&self, upstream: &Upstream) -> Load {
        let peer = self.peers.get(&upstream.address);
        peer.map(|peer| peer.load()).unwrap_or_default()
    }

    /// Counts a request or connection to an upstream of this table.
    pub(super) fn begin(&self, upstream: &Upstream) -> Flight {
        let peer = self.peers.get(&upstream.address).map(Arc::clone);
        let peer = peer.unwrap_or_default();
        peer.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight(peer)
    }
}

fn place(route: &Route) -> usize {
    std::ptr::from_ref(route).addr()
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            http1_until: AtomicU64::new(0),
            born: Instant::now(),
        }
    }
}

impl Peer {
    fn load(&self) -> Load {
        let until = self.ejected_until.load(Ordering::Relaxed);
        Load {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            ejected: until != 0 && self.age() < until,
        }
    }

    fn after(&self, time: Duration) -> u64 {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.age().saturating_add(time).min(H2C - 1)
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Flight {
    /// Leaves the replica out for a while, because it could not be reached.
    pub(super) fn eject(&self, time: Duration) {
        self.0
            .ejected_until
            .store(self.0.after(time), Ordering::Relaxed);
    }

    /// What is known of the replica's protocol.
    pub(super) fn spoken(&self) -> Spoken {
        match self.0.http1_until.load(Ordering::Relaxed) {
            0 => Spoken::Unknown,
            H2C => Spoken::H2c,
            until if self.0.age() < until => Spoken::Http1,
            _ => Spoken::Unknown,
        }
    }

    /// The replica was asked for HTTP/2, and did or did not answer it.
    pub(super) fn speaks(&self, http2: bool) {
        let known = if http2 { H2C } else { self.0.after(ASK_AGAIN) };
        // Mostly it is known already; a store would take the line from the other workers.
        if self.0.http1_until.load(Ordering::Relaxed) != known {
            self.0.http1_until.store(known, Ordering::Relaxed);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
