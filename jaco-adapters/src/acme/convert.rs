//! Keys, requests and certificates, between what a CA takes and gives and what the core knows.

use std::time::Duration;

use instant_acme::RenewalInfo;
use jaco_core::certs::{Leaf, Offer};
use jaco_core::id::Domain;
use jaco_core::manifest::hash::hex;
use jaco_core::time::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::transport::pki;

/// A new P-256 key, PEM.
pub(super) fn new_key() -> Result<String, rcgen::Error> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// The request for a certificate of one domain, DER.
pub(super) fn request(domain: &Domain, key: &str) -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::from_pem(key)?;
    let mut params = CertificateParams::new(vec![domain.to_string()])?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&key)?.der().to_vec())
}

/// What the first certificate of a chain says.
pub(super) fn leaf(chain: &str) -> Result<Leaf, String> {
    let chain = pki::certificates(chain).map_err(|error| error.to_string())?;
    let (_, leaf) = X509Certificate::from_der(&chain[0]).map_err(|error| error.to_string())?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let names = names.map(|names| names.value.general_names.as_slice());
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    Ok(Leaf {
        serial: hex(leaf.raw_serial()),
        not_before: moment(leaf.validity().not_before.timestamp()),
        not_after: moment(leaf.validity().not_after.timestamp()),
        names: names.unwrap_or_default().iter().filter_map(name).collect(),
    })
}

/// A CA's window for renewal.
pub(super) fn offer(info: &RenewalInfo, again: Duration) -> Offer {
    let window = &info.suggested_window;
    Offer::Window {
        start: moment(window.start.unix_timestamp()),
        end: moment(window.end.unix_timestamp()),
        again,
    }
}

/// A moment in seconds since the epoch; the epoch for any before.
fn moment(seconds: i64) -> Timestamp {
    Timestamp(
        u64::try_from(seconds)
            .unwrap_or_default()
            .saturating_mul(1_000),
    )
}
