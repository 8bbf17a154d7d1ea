//! The mesh interface as a link: made, given its address, brought up.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use jaco_core::node::mesh::MTU;
use jaco_core::ports::HostError;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::{LinkUnspec, LinkWireguard};

use crate::transport::links::{Links, code, failed};

/// Makes the interface in the kernel; one that is there already is no error.
/// `Unavailable` when this kernel has no WireGuard.
pub(super) async fn add_wireguard(links: &Links, name: &str) -> Result<(), HostError> {
    let link = LinkWireguard::new(name).build();
    match links.handle.link().add(link).execute().await {
        Err(error) if code(&error) != Some(nix::libc::EEXIST) => match code(&error) {
            Some(nix::libc::EOPNOTSUPP) => {
                let reason = "this kernel has no WireGuard".to_owned();
                Err(HostError::Unavailable(reason))
            }
            _ => Err(failed(&error)),
        },
        _ => Ok(()),
    }
}

/// Gives the interface its address and only that, and brings it up.
pub(super) async fn bring_up(
    links: &Links,
    name: &str,
    address: Ipv4Addr,
) -> Result<(), HostError> {
    let index = links.existing(name).await?;
    let addresses = links.handle.address();
    let list = addresses.get().set_link_index_filter(index).execute();
    let present: Vec<_> = list.try_collect().await.map_err(|error| failed(&error))?;
    let ours = AddressAttribute::Local(address.into());
    let mut there = false;
    for message in present {
        if message.attributes.contains(&ours) {
            there = true;
        } else if message.attributes.iter().any(is_v4) {
            let removed = addresses.del(message).execute().await;
            removed.map_err(|error| failed(&error))?;
        }
    }
    if !there {
        let added = addresses.add(index, address.into(), 32).execute().await;
        added.map_err(|error| failed(&error))?;
    }
    let up = LinkUnspec::new_with_index(index).mtu(MTU.into()).up();
    let set = links.handle.link().set(up.build()).execute().await;
    set.map_err(|error| failed(&error))
}

fn is_v4(attribute: &AddressAttribute) -> bool {
    matches!(attribute, AddressAttribute::Local(address) if address.is_ipv4())
}
