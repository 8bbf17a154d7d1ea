//! The TUN device of the mesh in this process.
//!
//! The kernel hands over and takes runs of segments of one flow as one packet (`IFF_VNET_HDR`),
//! so that one system call carries up to 64 KiB instead of one MTU.

use std::io;
use std::sync::Arc;

use gotatun::packet::{Ip, Packet, PacketBufPool};
use gotatun::tun::{IpRecv, IpSend, MtuWatcher};
use jaco_core::node::mesh::MTU;
use nix::errno::Errno;
use tokio::sync::mpsc;
use tun_rs::{AsyncDevice, DeviceBuilder, GROTable, VIRTIO_NET_HDR_LEN};

/// Segments of one read, and packets of one write. 64 KiB in segments of 536 bytes fit.
const BATCH: usize = 128;
/// The largest packet of the kernel with its header.
const LARGEST: usize = VIRTIO_NET_HDR_LEN + u16::MAX as usize;

/// Makes the device `name`; it lasts as long as its two ends.
pub(super) fn open(name: &str) -> io::Result<(TunWrite, TunRead)> {
    let device = DeviceBuilder::new().name(name).offload(true);
    let device = Arc::new(device.enable(false).build_async()?);
    let (packets, queue) = mpsc::channel(BATCH);
    tokio::spawn(write(device.clone(), queue));
    let read = TunRead {
        device,
        raw: vec![0; LARGEST].into_boxed_slice(),
        slots: Vec::with_capacity(BATCH),
        sizes: [0; BATCH],
    };
    Ok((TunWrite { packets }, read))
}

/// Packets to this host.
pub(super) struct TunWrite {
    packets: mpsc::Sender<Packet<Ip>>,
}

impl IpSend for TunWrite {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        let sent = self.packets.send(packet).await;
        sent.map_err(|_| io::Error::from(Errno::ENODEV))
    }
}

/// Takes what is queued and waits for as long as every look brings more: the two directions of
/// a peer take turns packet by packet, so that one is seldom all that is coming. None when the
/// other end is gone.
async fn gather(queue: &mut mpsc::Receiver<Packet<Ip>>, packets: &mut Vec<Packet<Ip>>) -> usize {
    let mut count = queue.recv_many(packets, BATCH).await;
    while 0 < count && count < BATCH {
        tokio::task::yield_now().await;
        let before = count;
        while count < BATCH
            && let Ok(packet) = queue.try_recv()
        {
            packets.push(packet);
            count += 1;
        }
        if count == before {
            break;
        }
    }
    count
}

/// Writes whatever has gathered at once, until the other end or the device is gone.
async fn write(device: Arc<AsyncDevice>, mut queue: mpsc::Receiver<Packet<Ip>>) {
    let mut packets = Vec::with_capacity(BATCH);
    // The first packet of a run grows by those that follow it; the room stays for the next run.
    let mut buffers = vec![vec![0; VIRTIO_NET_HDR_LEN]; BATCH];
    let mut runs = GROTable::default();
    loop {
        let count = gather(&mut queue, &mut packets).await;
        if count == 0 {
            return;
        }
        for (buffer, packet) in buffers.iter_mut().zip(packets.drain(..)) {
            buffer.truncate(VIRTIO_NET_HDR_LEN);
            buffer.extend_from_slice(packet.into_bytes().as_ref());
        }
        let batch = &mut buffers[..count];
        let written = device.send_multiple(&mut runs, batch, VIRTIO_NET_HDR_LEN);
        match written.await {
            Err(error) if is_gone(&error) => return,
            // Like a full queue or a bad checksum: the flow it belongs to sends again.
            Err(error) => tracing::debug!(subsystem = "mesh", %error, "a packet was not taken"),
            Ok(_) => {}
        }
    }
}

/// Packets from this host.
pub(super) struct TunRead {
    device: Arc<AsyncDevice>,
    raw: Box<[u8]>,
    slots: Vec<Slot>,
    sizes: [usize; BATCH],
}

/// Room for one segment.
struct Slot(Packet<[u8]>);

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl IpRecv for TunRead {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        self.slots.resize_with(BATCH, || Slot(pool.get()));
        let count = loop {
            let (slots, sizes) = (&mut self.slots, &mut self.sizes);
            let read = self.device.recv_multiple(&mut self.raw, slots, sizes, 0);
            match read.await {
                Ok(count) => break count,
                Err(error) if is_gone(&error) => return Err(error),
                // A container can send what cannot be cut into segments; that ends nothing.
                Err(error) => tracing::debug!(subsystem = "mesh", %error, "a packet was dropped"),
            }
        };
        let segments = self.slots.drain(..count).zip(self.sizes);
        Ok(segments.filter_map(|(Slot(mut packet), size)| {
            packet.truncate(size);
            packet.try_into_ip().ok()
        }))
    }

    fn mtu(&self) -> MtuWatcher {
        MtuWatcher::new(MTU)
    }
}

/// Whether the device itself was deleted.
fn is_gone(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EBADF | Errno::EBADFD | Errno::ENODEV))
}
