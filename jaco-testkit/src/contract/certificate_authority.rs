//! What every `CertificateAuthority` promises.

use jaco_core::cluster::certs::{AccountKey, Stage};
use jaco_core::id::Domain;
use jaco_core::ports::CertificateAuthority;
use jaco_core::ports::certificate_authority::{Placed, Progress};

use super::wait::until;

/// A CA that takes every challenge as answered.
pub struct World {
    /// Its directory.
    pub directory: String,
    /// A URL where no CA answers.
    pub nowhere: String,
    /// Credentials in the form of this implementation that the CA does not know.
    pub strange: Vec<u8>,
}

/// Runs every check.
pub async fn suite(authority: &dyn CertificateAuthority, world: &World) {
    let credentials = an_account_is_made_with_a_contact_or_without(authority, world).await;
    an_order_ends_in_a_chain_for_its_domain_and_key(authority, &credentials).await;
    keys_differ(authority);
    a_ca_that_cannot_be_reached_refuses_with_a_reason(authority, world).await;
    an_account_that_the_ca_does_not_know_is_told_as_such(authority, world).await;
}

async fn an_account_is_made_with_a_contact_or_without(
    authority: &dyn CertificateAuthority,
    world: &World,
) -> Vec<u8> {
    let account = |contact: Option<&str>| AccountKey {
        directory: world.directory.clone(),
        contact: contact.map(str::to_owned),
    };
    let with = authority.register(&account(Some("ops@example.com"))).await;
    let without = authority.register(&account(None)).await;
    let with = with.expect("an account with a contact");
    assert_ne!(without.expect("an account without one"), with);
    with
}

async fn an_order_ends_in_a_chain_for_its_domain_and_key(
    authority: &dyn CertificateAuthority,
    credentials: &[u8],
) {
    let domain = Domain::from("contract.test");
    let placed = authority.order(credentials, &domain).await;
    let Placed { url, challenge } = placed.expect("an order");
    let challenge = challenge.expect("the CA does not know the domain");
    let answer = challenge.answer.strip_prefix(&challenge.token);
    assert!(
        answer.is_some_and(|rest| rest.starts_with('.')),
        "{challenge:?}"
    );
    let key = authority.new_key().expect("a key");
    let (chain, leaf) = until("the CA issues", async || {
        let done = authority.complete(credentials, &url, &domain, &key).await;
        match done.expect("the order goes on") {
            Progress::Issued { chain, leaf } => Some((chain, leaf)),
            Progress::Pending => None,
        }
    })
    .await;
    assert_eq!(leaf.names, ["contract.test"]);
    assert!(leaf.not_before < leaf.not_after);
    assert!(!leaf.serial.is_empty());
    assert!(chain.starts_with("-----BEGIN CERTIFICATE-----"), "{chain}");
    // It goes on from wherever the order is, the end included.
    let again = authority.complete(credentials, &url, &domain, &key).await;
    let Ok(Progress::Issued { leaf: same, .. }) = again else {
        panic!("what was issued can be had again: {again:?}")
    };
    assert_eq!(same.serial, leaf.serial);
    let offer = authority.renewal(credentials, &chain).await;
    offer.expect("the CA has a word on renewal, or says that it has none");
}

fn keys_differ(authority: &dyn CertificateAuthority) {
    let key = || authority.new_key().expect("a key");
    let (one, other) = (key(), key());
    assert_ne!(one, other);
    assert!(one.contains("PRIVATE KEY"));
}

async fn a_ca_that_cannot_be_reached_refuses_with_a_reason(
    authority: &dyn CertificateAuthority,
    world: &World,
) {
    let account = AccountKey {
        directory: world.nowhere.clone(),
        contact: None,
    };
    let refusal = authority
        .register(&account)
        .await
        .expect_err("nobody is there");
    assert_eq!(refusal.stage, Stage::Order);
    assert!(!refusal.reason.is_empty());
    assert!(!refusal.rate_limited && !refusal.unknown_account);
}

async fn an_account_that_the_ca_does_not_know_is_told_as_such(
    authority: &dyn CertificateAuthority,
    world: &World,
) {
    let domain = Domain::from("contract.test");
    let refusal = authority.order(&world.strange, &domain).await;
    let refusal = refusal.expect_err("the account is not the CA's");
    assert!(refusal.unknown_account, "{refusal:?}");
}
