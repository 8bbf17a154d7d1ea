//! Tunnels: what a connection becomes when client and upstream agree on another protocol.

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::http::Io;
use super::live::Flight;

/// The upstream's side of a tunnel that begins when the client has read `101`.
pub(super) struct Tunnel {
    pub(super) upstream: TcpStream,
    /// What the upstream said already, in the new protocol.
    pub(super) early: Bytes,
    pub(super) flight: Flight,
}

impl Tunnel {
    /// Carries bytes both ways until both sides have ended. `early` is what the client said
    /// already.
    pub(super) async fn run(mut self, mut client: impl Io, mut early: impl Buf) {
        let begun = async {
            self.upstream.write_all_buf(&mut early).await?;
            client.write_all(&self.early).await
        };
        if begun.await.is_ok() {
            // An error is one side gone without a farewell; dropping tells the other.
            let _ = copy_bidirectional(&mut client, &mut self.upstream).await;
        }
        drop(self.flight);
    }
}
