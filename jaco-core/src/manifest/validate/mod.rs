//! The rules across services, and between `jaco.yaml` and compose (spec 02).
//!
//! Each rule is one function that records what breaks it. What concerns the cluster (members,
//! owners of domains and ports, tokens) is checked where the state is known, not here.

mod cycles;

use std::collections::{BTreeMap, BTreeSet};

use super::compose::{ALLOW_PRIVILEGED, Compose, Placed, Service, service_path};
use super::findings::{Findings, listed};
use super::jaco::{Jaco, Located, Override, PlacementWord};
use super::spec::{NetworkMode, Protocol};
use super::yaml::At;
use crate::error::ErrorCode;
use crate::id::DEFAULT_NETWORK;

/// What the rules look at.
pub(crate) struct Rules<'a> {
    pub(crate) jaco: &'a Jaco,
    pub(crate) compose: &'a Compose,
    /// Services that the compose file declares in a profile that is off.
    pub(crate) inactive: &'a BTreeSet<String>,
    pub(crate) findings: &'a Findings,
    services: BTreeMap<&'a str, &'a Service>,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(
        jaco: &'a Jaco,
        compose: &'a Compose,
        inactive: &'a BTreeSet<String>,
        findings: &'a Findings,
    ) -> Self {
        let services = compose
            .services
            .iter()
            .map(|s| (s.name.as_str(), s))
            .collect();
        Self {
            jaco,
            compose,
            inactive,
            findings,
            services,
        }
    }

    /// Runs the rules that hold for `jaco.yaml` alone.
    pub(crate) fn check_jaco(&self) {
        self.routes_are_distinct();
        self.domains_have_one_tls_mode();
    }

    /// Runs every rule.
    pub(crate) fn check(&self) {
        self.check_jaco();
        self.routes_have_services();
        self.overrides_name_services_once();
        self.jaco
            .overrides
            .iter()
            .for_each(|entry| self.hosts(entry));
        self.global_services_have_no_replicas();
        self.networks_are_declared();
        self.host_ports_are_opened_once();
        self.references_between_services();
        self.network_modes_stand_alone();
        self.privileges_are_asked_for_twice();
        cycles::check(self);
    }

    /// Once by the key itself, once by the label or by `allow_privileged` in `jaco.yaml`.
    fn privileges_are_asked_for_twice(&self) {
        for service in &self.compose.services {
            let mut entries = self.jaco.overrides.iter();
            let is_its = |entry: &Override| entry.service.value == service.name.as_str();
            if entries.any(|entry| is_its(entry) && entry.allow_privileged) {
                continue;
            }
            if let Some(Placed { name, path, at, .. }) = &service.unlabelled_privilege {
                let message = format!(
                    "service \"{}\" sets {name}, which needs the label {ALLOW_PRIVILEGED}: \
                     \"true\"",
                    service.name
                );
                self.findings.invalid(*at, path, message);
            }
        }
    }

    fn routes_have_services(&self) {
        for route in &self.jaco.routes {
            let name = &route.service.value;
            match self.services.get(&**name) {
                None => self.unknown_service(&route.service),
                Some(service) if service.network_mode != NetworkMode::Networks => {
                    let message = format!(
                        "route to service {name:?}, which sets network_mode and so has no address"
                    );
                    self.findings
                        .invalid(route.service.at, &route.service.path, message);
                }
                Some(_) => {}
            }
        }
    }

    fn routes_are_distinct(&self) {
        let mut seen = BTreeSet::new();
        for route in &self.jaco.routes {
            if !seen.insert((&route.domain, &route.path)) {
                let message = format!(
                    "two routes have the domain {:?} and the path {:?}",
                    route.domain, route.path
                );
                self.findings
                    .invalid(route.whole.at, &route.whole.path, message);
            }
        }
    }

    fn domains_have_one_tls_mode(&self) {
        let mut modes: BTreeMap<&str, bool> = BTreeMap::new();
        for route in &self.jaco.routes {
            let tls = route.tls.unwrap_or(self.jaco.acme);
            let first = *modes.entry(&route.domain).or_insert(tls);
            if first != tls {
                let domain = &route.domain;
                let message =
                    format!("domain {domain:?} has routes with tls: auto and with tls: off");
                let (at, path) = (route.whole.at, &route.whole.path);
                let details = [("domain", &**domain)];
                self.findings
                    .refuse(ErrorCode::RouteTlsMixed, at, path, message, &details);
            }
        }
    }

    fn overrides_name_services_once(&self) {
        let mut seen = BTreeSet::new();
        for Override { service, .. } in &self.jaco.overrides {
            let name = &service.value;
            if !self.services.contains_key(&**name) && !self.inactive.contains(name) {
                self.unknown_service(service);
            } else if !seen.insert(name) {
                let message = format!("service {name:?} has two entries");
                self.findings.invalid(service.at, &service.path, message);
            }
        }
    }

    /// `placement: hosts` and `hosts` come together, and hold all replicas.
    fn hosts(&self, entry: &Override) {
        let name = &entry.service.value;
        let service = self.services.get(&**name);
        let word = entry.placement.as_ref().map(|placement| placement.value);
        match (&entry.hosts, &entry.placement) {
            (None, Some(placement)) if placement.value == PlacementWord::Hosts => {
                let message = format!("service {name:?} uses placement=hosts; list its hosts");
                self.findings
                    .invalid(placement.at, &placement.path, message);
            }
            (Some(hosts), _) if word != Some(PlacementWord::Hosts) => {
                let message = format!("service {name:?} lists hosts, which need placement: hosts");
                self.findings.invalid(hosts.at, &hosts.path, message);
            }
            (Some(hosts), _) => self.pinned(entry, hosts, service.copied()),
            _ => {}
        }
    }

    /// Whether `placement` or `deploy.mode` makes it global, and wherever replicas are set.
    fn global_services_have_no_replicas(&self) {
        let entries = self
            .jaco
            .overrides
            .iter()
            .map(|entry| (&*entry.service.value, entry));
        let entries: BTreeMap<&str, &Override> = entries.collect();
        for service in &self.compose.services {
            let name = service.name.as_str();
            let entry = entries.get(name);
            let word = entry
                .and_then(|entry| entry.placement.as_ref())
                .map(|p| p.value);
            if !word.map_or(service.deploy.mode.is_global(), |w| {
                w == PlacementWord::Global
            }) {
                continue;
            }
            let own = entry.and_then(|entry| entry.replicas.as_ref());
            let own = own.map(|replicas| (replicas.at, replicas.path.clone()));
            let composed = service.deploy.replicas;
            let composed =
                composed.map(|(_, at)| (at, service_path(&service.name, "deploy.replicas")));
            for (at, path) in own.into_iter().chain(composed) {
                let message = format!("service {name:?} uses placement=global; remove replicas");
                self.findings.invalid(at, path, message);
            }
        }
    }

    fn pinned(&self, entry: &Override, hosts: &Located<Vec<String>>, service: Option<&Service>) {
        let distinct: BTreeSet<&String> = hosts.value.iter().collect();
        if hosts.value.is_empty() || distinct.len() < hosts.value.len() {
            let problem = if hosts.value.is_empty() {
                "no hosts"
            } else {
                "a host twice"
            };
            let message = format!("service {:?} lists {problem}", entry.service.value);
            self.findings.invalid(hosts.at, &hosts.path, message);
        }
        let composed = service.and_then(|service| service.deploy.replicas);
        let own = entry.replicas.as_ref();
        let replicas = own
            .map(|r| r.value)
            .or(composed.map(|(n, _)| n))
            .unwrap_or(1);
        let (at, path) = own.map_or((hosts.at, &hosts.path), |r| (r.at, &r.path));
        let count = u32::try_from(distinct.len()).unwrap_or(u32::MAX);
        if replicas > count && count > 0 {
            let message = format!("cannot place {replicas} replicas on {count} pinned hosts");
            let details = [
                ("service", &*entry.service.value),
                ("replicas", &replicas.to_string()),
                ("hosts", &count.to_string()),
            ];
            let code = ErrorCode::ReplicasExceedPinnedHosts;
            self.findings.refuse(code, at, path, message, &details);
        }
    }

    fn networks_are_declared(&self) {
        let overridden = self
            .jaco
            .overrides
            .iter()
            .flat_map(|entry| entry.networks.iter().flatten());
        for Located { value, at, path } in overridden {
            self.network_is_declared(value, *at, path);
        }
        for network in self
            .compose
            .services
            .iter()
            .flat_map(|service| &service.networks)
        {
            self.network_is_declared(&network.name, network.at, &network.path);
        }
    }

    /// The default network exists undeclared.
    fn network_is_declared(&self, name: &str, at: At, path: &str) {
        if self.compose.networks.contains_key(name) || matches!(name, "default" | DEFAULT_NETWORK) {
            return;
        }
        let declared = listed(self.compose.networks.keys().map(String::as_str));
        let message = format!("network {name:?} is not declared; declared networks: {declared}");
        let details = [("network", name), ("declared", &declared)];
        self.findings
            .refuse(ErrorCode::UnknownNetwork, at, path, message, &details);
    }

    fn host_ports_are_opened_once(&self) {
        let mut owners: BTreeMap<(u16, Protocol), &str> = BTreeMap::new();
        for service in &self.compose.services {
            for port in &service.ports {
                let key = (port.value.host, port.value.protocol);
                let Some(owner) = owners.get(&key) else {
                    owners.insert(key, service.name.as_str());
                    continue;
                };
                let (host, protocol) = key;
                let message = format!(
                    "service {:?} publishes host port {host}/{protocol}, which service {owner:?} \
                     already publishes",
                    service.name.as_str()
                );
                let details = [
                    ("port", &*host.to_string()),
                    ("protocol", &*protocol.to_string()),
                    ("owner", owner),
                ];
                let code = ErrorCode::PortConflict;
                self.findings
                    .refuse(code, port.at, &port.path, message, &details);
            }
        }
    }

    /// `depends_on` and `network_mode: service:` name services of the deployment.
    fn references_between_services(&self) {
        for service in &self.compose.services {
            for dependency in &service.depends_on {
                let known = self.services.contains_key(&*dependency.name)
                    || (self.inactive.contains(&dependency.name) && !dependency.value.required);
                if !known {
                    self.unknown_service(&Located {
                        value: dependency.name.clone(),
                        at: dependency.at,
                        path: dependency.path.clone(),
                    });
                }
            }
            if let (NetworkMode::Service(target), Some(at)) =
                (&service.network_mode, service.network_mode_at)
                && !self.services.contains_key(target.as_str())
            {
                self.unknown_service(&Located {
                    value: target.as_str().to_owned(),
                    at,
                    path: service_path(&service.name, "network_mode"),
                });
            }
        }
    }

    /// A service with a network mode has no network, and so nothing to publish.
    fn network_modes_stand_alone(&self) {
        for service in &self.compose.services {
            let Some(at) = service.network_mode_at else {
                continue;
            };
            let overridden = self.jaco.overrides.iter().any(|entry| {
                entry.service.value == service.name.as_str() && entry.networks.is_some()
            });
            let path = service_path(&service.name, "network_mode");
            let name = service.name.as_str();
            if overridden || !service.networks.is_empty() {
                let message = format!("service {name:?} sets both network_mode and networks");
                self.findings.invalid(at, &path, message);
            }
            if !service.ports.is_empty() {
                let message =
                    format!("service {name:?} sets network_mode and so cannot publish ports");
                self.findings.invalid(at, &path, message);
            }
        }
    }

    fn unknown_service(&self, named: &Located<String>) {
        let name = &*named.value;
        let declared = listed(self.services.keys().copied());
        let message = match self.inactive.contains(name) {
            true => format!("service {name:?} is in a profile that is off; use --profile"),
            false => format!("service {name:?} is not declared; declared services: {declared}"),
        };
        let details = [("service", name), ("declared", &declared)];
        self.findings.refuse(
            ErrorCode::UnknownService,
            named.at,
            &named.path,
            message,
            &details,
        );
    }
}
