//! WireGuard in this process, on a TUN device.

use std::thread;

use gotatun::x25519::StaticSecret;
use jaco_core::id::MeshKey;
use jaco_core::node::mesh::Peer;
use jaco_core::ports::HostError;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use super::carrier::{Carrier, Order};
use super::tunnels::Tunnels;

/// The thread that carries the packets; it ends when this is dropped.
pub(super) struct Userspace {
    orders: mpsc::Sender<Order>,
}

impl Userspace {
    pub(super) async fn start(
        interface: &'static str,
        private: StaticSecret,
        port: u16,
    ) -> Result<Self, HostError> {
        let (orders, queue) = mpsc::channel(1);
        let (opened, open) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let carry = async move {
            match Carrier::open(interface, port, Tunnels::new(private)) {
                Ok(carrier) => {
                    let _ = opened.send(Ok(()));
                    if let Err(error) = carrier.run(queue).await {
                        tracing::warn!(subsystem = "mesh", %error, "the mesh is interrupted");
                    }
                }
                Err(error) => drop(opened.send(Err(failed(error)))),
            }
        };
        let thread = thread::Builder::new().name("mesh".to_owned());
        let spawned = thread.spawn(move || runtime.block_on(carry));
        spawned.map_err(failed)?;
        open.await.map_err(failed)??;
        Ok(Self { orders })
    }

    pub(super) async fn peers(&self) -> Result<Vec<Peer>, HostError> {
        self.order(|tunnels| tunnels.peers()).await
    }

    pub(super) async fn set(&self, peer: &Peer, moved: bool) -> Result<(), HostError> {
        let peer = peer.clone();
        self.order(move |tunnels| tunnels.set(&peer, moved)).await
    }

    pub(super) async fn remove(&self, key: MeshKey) -> Result<(), HostError> {
        self.order(move |tunnels| tunnels.remove(key)).await
    }

    /// Has something done on the thread and waits for what comes of it.
    async fn order<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tunnels) -> T + Send + 'static,
    ) -> Result<T, HostError> {
        let (answer, answered) = oneshot::channel();
        let order = move |tunnels: &mut Tunnels| drop(answer.send(work(tunnels)));
        let sent = self.orders.send(Box::new(order)).await;
        sent.map_err(|_| HostError::Failed("the mesh has ended".to_owned()))?;
        answered.await.map_err(failed)
    }
}

fn failed(error: impl std::error::Error) -> HostError {
    HostError::Failed(error.to_string())
}
