//! An ingress on loopback, upstreams that follow a script, and raw HTTP on either side.

mod http2;
mod tls;
mod upstream;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jaco_adapters::ingress::{HyperIngress, Limits, Settings};
use jaco_adapters::seal::AesSealer;
use jaco_core::id::{DeploymentName, Domain, ReplicaId, ServiceName};
use jaco_core::manifest::spec::Protocol;
use jaco_core::node::ingress::{PortRoute, Route, RouteTable, Upstream as Replica};
use jaco_core::ports::ingress_proxy::IngressProxy;

pub(crate) use http2::{Body, Http2Upstream, speak, speak_with_window};
pub(crate) use tls::{Authority, Visitor};
pub(crate) use upstream::{Upstream, ok};
pub(crate) use wire::{Message, Wire};

/// Generous: a slow machine is no defect.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// An ingress with the table that a test builds up.
pub(crate) struct Rig {
    pub(crate) ingress: HyperIngress,
    table: Mutex<RouteTable>,
    _runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1, limits)
    }

    pub(crate) fn on(http: SocketAddr, workers: usize, limits: Limits) -> Self {
        let https = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sealer = Arc::new(sealer());
        Self::start(Settings {
            workers,
            limits,
            ..Settings::new(http, https, sealer)
        })
    }

    pub(crate) fn start(settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let ingress = {
            let _entered = runtime.enter();
            HyperIngress::start(settings).unwrap()
        };
        let table = Mutex::default();
        Self {
            ingress,
            table,
            _runtime: runtime,
        }
    }

    /// One upstream behind `a.test`.
    pub(crate) fn single(upstream: &Upstream) -> Self {
        let rig = Self::new();
        rig.route("a.test", "", &[upstream]);
        rig
    }

    pub(crate) fn route(&self, domain: &str, path: &str, upstreams: &[&Upstream]) {
        self.add(domain, route(path, false, &addresses(upstreams)));
    }

    pub(crate) fn strip(&self, domain: &str, path: &str, upstreams: &[&Upstream]) {
        self.add(domain, route(path, true, &addresses(upstreams)));
    }

    pub(crate) fn add(&self, domain: &str, route: Route) {
        self.change(|table| {
            let routes = table.domains.entry(Domain::from(domain)).or_default();
            routes.push(route);
            routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        });
    }

    /// Changes the table and publishes it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut RouteTable)) {
        let mut table = self.table.lock().unwrap();
        change(&mut table);
        self.ingress.publish(Arc::new(table.clone()));
    }

    /// A new connection of a client.
    pub(crate) fn client(&self) -> Wire {
        Wire::connect(self.ingress.http_address().unwrap())
    }

    /// Sends a request on a connection of its own and reads the response.
    pub(crate) fn ask(&self, request: &str) -> Message {
        let mut client = self.client();
        client.send(request);
        client.response()
    }

    /// Asks for a path of `a.test`.
    pub(crate) fn get(&self, path: &str) -> Message {
        self.ask(&get("a.test", path))
    }
}

/// Seals as a node of the cluster does.
pub(crate) fn sealer() -> AesSealer {
    AesSealer::new(&[7; 32])
}

/// A plain request.
pub(crate) fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// A request with a body.
pub(crate) fn post(body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A route to these addresses.
pub(crate) fn route(path: &str, strip_path: bool, addresses: &[SocketAddr]) -> Route {
    Route {
        path: path.to_owned(),
        strip_path,
        tls: false,
        deployment: DeploymentName::from("shop"),
        service: ServiceName::from("web"),
        upstreams: replicas(addresses),
    }
}

/// The same with `tls: auto`.
pub(crate) fn secure(upstream: &Upstream) -> Route {
    Route {
        tls: true,
        ..route("", false, &addresses(&[upstream]))
    }
}

/// An upstream that takes a body of this size and gives one as large.
pub(crate) fn large(size: usize) -> Upstream {
    Upstream::answering(move |request| {
        assert_eq!(request.body.len(), size);
        Some(ok(&"y".repeat(size)))
    })
}

/// A published port that leads to these addresses.
pub(crate) fn port(addresses: &[SocketAddr]) -> PortRoute {
    PortRoute {
        deployment: DeploymentName::from("shop"),
        service: ServiceName::from("store"),
        proxy_protocol: false,
        upstreams: replicas(addresses),
    }
}

/// The key of a published TCP port.
pub(crate) fn tcp(port: u16) -> (u16, Protocol) {
    (port, Protocol::Tcp)
}

fn replicas(addresses: &[SocketAddr]) -> Arc<Vec<Replica>> {
    let replica = |address: &SocketAddr| {
        let SocketAddr::V4(address) = *address else {
            panic!("{address} is not IPv4")
        };
        Replica {
            replica: ReplicaId::new(format!("web-{}", address.port())),
            address,
            local: true,
        }
    };
    Arc::new(addresses.iter().map(replica).collect())
}

pub(crate) fn addresses(upstreams: &[&Upstream]) -> Vec<SocketAddr> {
    upstreams.iter().map(|upstream| upstream.address).collect()
}

/// An address where nobody listens.
pub(crate) fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A port that is free on every address, for now.
pub(crate) fn free_port() -> u16 {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let listener = TcpListener::bind((any, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Asks again until it is so.
pub(crate) fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let start = Instant::now();
    while !probe() {
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::yield_now();
    }
}
