//! Whether an issued chain is what was asked for (spec 08, Stage first).

use crate::id::Domain;
use crate::time::Timestamp;

/// What the leaf of a chain says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Lower-case hex.
    pub serial: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Its DNS names, lower case.
    pub names: Vec<String>,
}

/// Says why a leaf cannot be served for a domain.
///
/// # Errors
/// The reason, for the operator.
pub fn check(leaf: &Leaf, domain: &Domain, now: Timestamp) -> Result<(), String> {
    if !leaf.names.iter().any(|name| name == domain.as_str()) {
        let names = leaf.names.join(", ");
        return Err(format!("the certificate is for {names}, not for {domain}"));
    }
    if leaf.not_after <= now {
        return Err(format!("the certificate expired at {}", leaf.not_after));
    }
    if leaf.not_after <= leaf.not_before {
        return Err("the certificate is never valid".to_owned());
    }
    Ok(())
}
