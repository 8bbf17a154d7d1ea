//! TLS between members: each connection is a whole handshake, and a refused key gets none.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jaco_adapters::transport::{pki, tls};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn member(ca: &str, ca_key: &str, name: &str) -> pki::Identity {
    let (key, request) = pki::new_request(name).unwrap();
    let sans = ["127.0.0.1".to_owned()];
    let (chain, _) = pki::sign_node(ca, ca_key, &request, name, &sans).unwrap();
    pki::Identity { chain, key }
}

#[tokio::test]
async fn no_session_is_resumed() {
    let (ca, ca_key) = pki::new_authority("test").unwrap();
    let (server, client) = (member(&ca, &ca_key, "n1"), member(&ca, &ca_key, "n2"));
    let is_refused = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_refused);
    let refused: tls::Refused = Arc::new(move |_, _| asked.load(Ordering::SeqCst));
    let nobody: tls::Refused = Arc::new(|_, _| false);
    let server = TlsAcceptor::from(tls::member_server(&ca, &server, refused).unwrap());
    let client = TlsConnector::from(tls::member_client(&ca, &client, nobody).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = server.accept(tcp).await {
                let _ = stream.write_all(b"x").await;
            }
        }
    });
    let dial = async || -> std::io::Result<HandshakeKind> {
        let tcp = TcpStream::connect(address).await?;
        let name = "127.0.0.1".try_into().unwrap();
        let mut stream = client.connect(name, tcp).await?;
        // A ticket would come with the first byte; so would the refusal.
        stream.read_exact(&mut [0]).await?;
        Ok(stream.get_ref().1.handshake_kind().unwrap())
    };
    for _ in 0..3 {
        assert_ne!(dial().await.unwrap(), HandshakeKind::Resumed);
    }
    is_refused.store(true, Ordering::SeqCst);
    assert!(
        dial().await.is_err(),
        "the key is refused, whatever was kept of it"
    );
}
