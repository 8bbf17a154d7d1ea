//! Servers that a test scripts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::wire::{Message, Wire};

/// One upstream on a port of its own. Its thread ends with the test's process.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Message>>>,
}

impl Upstream {
    /// Runs a script on every connection.
    pub(crate) fn raw(script: impl Fn(Wire) + Send + Sync + 'static) -> Self {
        Self::scripted(listener(), move |wire, _| script(wire))
    }

    /// Answers every request with what a function makes of it, until that is nothing.
    pub(crate) fn answering(
        answer: impl Fn(&Message) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::on(listener(), answer)
    }

    /// Answers everything with this text, at an address that was nobody's.
    pub(crate) fn at(address: SocketAddr, text: &'static str) -> Self {
        Self::on(TcpListener::bind(address).unwrap(), move |_| Some(ok(text)))
    }

    fn on(
        listener: TcpListener,
        answer: impl Fn(&Message) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::scripted(listener, move |mut wire, requests| {
            while let Some(request) = wire.request() {
                requests.lock().unwrap().push(request.clone());
                match answer(&request) {
                    Some(response) => wire.send(&response),
                    None => return,
                }
            }
        })
    }

    /// Answers everything with this text.
    pub(crate) fn text(text: &'static str) -> Self {
        Self::answering(move |_| Some(ok(text)))
    }

    fn scripted(
        listener: TcpListener,
        script: impl Fn(Wire, &Mutex<Vec<Message>>) + Send + Sync + 'static,
    ) -> Self {
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let script = Arc::new(script);
        let (count, requests) = (
            Arc::clone(&upstream.connections),
            Arc::clone(&upstream.requests),
        );
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (script, requests) = (Arc::clone(&script), Arc::clone(&requests));
                thread::spawn(move || script(Wire::new(stream), &requests));
            }
        });
        upstream
    }

    /// Connections accepted until now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The requests read until now.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.requests.lock().unwrap().clone()
    }

    /// The only request read until now.
    pub(crate) fn request(&self) -> Message {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// A response with this text.
pub(crate) fn ok(text: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
}
