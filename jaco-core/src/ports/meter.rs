//! What a daemon counts and times of itself (spec 11, Telemetry).

use std::time::Duration;

/// Something that happened once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A command was committed; from its proposal here until then.
    Commit(Duration),
    /// Committed entries were applied here.
    Apply(Duration),
    /// The leader planned, and committed what it planned.
    Reconcile(Duration),
    /// A CA issued a certificate.
    CertificateIssued,
    /// A container was started here.
    ContainerStarted,
    /// A container asked for a name here.
    NameAsked,
}

/// Takes measurements. It never blocks, and what it cannot take it leaves out.
pub trait Meter: Send + Sync + 'static {
    /// Adds one.
    fn record(&self, measured: Measured);
}
