//! Published UDP ports: datagrams both ways between a client and a replica (spec 08).
//!
//! A flow is what a client sends from one address to one address of this host. It has a socket
//! of its own towards its replica, so that answers find their way back, and stays with the
//! replica until that is gone or the flow has been idle for too long.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Instant;

use jaco_core::manifest::spec::Protocol;
use jaco_core::node::balance;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, send, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::live::{Flight, Live};
use super::worker::Worker;

/// Datagrams of one socket at once, so that the others get their turn.
const BATCH: usize = 64;

/// One published port on one worker.
pub(super) struct Port {
    worker: Rc<Worker>,
    socket: UdpSocket,
    number: u16,
    flows: RefCell<HashMap<Ends, Flow>>,
    /// Flows by age that had no answer when they were last looked at. Whoever forges addresses
    /// gets none, so these make room first.
    unanswered: RefCell<VecDeque<(Ends, Instant)>>,
}

/// Who talks to which address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    client: SocketAddrV4,
    here: Ipv4Addr,
}

struct Flow {
    to: SocketAddrV4,
    socket: Rc<UdpSocket>,
    used: Rc<Cell<Instant>>,
    is_answered: Rc<Cell<bool>>,
    /// Tells it from another flow between the same ends.
    began: Instant,
    flight: Flight,
    answers: AbortHandle,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Forwards until the port is closed; its flows end with it.
pub(super) async fn serve(
    worker: Rc<Worker>,
    socket: StdUdpSocket,
    number: u16,
    open: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let port = Rc::new(Port {
        socket: UdpSocket::from_std(socket)?,
        number,
        flows: RefCell::default(),
        unanswered: RefCell::default(),
        worker,
    });
    let mut sweep =
        tokio::time::interval(port.worker.limits.unanswered.min(port.worker.limits.idle) / 4);
    loop {
        tokio::select! {
            biased;
            _ = open.changed() => break,
            _ = sweep.tick() => port.forget_idle(),
            ready = port.socket.readable() => {
                ready?;
                port.take_in();
                tokio::task::yield_now().await;
            }
        }
    }
    port.flows.borrow_mut().clear();
    // Their tasks hold the port a moment longer, and whoever sees it closed may open it again.
    while Rc::strong_count(&port) > 1 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

impl Port {
    /// Reads what has come, and sends it on.
    fn take_in(self: &Rc<Self>) {
        let worker = Rc::clone(&self.worker);
        let table = worker.table();
        let mut scratch = worker.scratch.borrow_mut();
        for _ in 0..BATCH {
            let read = self
                .socket
                .try_io(Interest::READABLE, || receive(&self.socket, &mut scratch));
            match read {
                Ok((length, Some(ends))) => self.pass(&table, ends, &scratch[..length]),
                // Not IPv4, which such a socket does not get; or an error that an earlier answer
                // to some client brought.
                Ok((_, None)) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!(port = self.number, %error, "datagram not read"),
            }
        }
    }

    /// Sends a client's datagram to the replica of its flow. One that cannot be sent is lost, as
    /// datagrams may be.
    fn pass(self: &Rc<Self>, table: &Live, ends: Ends, datagram: &[u8]) {
        let mut flows = self.flows.borrow_mut();
        let Some(route) = table.routes.ports.get(&(self.number, Protocol::Udp)) else {
            return;
        };
        if let Some(flow) = flows.get(&ends) {
            let there = route.upstreams.iter().any(|u| u.address == flow.to);
            if there && flow.send(datagram, &self.worker) {
                return;
            }
            flows.remove(&ends);
        }
        if flows.len() >= self.worker.limits.flows {
            self.make_room(&mut flows);
        }
        let load = |upstream: &_| table.load(upstream);
        let Some(at) = balance::least_connections(&route.upstreams, &[], load) else {
            return;
        };
        let upstream = &route.upstreams[at];
        match self.begin(ends, upstream.address, table.begin(upstream)) {
            Ok(flow) => {
                flow.send(datagram, &self.worker);
                let mut unanswered = self.unanswered.borrow_mut();
                unanswered.push_back((ends, flow.began));
                flows.insert(ends, flow);
                // A replica that refuses has flows begin anew and anew.
                if unanswered.len() > 2 * self.worker.limits.flows {
                    unanswered.retain(|it| is_unanswered(&flows, it));
                }
            }
            Err(error) => tracing::warn!(port = self.number, %error, "no socket for a flow"),
        }
    }

    fn begin(self: &Rc<Self>, ends: Ends, to: SocketAddrV4, flight: Flight) -> io::Result<Flow> {
        let socket = StdUdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        let socket = Rc::new(UdpSocket::from_std(socket)?);
        let used = Rc::new(Cell::new(Instant::now()));
        let is_answered = Rc::new(Cell::new(false));
        let marks = (Rc::clone(&used), Rc::clone(&is_answered));
        let answers = answers(Rc::clone(self), ends, Rc::clone(&socket), marks);
        let answers = tokio::task::spawn_local(answers).abort_handle();
        Ok(Flow {
            to,
            socket,
            used,
            is_answered,
            began: Instant::now(),
            flight,
            answers,
        })
    }

    fn forget_idle(&self) {
        let limits = &self.worker.limits;
        let mut flows = self.flows.borrow_mut();
        flows.retain(|_, flow| {
            let limit = match flow.is_answered.get() {
                true => limits.idle,
                false => limits.unanswered,
            };
            flow.used.get().elapsed() < limit
        });
        let mut unanswered = self.unanswered.borrow_mut();
        unanswered.retain(|it| is_unanswered(&flows, it));
    }

    /// Ends the oldest flow without an answer, or where there is none the one that was used
    /// longest ago: a new client is never the one to be refused.
    fn make_room(&self, flows: &mut HashMap<Ends, Flow>) {
        let mut unanswered = self.unanswered.borrow_mut();
        while let Some(oldest) = unanswered.pop_front() {
            if is_unanswered(flows, &oldest) {
                flows.remove(&oldest.0);
                return;
            }
        }
        let oldest = flows.iter().min_by_key(|(_, flow)| flow.used.get());
        if let Some(ends) = oldest.map(|(ends, _)| *ends) {
            flows.remove(&ends);
        }
    }

    /// Ends a flow whose replica does not listen; the client's next datagram goes to another.
    fn give_up(&self, ends: Ends) {
        if let Some(flow) = self.flows.borrow_mut().remove(&ends) {
            flow.flight.eject(self.worker.limits.ejection);
        }
    }

    /// Sends a replica's datagram to the client, from the address that the client knows.
    fn answer(&self, ends: Ends, datagram: &[u8]) -> io::Result<()> {
        let from = in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr {
                s_addr: u32::from_ne_bytes(ends.here.octets()),
            },
            ipi_addr: in_addr { s_addr: 0 },
        };
        let from = [ControlMessage::Ipv4PacketInfo(&from)];
        let client = SockaddrIn::from(ends.client);
        let (fd, data) = (self.socket.as_raw_fd(), [IoSlice::new(datagram)]);
        sendmsg(fd, &data, &from, MsgFlags::MSG_DONTWAIT, Some(&client))?;
        Ok(())
    }
}

/// Whether this very flow is still there and has no answer.
fn is_unanswered(flows: &HashMap<Ends, Flow>, (ends, began): &(Ends, Instant)) -> bool {
    let flow = flows.get(ends);
    flow.is_some_and(|flow| flow.began == *began && !flow.is_answered.get())
}

impl Flow {
    /// False when the replica does not listen, which an earlier datagram has shown. Anything
    /// else may pass.
    fn send(&self, datagram: &[u8], worker: &Worker) -> bool {
        self.used.set(Instant::now());
        // The kernel takes it or not; waiting would hold up every other flow.
        let sent = send(self.socket.as_raw_fd(), datagram, MsgFlags::MSG_DONTWAIT);
        let refused = sent == Err(nix::errno::Errno::ECONNREFUSED);
        if refused {
            self.flight.eject(worker.limits.ejection);
        }
        !refused
    }
}

/// Brings a replica's datagrams back to the client, until the flow ends.
async fn answers(
    port: Rc<Port>,
    ends: Ends,
    socket: Rc<UdpSocket>,
    (used, is_answered): (Rc<Cell<Instant>>, Rc<Cell<bool>>),
) {
    let worker = Rc::clone(&port.worker);
    while socket.readable().await.is_ok() {
        for _ in 0..BATCH {
            let mut scratch = worker.scratch.borrow_mut();
            match socket.try_recv(&mut scratch) {
                Ok(length) => {
                    used.set(Instant::now());
                    is_answered.set(true);
                    if let Err(error) = port.answer(ends, &scratch[..length]) {
                        tracing::debug!(client = %ends.client, %error, "answer not sent");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    drop(scratch);
                    // This ends the task too.
                    port.give_up(ends);
                    return;
                }
                Err(_) => break,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// One datagram, and between whom it is; none for an address that is not IPv4.
fn receive(socket: &UdpSocket, room: &mut [u8]) -> io::Result<(usize, Option<Ends>)> {
    let mut control = nix::cmsg_space!(in_pktinfo);
    let mut slices = [IoSliceMut::new(room)];
    let fd = socket.as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    let read = recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut control), flags)?;
    let here = read.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()))
        }
        _ => None,
    });
    let client = read.address.map(SocketAddrV4::from);
    let ends = client.zip(here).map(|(client, here)| Ends { client, here });
    Ok((read.bytes, ends))
}

/// The address that answers come from is the one that was asked, on hosts with several as well.
pub(super) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::Ipv4PacketInfo, &true)?;
    Ok(())
}
