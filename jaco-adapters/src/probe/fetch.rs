//! Fetching one page, to see who answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use jaco_core::certs::Probed;
use jaco_core::id::Domain;
use tokio::net::TcpStream;

/// Where visitors, and CAs, ask over plain HTTP.
const PORT: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(5);
/// What is expected is shorter; what is longer is something else.
const LARGEST: usize = 4096;

/// What an address answers.
pub(super) async fn fetch(address: IpAddr, host: &Domain, path: &str) -> Probed {
    match tokio::time::timeout(PATIENCE, ask(address, host, path)).await {
        Ok(Ok(probed)) => probed,
        Ok(Err(error)) => Probed::Silent(error.to_string()),
        Err(_) => Probed::Silent("no answer".to_owned()),
    }
}

async fn ask(address: IpAddr, host: &Domain, path: &str) -> io::Result<Probed> {
    let stream = TcpStream::connect(SocketAddr::new(address, PORT)).await?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    let request = Request::get(path).header(HOST, host.as_str());
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
        Ok(Probed::Answered {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    };
    // Without a task of its own the connection moves only while it is waited for. A server may
    // close as soon as it has answered; the answer is whole then.
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}
