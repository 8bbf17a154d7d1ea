//! Certificates that come near their end because nothing renews them (spec 08, Certificates).
//!
//! Invariant (`tests/certs/rules.rs`): nothing is told of a certificate whose renewal is not
//! overdue; what is told is told while two thirds of the time between the due renewal and the
//! end are left.

use super::renew_at;
use crate::cluster::certs::Certificate;
use crate::cluster::state::ClusterState;
use crate::id::Domain;
use crate::time::Timestamp;

/// A day, in seconds.
const DAY: u64 = 24 * 60 * 60;

/// One that will expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// Its only name.
    pub domain: Domain,
    /// Whole days that are left.
    pub days: u64,
    /// For operators: when, and what stands in the way.
    pub reason: String,
}

/// Those that visitors get now and that will expire unless something changes.
pub fn expiring(state: &ClusterState, now: Timestamp) -> Vec<Expiring> {
    let certificates = state.certs.values();
    certificates.filter_map(|c| warning(c, now)).collect()
}

/// What is to be told of one certificate, once its renewal is overdue.
pub fn warning(certificate: &Certificate, now: Timestamp) -> Option<Expiring> {
    let served = certificate.served.as_ref()?;
    let overdue = overdue_at(certificate).filter(|at| *at <= now && now < served.not_after);
    overdue.map(|_| {
        let days = served.not_after.since(now).as_secs() / DAY;
        let due = renew_at(served, &certificate.renewal);
        let why = match &certificate.failure {
            Some(failure) => format!("{}: {}", failure.stage, failure.reason),
            None => format!("nothing has renewed it since {due}"),
        };
        Expiring {
            domain: certificate.domain.clone(),
            days,
            reason: format!("expires in {days} days, at {}; {why}", served.not_after),
        }
    })
}

/// When something is to be told of a certificate, if it is not renewed before: a third of the
/// time that its renewal has is over then, ten days for a certificate of ninety.
pub(super) fn overdue_at(certificate: &Certificate) -> Option<Timestamp> {
    let served = certificate.served.as_ref()?;
    let due = renew_at(served, &certificate.renewal);
    Some(due + served.not_after.since(due) / 3)
}
