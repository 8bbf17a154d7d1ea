//! Finds services that wait for themselves, directly or around a circle.
//!
//! `network_mode: service:x` waits for `x` as `depends_on` does: there is no namespace to join
//! before it runs.

use std::collections::{BTreeMap, BTreeSet};

use super::Rules;
use crate::manifest::compose::{Service, service_path};
use crate::manifest::spec::NetworkMode;
use crate::manifest::yaml::At;

/// One service waits for another; where it says so.
struct Edge<'a> {
    to: &'a str,
    at: At,
    path: String,
}

/// Records each self reference, and each circle once.
pub(super) fn check(rules: &Rules<'_>) {
    let mut graph: BTreeMap<&str, Vec<Edge<'_>>> = BTreeMap::new();
    for service in &rules.compose.services {
        let name = service.name.as_str();
        let mut edges = edges(service);
        edges.retain(|edge| {
            if edge.to == name {
                let message = format!("service {name:?} depends on itself");
                rules.findings.invalid(edge.at, &edge.path, message);
            }
            edge.to != name && rules.services.contains_key(edge.to)
        });
        graph.insert(name, edges);
    }
    without_free_services(&mut graph);
    let order: Vec<&str> = rules
        .compose
        .services
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    report_circles(&graph, &order, rules);
}

fn edges(service: &Service) -> Vec<Edge<'_>> {
    let dependencies = service.depends_on.iter().map(|dependency| Edge {
        to: &dependency.name,
        at: dependency.at,
        path: dependency.path.clone(),
    });
    let joined = match (&service.network_mode, service.network_mode_at) {
        (NetworkMode::Service(target), Some(at)) => Some(Edge {
            to: target.as_str(),
            at,
            path: service_path(&service.name, "network_mode"),
        }),
        _ => None,
    };
    dependencies.chain(joined).collect()
}

/// Takes out services that wait for nothing, again and again; what is left waits for a circle.
/// A queue and not recursion: a chain may be as long as the file.
fn without_free_services(graph: &mut BTreeMap<&str, Vec<Edge<'_>>>) {
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    let mut waiters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, edges) in graph.iter() {
        waiting.insert(name, edges.len());
        for edge in edges {
            waiters.entry(edge.to).or_default().push(name);
        }
    }
    let mut free: Vec<&str> = waiting
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(name, _)| *name)
        .collect();
    while let Some(name) = free.pop() {
        graph.remove(name);
        for waiter in waiters.remove(name).unwrap_or_default() {
            if let Some(count) = waiting.get_mut(waiter) {
                *count -= 1;
                if *count == 0 {
                    free.push(waiter);
                }
            }
        }
    }
}

fn report_circles(graph: &BTreeMap<&str, Vec<Edge<'_>>>, order: &[&str], rules: &Rules<'_>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for start in order.iter().filter(|name| graph.contains_key(**name)) {
        let mut walk: Vec<&str> = Vec::new();
        let mut here = *start;
        while seen.insert(here) {
            walk.push(here);
            // Whatever is left in the graph waits for something that is left in it.
            match next(graph, here) {
                Some(edge) => here = edge.to,
                None => break,
            }
        }
        let Some(first) = walk.iter().position(|name| *name == here) else {
            continue;
        };
        let circle = &walk[first..];
        if let Some(edge) = next(graph, circle[0]) {
            let names = [circle, &circle[..1]].concat().join(" -> ");
            let message = format!("services wait for each other in a circle: {names}");
            rules.findings.invalid(edge.at, &edge.path, message);
        }
    }
}

fn next<'g, 'a>(graph: &'g BTreeMap<&'a str, Vec<Edge<'a>>>, from: &str) -> Option<&'g Edge<'a>> {
    graph
        .get(from)?
        .iter()
        .find(|edge| graph.contains_key(edge.to))
}
