//! The loop that carries all packets of the mesh in this process.
//!
//! It has a thread to itself, so that a busy mesh does not delay the control plane, and does one
//! thing after the other: a run of packets goes from one system call to the next without being
//! handed from task to task.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::datagrams::Datagrams;
use super::device::Tun;
use super::tunnels::Tunnels;

/// How often the protocol looks at its timers.
const TICK: Duration = Duration::from_millis(250);

/// Something to be done with the peers between two runs of packets.
pub(super) type Order = Box<dyn FnOnce(&mut Tunnels) + Send>;

/// Device, socket and what lies between them.
pub(super) struct Carrier {
    tun: Tun,
    socket: Datagrams,
    tunnels: Tunnels,
}

impl Carrier {
    /// Makes the device and listens; must be called within a runtime.
    pub(super) fn open(interface: &str, port: u16, tunnels: Tunnels) -> io::Result<Self> {
        Ok(Self {
            socket: Datagrams::bind(port)?,
            tun: Tun::open(interface)?,
            tunnels,
        })
    }

    /// Carries until nobody gives orders any more.
    ///
    /// # Errors
    /// When the device or the socket is gone.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> io::Result<()> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut outward, mut inward) = (Vec::new(), Vec::new());
        let (mut received, mut sending) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                read = self.tun.read(&mut outward) => {
                    read?;
                    let datagram = |packet| self.tunnels.outgoing(packet);
                    sending.extend(outward.drain(..).filter_map(datagram));
                }
                came = self.socket.receive(&mut received) => {
                    came?;
                    let replies = &mut sending;
                    let packet = |(datagram, from)| self.tunnels.incoming(datagram, from, replies);
                    inward.extend(received.drain(..).filter_map(packet));
                    self.tun.write(&mut inward).await?;
                }
                _ = ticks.tick() => self.tunnels.tick(&mut sending),
                order = orders.recv() => match order {
                    Some(order) => order(&mut self.tunnels),
                    None => return Ok(()),
                },
            }
            self.socket.send(&mut sending).await;
        }
    }
}
