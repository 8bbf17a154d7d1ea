//! The TUN device of the mesh in this process.
//!
//! The kernel hands over and takes runs of segments of one flow as one packet (`IFF_VNET_HDR`),
//! so that one system call carries up to 64 KiB instead of one MTU.

use std::io;

use bytes::BytesMut;
use gotatun::packet::Packet;
use nix::errno::Errno;
use tun_rs::{AsyncDevice, DeviceBuilder, GROTable, VIRTIO_NET_HDR_LEN};

/// Segments of one read, and packets of one write. 64 KiB in segments of 536 bytes fit.
const BATCH: usize = 128;
/// The largest packet of the kernel with its header.
const LARGEST: usize = VIRTIO_NET_HDR_LEN + u16::MAX as usize;
/// Room for one segment; none is larger than the device's MTU.
const SEGMENT: usize = 2048;
/// Packets are padded to a multiple of this before they are sealed.
const PADDING: usize = 16;

/// One end of the device, the other being this host's network.
pub(super) struct Tun {
    device: AsyncDevice,
    raw: Box<[u8]>,
    segments: Box<[[u8; SEGMENT]]>,
    sizes: [usize; BATCH],
    /// The first packet of a run grows by those that follow it, within its room: the library
    /// takes the capacity for the limit.
    runs: Vec<Vec<u8>>,
    flows: GROTable,
}

impl Tun {
    /// Makes the device `name`; it lasts as long as this does.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let device = DeviceBuilder::new().name(name).offload(true);
        Ok(Self {
            device: device.enable(false).build_async()?,
            raw: vec![0; LARGEST].into_boxed_slice(),
            segments: vec![[0; SEGMENT]; BATCH].into_boxed_slice(),
            sizes: [0; BATCH],
            runs: room_for_runs(),
            flows: GROTable::default(),
        })
    }

    /// Waits for packets of this host and adds them. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// When the device was deleted.
    pub(super) async fn read(&mut self, packets: &mut Vec<Packet>) -> io::Result<()> {
        let count = loop {
            let (segments, sizes) = (&mut self.segments, &mut self.sizes);
            let read = self.device.recv_multiple(&mut self.raw, segments, sizes, 0);
            match read.await {
                Ok(count) => break count,
                Err(error) if is_gone(&error) => return Err(error),
                // A container can send what cannot be cut into segments; that ends nothing.
                Err(error) => tracing::debug!(subsystem = "mesh", %error, "a packet was dropped"),
            }
        };
        let segments = self.segments[..count].iter().zip(self.sizes);
        packets.extend(segments.map(|(segment, size)| {
            let mut packet = BytesMut::with_capacity(size.next_multiple_of(PADDING));
            packet.extend_from_slice(&segment[..size]);
            Packet::from_bytes(packet)
        }));
        Ok(())
    }

    /// Hands packets to this host, in runs where they follow each other.
    ///
    /// # Errors
    /// When the device was deleted.
    pub(super) async fn write(&mut self, packets: &mut Vec<Packet>) -> io::Result<()> {
        while !packets.is_empty() {
            let count = packets.len().min(BATCH);
            for (run, packet) in self.runs.iter_mut().zip(packets.drain(..count)) {
                begin(run, &packet);
            }
            let (runs, flows) = (&mut self.runs[..count], &mut self.flows);
            let written = self.device.send_multiple(flows, runs, VIRTIO_NET_HDR_LEN);
            match written.await {
                Err(error) if is_gone(&error) => return Err(error),
                // Like a full queue or a bad checksum: the flow it belongs to sends again.
                Err(error) => tracing::debug!(subsystem = "mesh", %error, "a packet was not taken"),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

fn room_for_runs() -> Vec<Vec<u8>> {
    (0..BATCH).map(|_| Vec::with_capacity(LARGEST)).collect()
}

/// Puts a packet where a run may begin with it.
fn begin(run: &mut Vec<u8>, packet: &[u8]) {
    run.clear();
    run.extend_from_slice(&[0; VIRTIO_NET_HDR_LEN]);
    run.extend_from_slice(packet);
}

/// Whether the device itself was deleted.
fn is_gone(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EBADF | Errno::EBADFD | Errno::ENODEV))
}

#[cfg(test)]
mod tests {
    use tun_rs::{VIRTIO_NET_HDR_GSO_TCPV4, VirtioNetHdr, gso_split, handle_gro};

    use super::*;

    #[test]
    fn segments_that_follow_each_other_are_written_as_one() {
        let (headers, size, count) = (40, 1380, 45);
        let length = headers + size * count;
        let mut whole = vec![7; length];
        whole[..headers].fill(0);
        (whole[0], whole[8], whole[9]) = (0x45, 64, 6);
        whole[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        whole[12..20].copy_from_slice(&[10, 245, 0, 1, 10, 245, 0, 2]);
        // A header of five words; an acknowledgement.
        (whole[32], whole[33]) = (5 << 4, 0x10);
        let header = VirtioNetHdr {
            flags: 1,
            gso_type: VIRTIO_NET_HDR_GSO_TCPV4,
            hdr_len: 40,
            gso_size: 1380,
            csum_start: 20,
            csum_offset: 16,
        };
        let (mut segments, mut sizes) = (vec![[0; SEGMENT]; BATCH], [0; BATCH]);
        let cut = gso_split(&mut whole, header, &mut segments, &mut sizes, 0, false);
        assert_eq!(cut.unwrap(), count);
        let mut runs = room_for_runs();
        for (run, (segment, size)) in runs.iter_mut().zip(segments.iter().zip(sizes)) {
            begin(run, &segment[..size]);
        }
        let (mut written, runs) = (Vec::new(), &mut runs[..count]);
        let (tcp, udp) = (&mut Default::default(), &mut Default::default());
        handle_gro(runs, VIRTIO_NET_HDR_LEN, tcp, udp, true, &mut written).unwrap();
        assert_eq!(written, [0]);
        assert_eq!(runs[0].len(), VIRTIO_NET_HDR_LEN + length);
    }
}
