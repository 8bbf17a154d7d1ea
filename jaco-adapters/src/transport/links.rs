//! The kernel's links, addresses and routes over netlink: one connection, one kind of error.

use std::io;

use futures::TryStreamExt;
use jaco_core::ports::HostError;
use rtnetlink::{Error, Handle};
use tokio::task::AbortHandle;

/// A connection to the kernel; ends when dropped.
pub(crate) struct Links {
    pub(crate) handle: Handle,
    connection: AbortHandle,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    pub(crate) fn open() -> Result<Self, HostError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| io_failed(&e))?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, connection })
    }

    /// An interface's number, if it exists.
    pub(crate) async fn index(&self, name: &str) -> Result<Option<u32>, HostError> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if code(&error) == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// An interface's number; an error when it does not exist.
    pub(crate) async fn existing(&self, name: &str) -> Result<u32, HostError> {
        let missing = || HostError::Failed(format!("there is no interface {name}"));
        self.index(name).await?.ok_or_else(missing)
    }
}

/// The kernel's error number, when it is the kernel that refused.
pub(crate) fn code(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}

pub(crate) fn failed(error: &Error) -> HostError {
    match error {
        Error::NetlinkError(message) => io_failed(&message.to_io()),
        other => HostError::Failed(other.to_string()),
    }
}

/// A refusal for want of a capability is told apart.
pub(crate) fn io_failed(error: &io::Error) -> HostError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => HostError::Unavailable(error.to_string()),
        _ => HostError::Failed(error.to_string()),
    }
}
