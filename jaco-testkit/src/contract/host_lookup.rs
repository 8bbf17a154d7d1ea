//! What every `HostLookup` promises.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jaco_core::ports::HostLookup;

/// The world as the resolvers behind one lookup know it.
pub struct World {
    /// A name, in lower case, and all of its addresses: some of either family.
    pub known: (String, BTreeSet<IpAddr>),
    /// A name that exists without an address.
    pub bare: String,
    /// A name that does not exist.
    pub missing: String,
}

/// Runs every check. `silent` is a lookup whose resolvers do not answer.
pub async fn suite(lookup: &dyn HostLookup, silent: &dyn HostLookup, world: &World) {
    let (name, addresses) = &world.known;
    assert_eq!(lookup.addresses(name).await.as_ref(), Ok(addresses));
    // Names have no case.
    let upper = name.to_ascii_uppercase();
    assert_eq!(lookup.addresses(&upper).await.as_ref(), Ok(addresses));
    for nothing in [&world.bare, &world.missing] {
        assert_eq!(lookup.addresses(nothing).await, Ok(BTreeSet::new()));
    }
    assert!(silent.addresses(name).await.is_err());
    // An address needs no resolver.
    for text in ["192.0.2.7", "2001:db8::7"] {
        let itself = BTreeSet::from([text.parse::<IpAddr>().expect("it is an address")]);
        assert_eq!(silent.addresses(text).await, Ok(itself));
    }
}
