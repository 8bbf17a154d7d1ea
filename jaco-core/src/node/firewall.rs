//! Isolation: the one nftables table of this node, as data (spec 07, Isolation).
//!
//! A ruleset is kept in the form in which `nft -j list` shows it, so that what was loaded can be
//! compared with what the kernel says it has.
//!
//! Invariants (`tests/firewall_props.rs`): rendering a state twice gives one ruleset; a ruleset
//! survives the way through a listing; no scope's rule accepts an address of another scope.

mod expression;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use expression::{
    answers, equal, from, interface, ipv6, object, one_or_set, payload, prefix, sorted, to,
};

use super::bridges;
use super::mesh::{INTERFACE, resolved};
use crate::cluster::addresses::Scope;
use crate::cluster::node::Isolation;
use crate::cluster::state::ClusterState;
use crate::error::ErrorCode;
use crate::manifest::hash::sha256_hex;
use crate::ports::HostError;

/// The table's family and name.
pub const TABLE: (&str, &str) = ("inet", "jaco");

/// Set names of the kernel's tools are short; longer ones are hashed.
const LONGEST_NAME: usize = 63;
/// Every /24 in use.
const POOL: &str = "jaco_pool";
/// Where nodes have their mesh addresses.
const MESH: &str = "jaco_mesh";
/// Address, protocol and port of every daemon.
const NODES: &str = "jaco_nodes";
/// The bridges of the networks in use.
const KNOWN: &str = "jaco_bridges";
/// What no container reaches.
const DENY: &str = "jaco_deny";
/// Every interface of JACO's: the bridges, and the mesh.
const BRIDGES: &str = "jaco-*";
/// Bytes of a rule's comment.
const LONGEST_COMMENT: usize = 120;

/// The set of each scope.
type Names<'a> = BTreeMap<&'a Scope, String>;

/// Everything in the table: sets by name, chains by name, the rules of each chain in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    sets: BTreeMap<String, Value>,
    chains: BTreeMap<String, Value>,
    rules: BTreeMap<String, Vec<Value>>,
}

/// What only this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Networks that no container reaches, with the length of their prefixes.
    pub deny: Vec<(Ipv4Addr, u8)>,
    /// Where Prometheus finds what is measured.
    pub metrics_port: Option<u16>,
}

impl Local {
    /// Reads the values of `isolation.deny`: networks without bits behind their prefix, or
    /// addresses.
    ///
    /// # Errors
    /// What is wrong with the first that is neither.
    pub fn read_deny(list: &[String]) -> Result<Vec<(Ipv4Addr, u8)>, String> {
        let network = |text: &String| {
            let (base, length) = text.split_once('/').unwrap_or((text, "32"));
            let base = base.parse::<Ipv4Addr>().ok();
            let length = length.parse::<u8>().ok();
            let network = base.zip(length.filter(|length| (1..=32).contains(length)));
            let whole = |(base, length): &(Ipv4Addr, u8)| {
                u32::from(*base).trailing_zeros() >= 32 - u32::from(*length)
            };
            let shape = || format!("\"{text}\" is not a network like 169.254.169.254/32");
            network.filter(whole).ok_or_else(shape)
        };
        list.iter().map(network).collect()
    }
}

/// What this node's table should be. `None` before the cluster exists.
pub fn desired(
    state: &ClusterState,
    local: &Local,
    resolve: impl Fn(&str) -> Option<IpAddr>,
) -> Option<Ruleset> {
    let cluster = state.cluster.as_ref()?;
    let mut ruleset = Ruleset::default();
    let names = set_names(state.subnets.keys());
    let networks = state.subnets.values().map(|subnet| prefix(subnet.base, 24));
    ruleset.interval_set(POOL, &networks.collect::<Vec<_>>());
    ruleset.interval_set(
        MESH,
        &[prefix(cluster.mesh_pool.base(), cluster.mesh_pool.prefix())],
    );
    for (scope, subnet) in &state.subnets {
        ruleset.interval_set(&names[scope], &[prefix(subnet.base, 24)]);
    }
    let daemons = daemons(state, resolve);
    ruleset.set(
        NODES,
        json!(["ipv4_addr", "inet_proto", "inet_service"]),
        None,
        &daemons,
    );
    let denied = local
        .deny
        .iter()
        .map(|(base, length)| prefix(*base, *length));
    ruleset.interval_set(DENY, &denied.collect::<Vec<_>>());
    let bridges = bridges::interfaces(state);
    let known = bridges.values().map(|name| json!(name));
    ruleset.set(KNOWN, json!("ifname"), None, &known.collect::<Vec<_>>());
    ruleset.forward(&names, &bridges);
    ruleset.input(&names, &bridges, &daemons, local.metrics_port);
    ruleset.chain("output", "filter", "output", -10);
    ruleset.postrouting();
    Some(ruleset)
}

impl Ruleset {
    /// Between containers, before the engine's rules: before it can make a container's packet
    /// look like the node's own.
    fn forward(&mut self, names: &Names<'_>, bridges: &BTreeMap<Scope, String>) {
        self.chain("forward", "filter", "forward", -10);
        self.true_sources("forward", names, bridges);
        let v6 = vec![ipv6(), interface("oifname", "==", BRIDGES)];
        self.rule("forward", "IPv6 to containers", v6, "drop");
        self.rule("forward", "denied", vec![from(POOL), to(DENY)], "drop");
        self.rule("forward", "replies", vec![answers()], "accept");
        // Whatever is no reply: a reset that is forged begins no connection either.
        let strangers = vec![to(POOL), interface("iifname", "!=", BRIDGES)];
        self.rule("forward", "into containers", strangers, "drop");
        self.each_scope("forward", names);
        self.rule(
            "forward",
            "other networks",
            vec![from(POOL), to(POOL)],
            "drop",
        );
        self.rule(
            "forward",
            "nodes on the mesh",
            vec![from(POOL), to(MESH)],
            "drop",
        );
        let daemon = json!({"concat": [
            payload("ip", "daddr"), {"meta": {"key": "l4proto"}}, payload("th", "dport"),
        ]});
        let daemon = equal("==", &daemon, &json!(format!("@{NODES}")));
        self.rule("forward", "control plane", vec![from(POOL), daemon], "drop");
    }

    /// From containers to this host. Whatever else the host serves is not ours to close.
    fn input(
        &mut self,
        names: &Names<'_>,
        bridges: &BTreeMap<Scope, String>,
        daemons: &[Value],
        metrics: Option<u16>,
    ) {
        self.chain("input", "filter", "input", -10);
        self.true_sources("input", names, bridges);
        let strangers = vec![
            to(POOL),
            interface("iifname", "!=", BRIDGES),
            interface("iifname", "!=", "lo"),
        ];
        self.rule("input", "to gateways", strangers, "drop");
        self.rule("input", "denied", vec![from(POOL), to(DENY)], "drop");
        self.rule("input", "replies", vec![from(POOL), answers()], "accept");
        for protocol in ["tcp", "udp"] {
            let mut ports = ports(daemons, protocol);
            ports.extend(metrics.filter(|_| protocol == "tcp").map(u64::from));
            ports.sort_unstable();
            ports.dedup();
            if !ports.is_empty() {
                let dport = equal("==", &payload(protocol, "dport"), &one_or_set(&ports));
                self.rule("input", "control plane", vec![from(POOL), dport], "drop");
            }
        }
        self.each_scope("input", names);
        self.rule(
            "input",
            "other gateways",
            vec![from(POOL), to(POOL)],
            "drop",
        );
    }

    /// Nothing is believed by its address alone: what comes from a bridge has an address of its
    /// network, and what has an address of a network or of the mesh comes from where that is.
    fn true_sources(&mut self, chain: &str, names: &Names<'_>, bridges: &BTreeMap<Scope, String>) {
        let v6 = vec![ipv6(), interface("iifname", "==", BRIDGES)];
        self.rule(chain, "IPv6 of containers", v6, "drop");
        for (scope, name) in names {
            let Some(bridge) = bridges.get(*scope) else {
                continue;
            };
            let foreign = equal("!=", &payload("ip", "saddr"), &json!(format!("@{name}")));
            let forged = vec![interface("iifname", "==", bridge), foreign];
            self.rule(chain, &comment("forged by", scope), forged, "drop");
        }
        // A bridge that has outlived its network has no true sources.
        let unknown = vec![
            interface("iifname", "==", BRIDGES),
            interface("iifname", "!=", INTERFACE),
            interface("iifname", "!=", &format!("@{KNOWN}")),
        ];
        self.rule(chain, "from a bridge without a network", unknown, "drop");
        for (what, set, home) in [
            ("forged container", POOL, BRIDGES),
            ("forged node", MESH, INTERFACE),
        ] {
            let forged = vec![
                from(set),
                interface("iifname", "!=", home),
                interface("iifname", "!=", "lo"),
            ];
            self.rule(chain, what, forged, "drop");
        }
    }

    fn each_scope(&mut self, chain: &str, names: &Names<'_>) {
        for (scope, name) in names {
            self.rule(
                chain,
                &comment("", scope),
                vec![from(name), to(name)],
                "accept",
            );
        }
    }

    /// To the outside world in the node's name, between containers in one's own.
    fn postrouting(&mut self) {
        self.chain("postrouting", "nat", "postrouting", 90);
        let outside = |set: &str| equal("!=", &payload("ip", "daddr"), &json!(format!("@{set}")));
        let matches = vec![from(POOL), outside(POOL), outside(MESH)];
        self.rule("postrouting", "outside world", matches, "masquerade");
    }

    fn interval_set(&mut self, name: &str, elements: &[Value]) {
        self.set(
            name,
            json!("ipv4_addr"),
            Some(json!(["interval"])),
            elements,
        );
    }

    fn set(&mut self, name: &str, kind: Value, flags: Option<Value>, elements: &[Value]) {
        let mut set = object("name", name);
        set.insert("type".to_owned(), kind);
        if let Some(flags) = flags {
            set.insert("flags".to_owned(), flags);
        }
        if !elements.is_empty() {
            set.insert("elem".to_owned(), sorted(elements.to_vec()));
        }
        self.sets.insert(name.to_owned(), Value::Object(set));
    }

    fn chain(&mut self, name: &str, kind: &str, hook: &str, priority: i32) {
        let mut chain = object("name", name);
        chain.insert("type".to_owned(), json!(kind));
        chain.insert("hook".to_owned(), json!(hook));
        chain.insert("prio".to_owned(), json!(priority));
        chain.insert("policy".to_owned(), json!("accept"));
        self.chains.insert(name.to_owned(), Value::Object(chain));
    }

    fn rule(&mut self, chain: &str, comment: &str, mut matches: Vec<Value>, verdict: &str) {
        let mut rule = object("chain", chain);
        rule.insert("comment".to_owned(), json!(comment));
        matches.push(json!({verdict: null}));
        rule.insert("expr".to_owned(), Value::Array(matches));
        self.rules
            .entry(chain.to_owned())
            .or_default()
            .push(Value::Object(rule));
    }

    /// The input of `nft -j -f -` that replaces the whole table in one transaction.
    pub fn replacement(&self) -> Value {
        let (family, name) = TABLE;
        let table = json!({"table": {"family": family, "name": name}});
        let add = |kind: &str, object: &Value| json!({"add": {kind: object}});
        let mut commands = vec![
            json!({"add": table}),
            json!({"delete": table}),
            json!({"add": table}),
        ];
        commands.extend(self.sets.values().map(|set| add("set", set)));
        commands.extend(self.chains.values().map(|chain| add("chain", chain)));
        commands.extend(self.rules.values().flatten().map(|rule| add("rule", rule)));
        json!({"nftables": commands})
    }

    /// Reads the output of `nft -j list table`; what it does not know stays in, so that it is
    /// seen as a difference.
    pub fn of_listing(listing: &Value) -> Self {
        let mut ruleset = Self::default();
        for entry in listing["nftables"].as_array().into_iter().flatten() {
            let Some((kind, body)) = entry.as_object().and_then(|entry| entry.iter().next()) else {
                continue;
            };
            let mut body = body.as_object().cloned().unwrap_or_default();
            body.remove("handle");
            if let Some(Value::Array(elements)) = body.remove("elem") {
                body.insert("elem".to_owned(), sorted(elements));
            }
            let text = |key: &str| {
                body.get(key)
                    .and_then(Value::as_str)
                    .unwrap_or("")
                    .to_owned()
            };
            let (name, chain) = (text("name"), text("chain"));
            match kind.as_str() {
                "metainfo" | "table" => {}
                "rule" => ruleset
                    .rules
                    .entry(chain)
                    .or_default()
                    .push(Value::Object(body)),
                "chain" => {
                    ruleset.chains.insert(name, Value::Object(body));
                }
                _ => {
                    ruleset.sets.insert(name, Value::Object(body));
                }
            }
        }
        ruleset
    }

    /// What is missing (`-`) and what is too much (`+`) in a table that should be this one; a
    /// line each. What is missing is ours and known by its name; what is too much is shown whole.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let (ours, theirs) = (self.objects(), found.objects());
        let missing = ours.iter().filter(|object| !theirs.contains(object));
        let extra = theirs.iter().filter(|object| !ours.contains(object));
        let mut differences: Vec<String> = missing.map(|(name, _)| format!("- {name}")).collect();
        differences.extend(extra.map(|(name, body)| format!("+ {name}: {body}")));
        if differences.is_empty() && self != found {
            differences.push("~ the rules are in another order".to_owned());
        }
        differences
    }

    /// Every object with its name for people.
    fn objects(&self) -> Vec<(String, &Value)> {
        let sets = self.sets.iter();
        let sets = sets.map(|(name, set)| (format!("set {name}"), set));
        let chains = self.chains.iter();
        let chains = chains.map(|(name, chain)| (format!("chain {name}"), chain));
        let rules = self.rules.iter().flat_map(|(chain, rules)| {
            rules.iter().map(move |rule| {
                let comment = rule["comment"].as_str().unwrap_or("without a comment");
                (format!("rule {chain}/{comment}"), rule)
            })
        });
        sets.chain(chains).chain(rules).collect()
    }
}

/// What to do about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is as wanted.
    Nothing,
    /// Load it: the state asks for another one, or this daemon has just started.
    Load,
    /// It was as wanted and somebody changed it: load it, and tell the differences.
    Repair(Vec<String>),
}

/// What to do, from what is wanted, what was last verified and what is there.
pub fn step(wanted: &Ruleset, verified: Option<&Ruleset>, found: &Ruleset) -> Step {
    if wanted == found {
        Step::Nothing
    } else if verified == Some(wanted) {
        Step::Repair(wanted.differences(found))
    } else {
        Step::Load
    }
}

/// What a node reports, from the differences that were left after a load.
pub fn isolation(outcome: &Result<Vec<String>, HostError>) -> Isolation {
    match outcome {
        Ok(left) if left.is_empty() => Isolation::Verified,
        Ok(left) => Isolation::Unavailable {
            code: ErrorCode::IsolationSelfTestFailed,
            reason: format!("the table that was read back differs: {}", left.join("; ")),
        },
        Err(error) => Isolation::Unavailable {
            code: ErrorCode::IsolationUnavailable,
            reason: error.to_string(),
        },
    }
}

/// The comment of a scope's rule. The kernel refuses a table with one of more than 127 bytes, and
/// so no name may make it longer.
fn comment(what: &str, scope: &Scope) -> String {
    let text = format!("{what} {scope}").trim_start().to_owned();
    if text.len() <= LONGEST_COMMENT {
        return text;
    }
    let hash = sha256_hex(scope.to_string().as_bytes());
    format!("{what} {}", &hash[..32]).trim_start().to_owned()
}

/// The set of each scope. Names that two scopes share after cleaning, or that are too long, are
/// hashed.
fn set_names<'a>(scopes: impl Iterator<Item = &'a Scope>) -> BTreeMap<&'a Scope, String> {
    let scopes: Vec<&Scope> = scopes.collect();
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for scope in &scopes {
        *uses.entry(cleaned(scope)).or_default() += 1;
    }
    let name = |scope: &Scope| {
        let name = cleaned(scope);
        if name.len() > LONGEST_NAME || uses.get(&name).is_some_and(|count| *count > 1) {
            let hash = sha256_hex(scope.to_string().as_bytes());
            return format!("dep_net_{}", &hash[..32]);
        }
        name
    };
    scopes.iter().map(|scope| (*scope, name(scope))).collect()
}

fn cleaned(scope: &Scope) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("dep_net_{}_{}", scope.deployment, scope.network)
        .chars()
        .map(clean)
        .collect()
}

/// API, raft and mesh of every node, as far as their hosts have an IPv4 address.
fn daemons(state: &ClusterState, resolve: impl Fn(&str) -> Option<IpAddr>) -> Vec<Value> {
    let mut daemons = BTreeSet::new();
    for node in state.nodes.values() {
        for address in [&node.api_address, &node.cluster_address] {
            let port = address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse::<u16>().ok());
            if let (Some(IpAddr::V4(host)), Some(port)) = (resolved(address, &resolve), port) {
                daemons.insert((host, "tcp", port));
            }
        }
        let end = node.report.as_ref().and_then(|report| report.mesh.as_ref());
        if let (Some(IpAddr::V4(host)), Some(end)) = (resolved(&node.api_address, &resolve), end) {
            daemons.insert((host, "udp", end.port));
        }
    }
    let elements = daemons.into_iter().map(|(host, protocol, port)| {
        let host = host.to_string();
        json!({"concat": [host, protocol, port]})
    });
    elements.collect()
}

/// The ports of one protocol among the daemons: on this host they are the same as elsewhere, on
/// whichever of its addresses they are dialled.
fn ports(daemons: &[Value], protocol: &str) -> Vec<u64> {
    let of = |daemon: &Value| {
        let parts = daemon["concat"].as_array()?;
        (parts.get(1)? == protocol)
            .then(|| parts.get(2)?.as_u64())
            .flatten()
    };
    let ports: BTreeSet<u64> = daemons.iter().filter_map(of).collect();
    ports.into_iter().collect()
}
