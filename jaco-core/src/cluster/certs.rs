//! Certificates of routed domains: what is served, what is under way, what failed; and the
//! accounts that they are ordered with (spec 08, Certificates).
//!
//! Private keys and account credentials are here sealed with the state key. Nothing of what a
//! staging authority issued is kept, so that it cannot be served.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentName, Domain};
use crate::time::Timestamp;

/// Waits after the first, the second and every later failure in a row.
const BACKOFF: [Duration; 3] = [
    Duration::from_secs(15 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(60 * 60),
];

/// One domain's certificate and the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The domain; its only name.
    pub domain: Domain,
    /// Whose route made it wanted last.
    pub deployment: DeploymentName,
    /// Counts the steps taken. A step that was decided on another count is stale.
    pub steps: u64,
    /// Set for good once staging issued a chain that passed: production is asked from then on.
    pub staged: bool,
    /// Under way at a CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// What visitors get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Arc<Issued>>,
    /// The failures since something was last issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<CertFailure>,
    /// What the CA says about renewing `served`.
    #[serde(default)]
    pub renewal: Renewal,
    /// When one certificate last took the place of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<Timestamp>,
    /// An operator wants a new one now.
    #[serde(default)]
    pub wanted_now: bool,
}

/// Which of a CA's two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// For trying; its certificates are trusted by nobody.
    Staging,
    /// For visitors.
    Prod,
}

impl Environment {
    /// The lower snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An account as orders name it: one for each directory and contact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountKey {
    /// URL of the CA's directory.
    pub directory: String,
    /// A mail address; absent for an account without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contact = self.contact.as_deref().unwrap_or_default();
        write!(f, "{} {contact}", self.directory)
    }
}

/// An order that a CA has taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What it is for.
    pub environment: Environment,
    /// Who placed it.
    pub account: AccountKey,
    /// Where the CA has it.
    pub url: String,
    /// The key that the certificate will be for: PEM, sealed, hex.
    pub key_sealed: String,
    /// What the CA will ask a node for; absent when it knows the domain already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// The index at which the challenge came into the state.
    pub index: u64,
    /// When it was placed.
    pub at: Timestamp,
}

/// What any node answers at the challenge path of `token` (HTTP-01).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Challenge {
    pub token: String,
    pub answer: String,
}

/// A certificate of a production CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// PEM, the leaf first.
    pub chain: String,
    /// PEM, sealed, hex.
    pub key_sealed: String,
    /// Of the leaf; lower-case hex.
    pub serial: String,
    /// Of the leaf.
    pub not_before: Timestamp,
    /// Of the leaf.
    pub not_after: Timestamp,
    /// Who ordered it.
    pub account: AccountKey,
}

/// What went wrong last, and for how long nothing is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertFailure {
    /// Where.
    pub stage: Stage,
    /// Of what.
    pub environment: Environment,
    /// In the CA's words, or in ours.
    pub reason: String,
    /// The CA said that too much was asked of it.
    pub rate_limited: bool,
    /// Failures in a row.
    pub attempts: u32,
    /// When it happened.
    pub at: Timestamp,
    /// Not before this.
    pub next_attempt_at: Timestamp,
}

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The domain does not lead here; no order was placed.
    Preflight,
    /// The CA took no account or no order.
    Order,
    /// Not every node has the challenge.
    Challenge,
    /// The CA did not get the answer that it wanted.
    Validation,
    /// The CA did not issue.
    Issue,
    /// What it issued does not fit the domain.
    Check,
}

impl Stage {
    /// The lower snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Order => "order",
            Self::Challenge => "challenge",
            Self::Validation => "validation",
            Self::Issue => "issue",
            Self::Check => "check",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// When a CA wants a certificate to be renewed (ACME renewal information).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Its window; absent when it offers none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<(Timestamp, Timestamp)>,
    /// When it is to be asked again; absent before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask_at: Option<Timestamp>,
}

/// One step of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertStep {
    /// A CA took an order.
    #[allow(missing_docs)]
    Ordered {
        environment: Environment,
        account: AccountKey,
        url: String,
        key_sealed: String,
        challenge: Option<Challenge>,
    },
    /// The order brought a certificate that fits.
    #[allow(missing_docs)]
    Issued {
        chain: String,
        serial: String,
        not_before: Timestamp,
        not_after: Timestamp,
    },
    /// An attempt ended without one.
    #[allow(missing_docs)]
    Failed {
        stage: Stage,
        environment: Environment,
        reason: String,
        rate_limited: bool,
        /// The CA wants to hear nothing before.
        retry_at: Option<Timestamp>,
    },
    /// The CA was asked about renewal.
    Renewal(Renewal),
    /// What was served is not valid any more.
    Expired,
}

/// Credentials of an account at a CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// As the CA's client keeps them, sealed, hex.
    pub credentials_sealed: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A certificate's state (spec 03, States).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum CertState {
    Pending,
    Staging,
    PendingProd,
    Issued,
    Renewing,
    Failed,
}

/// The name under which a domain's key is sealed.
pub fn key_name(domain: &Domain) -> String {
    format!("certificate-key {domain}")
}

/// The name under which an account's credentials are sealed.
pub fn account_name(account: &AccountKey) -> String {
    format!("acme-account {account}")
}

/// How long nothing is tried after so many failures in a row.
pub fn backoff(failures: u32) -> Duration {
    let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    BACKOFF[at.min(BACKOFF.len() - 1)]
}

impl Certificate {
    /// A domain that nothing was done for yet.
    pub fn wanted(domain: Domain, deployment: DeploymentName) -> Self {
        Self {
            domain,
            deployment,
            steps: 0,
            staged: false,
            order: None,
            served: None,
            failure: None,
            renewal: Renewal::default(),
            renewed_at: None,
            wanted_now: false,
        }
    }

    /// Its one state.
    pub fn state(&self) -> CertState {
        let environment = self.order.as_ref().map(|order| order.environment);
        match (&self.served, environment, &self.failure) {
            (Some(_), Some(_), _) | (Some(_), None, Some(_)) => CertState::Renewing,
            (Some(_), None, None) => CertState::Issued,
            (None, Some(Environment::Staging), _) => CertState::Staging,
            (None, Some(Environment::Prod), _) => CertState::PendingProd,
            (None, None, Some(_)) => CertState::Failed,
            (None, None, None) if self.staged => CertState::PendingProd,
            (None, None, None) => CertState::Pending,
        }
    }

    /// The service that is asked, or whose certificate is served; unknown before the first.
    pub fn environment(&self) -> Option<Environment> {
        let order = self.order.as_ref().map(|order| order.environment);
        let served = self.served.as_ref().map(|_| Environment::Prod);
        let staged = self.staged.then_some(Environment::Prod);
        let failed = self.failure.as_ref().map(|failure| failure.environment);
        order.or(served).or(staged).or(failed)
    }
}

impl CertState {
    /// The lower snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Staging => "staging",
            Self::PendingProd => "pending_prod",
            Self::Issued => "issued",
            Self::Renewing => "renewing",
            Self::Failed => "failed",
        }
    }
}
