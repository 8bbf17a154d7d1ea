//! What is counted of each route (spec 11, Telemetry): answers by status, and how long they took.
//!
//! A route's numbers are found when a table is published, so that a request adds to them without
//! a search or a lock.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use hyper::StatusCode;
use jaco_core::id::Domain;
use jaco_core::node::ingress::Route;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::transport::histogram::Histogram;

/// Statuses of one class.
type Class = [AtomicU64; 100];

/// The numbers of one route.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// From 1xx to 5xx. A class that never occurs takes no room.
    classes: [OnceLock<Box<Class>>; 5],
    durations: Histogram,
}

impl Tally {
    /// Counts one answer.
    pub(super) fn add(&self, status: StatusCode, took: Duration) {
        let (class, rest) = (status.as_u16() / 100, status.as_u16() % 100);
        if let Some(class) = self.classes.get(usize::from(class).wrapping_sub(1)) {
            let class = class.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]));
            class[usize::from(rest)].fetch_add(1, Ordering::Relaxed);
        }
        self.durations.observe(took);
    }

    /// Each status that occurred, and how often.
    fn codes(&self) -> Vec<(u16, u64)> {
        let classes = (1_u16..).zip(&self.classes);
        let codes = classes.filter_map(|(class, codes)| Some((class * 100, codes.get()?)));
        let counts = codes.flat_map(|(first, codes)| (first..).zip(codes.iter()));
        let counts = counts.map(|(code, count)| (code, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// The numbers of every route that some table has, by its name, and those of all workers.
#[derive(Default)]
pub(super) struct Tallies {
    routes: Mutex<HashMap<String, Weak<Tally>>>,
    /// Requests that no route covers.
    pub(super) unrouted: Arc<Tally>,
    /// PROXY headers that were wrong.
    pub(super) wrong_preambles: AtomicU64,
    /// Lines of the access log that found no room.
    pub(super) unlogged: AtomicU64,
}

impl Tallies {
    /// The numbers of a route, as they were under the table before.
    pub(super) fn of(&self, domain: &Domain, route: &Route) -> Arc<Tally> {
        let name = format!("{domain}{}", route.path);
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routes.get(&name).and_then(Weak::upgrade) {
            return known;
        }
        let tally = Arc::default();
        routes.insert(name, Arc::downgrade(&tally));
        tally
    }

    /// Forgets the routes that no table has any more.
    pub(super) fn forget(&self) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, tally| tally.strong_count() > 0);
    }

    /// By name, in order; the requests that no route covers come first, without a name.
    fn all(&self) -> Vec<(String, Arc<Tally>)> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = routes.iter();
        let known = known.filter_map(|(name, tally)| Some((name.clone(), tally.upgrade()?)));
        let mut all: Vec<_> = known.collect();
        all.push((String::new(), Arc::clone(&self.unrouted)));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl fmt::Debug for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tallies")
    }
}

impl Collector for Tallies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.all();
        let help = "Answers to visitors";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("jaco_ingress_requests", help, None, kind)?;
        for (name, tally) in &all {
            for (code, count) in tally.codes() {
                let labels = [("route", name.clone()), ("code", code.to_string())];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "From a request to the end of its answer";
        let kind = MetricType::Histogram;
        let name = "jaco_ingress_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (name, tally) in &all {
            let labels = [("route", name.clone())];
            tally.durations.encode(family.encode_family(&labels)?)?;
        }
        for (name, help, count) in [
            (
                "jaco_ingress_wrong_proxy_headers",
                "Connections closed for a wrong PROXY header",
                &self.wrong_preambles,
            ),
            (
                "jaco_ingress_unlogged_requests",
                "Requests that the access log had no room for",
                &self.unlogged,
            ),
        ] {
            let kind = MetricType::Counter;
            let mut counter = encoder.encode_descriptor(name, help, None, kind)?;
            let count = count.load(Ordering::Relaxed);
            counter.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}
