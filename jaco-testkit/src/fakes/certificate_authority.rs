//! A certificate authority that believes everybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jaco_core::certs::{Leaf, Offer};
use jaco_core::cluster::certs::{AccountKey, Challenge, Stage};
use jaco_core::id::Domain;
use jaco_core::ports::certificate_authority::{Placed, Progress, Refusal};
use jaco_core::ports::{CertificateAuthority, Clock};

/// For how long its certificates are valid.
const LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// One CA at one directory; everything else is nowhere.
pub struct FakeAuthority {
    directory: String,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accounts: u64,
    keys: u64,
    /// What was issued for each order, once it was.
    orders: BTreeMap<String, Option<Leaf>>,
}

impl FakeAuthority {
    /// A CA whose certificates begin when they are issued.
    pub fn new(directory: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            directory: directory.to_owned(),
            clock,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, credentials: &[u8]) -> Result<MutexGuard<'_, State>, Refusal> {
        let state = self.lock();
        let text = std::str::from_utf8(credentials).ok();
        let number = text.and_then(|text| text.strip_prefix("account "));
        let number: Option<u64> = number.and_then(|number| number.parse().ok());
        match number {
            Some(number) if number < state.accounts => Ok(state),
            _ => Err(Refusal {
                unknown_account: true,
                ..refused("no such account")
            }),
        }
    }
}

fn refused(reason: &str) -> Refusal {
    Refusal {
        stage: Stage::Order,
        reason: reason.to_owned(),
        rate_limited: false,
        retry_at: None,
        unknown_account: false,
    }
}

#[async_trait]
impl CertificateAuthority for FakeAuthority {
    async fn register(&self, account: &AccountKey) -> Result<Vec<u8>, Refusal> {
        if account.directory != self.directory {
            return Err(refused("nobody answers"));
        }
        let mut state = self.lock();
        state.accounts += 1;
        Ok(format!("account {}", state.accounts - 1).into_bytes())
    }

    async fn order(&self, credentials: &[u8], _: &Domain) -> Result<Placed, Refusal> {
        let mut state = self.known(credentials)?;
        let number = state.orders.len();
        let url = format!("{}/order/{number}", self.directory);
        state.orders.insert(url.clone(), None);
        let token = format!("token-{number}");
        let answer = format!("{token}.print");
        Ok(Placed {
            url,
            challenge: Some(Challenge { token, answer }),
        })
    }

    fn new_key(&self) -> Result<String, Refusal> {
        let mut state = self.lock();
        state.keys += 1;
        Ok(format!("PRIVATE KEY {}", state.keys))
    }

    async fn complete(
        &self,
        credentials: &[u8],
        order: &str,
        domain: &Domain,
        key: &str,
    ) -> Result<Progress, Refusal> {
        let now = self.clock.now();
        let mut state = self.known(credentials)?;
        let serial = format!("{:x}", state.orders.len());
        let issued = state.orders.get_mut(order);
        let issued = issued.ok_or_else(|| refused("no such order"))?;
        let leaf = issued.get_or_insert_with(|| Leaf {
            serial,
            not_before: now,
            not_after: now + LIFE,
            names: vec![domain.to_string()],
        });
        Ok(Progress::Issued {
            chain: format!("-----BEGIN CERTIFICATE-----\n{} for {key}\n", leaf.serial),
            leaf: leaf.clone(),
        })
    }

    async fn renewal(&self, credentials: &[u8], _: &str) -> Result<Offer, Refusal> {
        self.known(credentials).map(|_| Offer::None)
    }
}
