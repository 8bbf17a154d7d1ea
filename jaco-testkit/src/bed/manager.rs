//! A service manager in small, as far as a daemon's sockets are concerned: it keeps what the
//! daemon stores with it (`FDSTORE`), and hands that to the next start.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io, thread};

use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// The first number that handed-over sockets get.
const FIRST: i32 = 3;
const LONGEST_MESSAGE: usize = 4096;

/// Sockets by the names that the daemon gave them.
type Stored = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// Keeps the sockets of one daemon for as long as this program runs.
#[derive(Debug)]
pub(super) struct Manager {
    socket: PathBuf,
    stored: Stored,
}

impl Manager {
    /// Listens on a socket of its own in `directory`.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let socket = directory.join("notify.sock");
        let _ = fs::remove_file(&socket);
        let messages = UnixDatagram::bind(&socket).context("cannot open the notify socket")?;
        let stored = Stored::default();
        let kept = Arc::clone(&stored);
        // Ends with the program: what is kept must outlive every start of the daemon.
        thread::spawn(move || {
            while let Ok((text, sockets)) = receive(&messages) {
                note(
                    &mut kept.lock().unwrap_or_else(PoisonError::into_inner),
                    &text,
                    sockets,
                );
            }
        });
        Ok(Self { socket, stored })
    }

    /// The same command with what is kept, as systemd passes it.
    pub(super) fn hand_over(&self, command: &Command) -> Result<Command> {
        let stored = self.stored();
        let names: Vec<&str> = stored.iter().map(|(name, _)| name.as_str()).collect();
        // The pid is known to the new process only.
        let script = "export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let mut managed = Command::new("/bin/sh");
        managed
            .args(["-c", script])
            .arg(command.get_program())
            .args(command.get_args())
            .env("NOTIFY_SOCKET", &self.socket)
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => managed.env(key, value),
                None => managed.env_remove(key),
            };
        }
        let mappings = (FIRST..).zip(stored.iter()).map(|(child_fd, (_, socket))| {
            let parent_fd = socket.try_clone()?;
            Ok(FdMapping {
                parent_fd,
                child_fd,
            })
        });
        managed.fd_mappings(mappings.collect::<io::Result<_>>()?)?;
        Ok(managed)
    }

    /// How many sockets are kept under a name.
    pub(super) fn count(&self, name: &str) -> usize {
        self.stored()
            .iter()
            .filter(|(kept, _)| kept == name)
            .count()
    }

    fn stored(&self) -> MutexGuard<'_, Vec<(String, OwnedFd)>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn receive(messages: &UnixDatagram) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut text = [0; LONGEST_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut text)];
    let received = recvmsg(
        messages.as_fd(),
        parts,
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let sockets = sockets.flatten().collect();
    Ok((
        String::from_utf8_lossy(&text[..received.bytes]).into_owned(),
        sockets,
    ))
}

fn note(stored: &mut Vec<(String, OwnedFd)>, text: &str, sockets: Vec<OwnedFd>) {
    let has = |line: &str| text.lines().any(|told| told == line);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    let name = name.unwrap_or("stored");
    if has("FDSTOREREMOVE=1") {
        stored.retain(|(kept, _)| kept != name);
    }
    if has("FDSTORE=1") {
        stored.extend(sockets.into_iter().map(|socket| (name.to_owned(), socket)));
    }
}
