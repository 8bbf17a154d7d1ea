//! The mesh interface as a link: made, given its address, brought up.

use std::io;
use std::net::Ipv4Addr;

use futures::TryStreamExt;
use jaco_core::node::mesh::MTU;
use jaco_core::ports::HostError;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::{Error, Handle, LinkUnspec, LinkWireguard};
use tokio::task::AbortHandle;

/// A connection to the kernel's links; ends when dropped.
pub(super) struct Links {
    handle: Handle,
    connection: AbortHandle,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    pub(super) fn open() -> Result<Self, HostError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(io_failed)?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, connection })
    }

    /// The interface's number, if it exists.
    pub(super) async fn index(&self, name: &str) -> Result<Option<u32>, HostError> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if code(&error) == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Makes the interface in the kernel; one that is there already is no error.
    /// `Unavailable` when this kernel has no WireGuard.
    pub(super) async fn add_wireguard(&self, name: &str) -> Result<(), HostError> {
        let link = LinkWireguard::new(name).build();
        match self.handle.link().add(link).execute().await {
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
    pub(super) async fn bring_up(&self, name: &str, address: Ipv4Addr) -> Result<(), HostError> {
        let missing = || HostError::Failed(format!("there is no interface {name}"));
        let index = self.index(name).await?.ok_or_else(missing)?;
        let addresses = self.handle.address();
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
        let set = self.handle.link().set(up.build()).execute().await;
        set.map_err(|error| failed(&error))
    }
}

fn is_v4(attribute: &AddressAttribute) -> bool {
    matches!(attribute, AddressAttribute::Local(address) if address.is_ipv4())
}

fn code(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}

fn failed(error: &Error) -> HostError {
    match error {
        Error::NetlinkError(message) => io_failed(message.to_io()),
        other => HostError::Failed(other.to_string()),
    }
}

/// A refusal for want of a capability is told apart.
#[allow(clippy::needless_pass_by_value)] // for `map_err`
pub(super) fn io_failed(error: io::Error) -> HostError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => HostError::Unavailable(error.to_string()),
        _ => HostError::Failed(error.to_string()),
    }
}
