//! A certificate authority that speaks ACME (RFC 8555), with HTTP-01 validation.

use async_trait::async_trait;

use crate::certs::{Leaf, Offer};
use crate::cluster::certs::{AccountKey, Challenge, Stage};
use crate::id::Domain;
use crate::time::Timestamp;

/// One client for any directory. No method retries what a CA refused; each ends within minutes.
/// Dropping a future leaves at the CA what it had begun there.
#[async_trait]
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Makes an account and agrees to the CA's terms. The credentials are secret.
    async fn register(&self, account: &AccountKey) -> Result<Vec<u8>, Refusal>;

    /// Places an order for one domain.
    async fn order(&self, credentials: &[u8], domain: &Domain) -> Result<Placed, Refusal>;

    /// Draws the private key of a certificate, PEM.
    fn new_key(&self) -> Result<String, Refusal>;

    /// Tells the CA that the challenge is answered, unless it knows, and takes what it issues
    /// for the key. Goes on from wherever the order is.
    async fn complete(
        &self,
        credentials: &[u8],
        order: &str,
        domain: &Domain,
        key: &str,
    ) -> Result<Progress, Refusal>;

    /// Asks when a certificate is to be renewed.
    async fn renewal(&self, credentials: &[u8], chain: &str) -> Result<Offer, Refusal>;
}

/// An order that a CA took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it is.
    pub url: String,
    /// What is to be answered; absent when the CA knows the domain already.
    pub challenge: Option<Challenge>,
}

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The chain, PEM, and what its leaf says.
    #[allow(missing_docs)]
    Issued { chain: String, leaf: Leaf },
    /// The CA is not done; it is to be asked again.
    Pending,
}

/// Why a CA did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Where.
    pub stage: Stage,
    /// In its words.
    pub reason: String,
    /// Too much was asked of it.
    pub rate_limited: bool,
    /// It wants to hear nothing before.
    pub retry_at: Option<Timestamp>,
    /// It does not know the account, which it may have known once.
    pub unknown_account: bool,
}
