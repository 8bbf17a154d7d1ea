//! Certificate authorities, over instant-acme (spec 08, Certificates).
//!
//! What is asked when, and what an answer means, is decided by `jaco_core::certs`; here one
//! question is asked and its answer translated. The HTTP client is ours, for a private root, the
//! node's own resolvers, bounded answers, and the `Retry-After` of refusals, which instant-acme
//! does not show.

mod convert;
mod error;
#[cfg(test)]
mod fuzz;
mod http;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeStatus,
    ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use jaco_core::certs::Offer;
use jaco_core::cluster::certs::{AccountKey, Challenge, Stage};
use jaco_core::id::Domain;
use jaco_core::ports::HostLookup;
use jaco_core::ports::certificate_authority::{CertificateAuthority, Placed, Progress, Refusal};
use rustls::RootCertStore;

use crate::transport::pki;
use error::{Seen, is_bad_nonce, refusal};

/// A CA that has not decided by then is asked again later.
const POLLING: Duration = Duration::from_secs(60);
const FIRST_POLL: Duration = Duration::from_millis(500);
/// instant-acme takes three new nonces for each request; then we begin anew so many times.
const NONCES: usize = 4;

/// Orders from any CA that speaks ACME.
pub struct AcmeAuthority {
    roots: Arc<RootCertStore>,
    lookup: Arc<dyn HostLookup>,
}

impl AcmeAuthority {
    /// Trusts the roots of this host, and those in `root` (PEM). Names are looked up with
    /// `lookup`, and where that finds nothing, as this host does.
    ///
    /// # Errors
    /// When the file of the private root cannot be read or holds no certificate.
    pub fn new(root: Option<&Path>, lookup: Arc<dyn HostLookup>) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        // A host without any can still have a private one.
        let (found, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        tracing::debug!(subsystem = "acme", found, "roots of this host");
        if let Some(path) = root {
            let pem = std::fs::read_to_string(path)?;
            for root in pki::certificates(&pem).map_err(std::io::Error::other)? {
                roots.add(root).map_err(std::io::Error::other)?;
            }
        }
        Ok(Self {
            roots: Arc::new(roots),
            lookup,
        })
    }

    /// A client that notes what refusals say beside their body.
    fn client(&self) -> (Box<http::Client>, Seen) {
        let seen = Seen::default();
        let client = http::Client::new(&self.roots, Arc::clone(&self.lookup), seen.clone());
        (Box::new(client), seen)
    }

    async fn account(&self, stage: Stage, credentials: &[u8]) -> Result<(Account, Seen), Refusal> {
        let (client, seen) = self.client();
        let opened = async {
            let credentials: AccountCredentials = serde_json::from_slice(credentials)?;
            let builder = Account::builder_with_http(client);
            builder.from_credentials(credentials).await
        };
        match opened.await {
            Ok(account) => Ok((account, seen)),
            Err(error) => Err(refusal(stage, &error, &seen)),
        }
    }
}

#[async_trait]
impl CertificateAuthority for AcmeAuthority {
    async fn register(&self, account: &AccountKey) -> Result<Vec<u8>, Refusal> {
        let contact = account
            .contact
            .as_ref()
            .map(|mail| format!("mailto:{mail}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        for attempt in 1.. {
            let (client, seen) = self.client();
            let builder = Account::builder_with_http(client);
            let made = builder.create(&wanted, account.directory.clone(), None);
            match made.await {
                Ok((_, credentials)) => {
                    return serde_json::to_vec(&credentials)
                        .map_err(|error| refusal(Stage::Order, &error.into(), &seen));
                }
                Err(error) if is_bad_nonce(&error) && attempt < NONCES => {}
                Err(error) => return Err(refusal(Stage::Order, &error, &seen)),
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn order(&self, credentials: &[u8], domain: &Domain) -> Result<Placed, Refusal> {
        let (account, seen) = self.account(Stage::Order, credentials).await?;
        for attempt in 1.. {
            match place(&account, domain).await {
                Ok(placed) => return Ok(placed),
                Err(error) if is_bad_nonce(&error) && attempt < NONCES => {}
                Err(error) => return Err(refusal(Stage::Order, &error, &seen)),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn new_key(&self) -> Result<String, Refusal> {
        convert::new_key().map_err(|error| error::own(Stage::Order, error))
    }

    async fn complete(
        &self,
        credentials: &[u8],
        order: &str,
        domain: &Domain,
        key: &str,
    ) -> Result<Progress, Refusal> {
        let (account, seen) = self.account(Stage::Validation, credentials).await?;
        let request = convert::request(domain, key);
        let request = request.map_err(|error| error::own(Stage::Issue, error))?;
        for attempt in 1.. {
            match advance(&account, order, &request).await {
                Ok(Some(chain)) => {
                    let leaf = convert::leaf(&chain);
                    let leaf = leaf.map_err(|error| error::own(Stage::Check, error))?;
                    return Ok(Progress::Issued { chain, leaf });
                }
                Ok(None) => return Ok(Progress::Pending),
                Err(Stopped(_, error)) if is_bad_nonce(&error) && attempt < NONCES => {}
                Err(Stopped(stage, error)) => return Err(refusal(stage, &error, &seen)),
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn renewal(&self, credentials: &[u8], chain: &str) -> Result<Offer, Refusal> {
        let (account, seen) = self.account(Stage::Order, credentials).await?;
        let chain = pki::certificates(chain);
        let chain = chain.map_err(|error| error::own(Stage::Check, error))?;
        let id = CertificateIdentifier::try_from(&chain[0]);
        // Without the name of its issuer's key a CA cannot find it.
        let Ok(id) = id else { return Ok(Offer::None) };
        match account.renewal_info(&id).await {
            Ok((info, again)) => Ok(convert::offer(&info, again)),
            Err(Error::Unsupported(_)) => Ok(Offer::None),
            Err(error) => Err(refusal(Stage::Order, &error, &seen)),
        }
    }
}

async fn place(account: &Account, domain: &Domain) -> Result<Placed, Error> {
    let names = [Identifier::Dns(domain.to_string())];
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut challenge = None;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let offered = authorization.challenge(ChallengeType::Http01);
        let offered = offered.ok_or("the CA offers no validation over HTTP (http-01)")?;
        challenge = Some(Challenge {
            token: offered.token.clone(),
            answer: offered.key_authorization().as_str().to_owned(),
        });
    }
    Ok(Placed {
        url: order.url().to_owned(),
        challenge,
    })
}

/// What ended an order, and at which stage.
struct Stopped(Stage, Error);

fn at(stage: Stage) -> impl Fn(Error) -> Stopped {
    move |error| Stopped(stage, error)
}

/// Takes an order as far as it goes now; gives the chain once there is one.
async fn advance(account: &Account, url: &str, request: &[u8]) -> Result<Option<String>, Stopped> {
    let mut order = account
        .order(url.to_owned())
        .await
        .map_err(at(Stage::Validation))?;
    let policy = RetryPolicy::new()
        .initial_delay(FIRST_POLL)
        .timeout(POLLING);
    if order.state().status == OrderStatus::Pending {
        tell_ready(&mut order)
            .await
            .map_err(at(Stage::Validation))?;
        match order.poll_ready(&policy).await {
            Ok(_) => {}
            Err(Error::Timeout(_)) => return Ok(None),
            Err(error) => return Err(Stopped(Stage::Validation, error)),
        }
    }
    match order.state().status {
        OrderStatus::Pending => return Ok(None),
        OrderStatus::Invalid => return Err(why_invalid(account, url).await),
        OrderStatus::Ready => order
            .finalize_csr(request)
            .await
            .map_err(at(Stage::Issue))?,
        OrderStatus::Processing | OrderStatus::Valid => {}
    }
    match order.poll_certificate(&policy).await {
        Ok(chain) => Ok(Some(chain)),
        Err(Error::Timeout(_)) => Ok(None),
        Err(error) => Err(Stopped(Stage::Issue, error)),
    }
}

/// Tells the CA that its question will be answered, unless it asks already.
async fn tell_ready(order: &mut Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or("the CA offers no validation over HTTP (http-01)")?;
        if challenge.status == ChallengeStatus::Pending {
            challenge.set_ready().await?;
        }
    }
    Ok(())
}

/// The reason stands with the challenge, not with the order.
async fn why_invalid(account: &Account, url: &str) -> Stopped {
    let reason = async {
        let mut order = account.order(url.to_owned()).await?;
        if let Some(problem) = order.state().error.clone() {
            return Ok(Some(problem));
        }
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization = authorization?;
            let mut challenges = authorization.challenges.iter();
            if let Some(problem) = challenges.find_map(|challenge| challenge.error.clone()) {
                return Ok(Some(problem));
            }
        }
        Ok::<_, Error>(None)
    };
    let error = match reason.await {
        Ok(Some(problem)) => Error::Api(problem),
        Ok(None) => Error::Str("the CA gives no reason"),
        Err(error) => error,
    };
    Stopped(Stage::Validation, error)
}
