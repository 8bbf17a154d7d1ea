//! The probe of pages on loopback, at port 80 of addresses that nobody else uses. Needs root.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;

use async_trait::async_trait;
use jaco_adapters::probe::HostProbe;
use jaco_core::certs::Probed;
use jaco_core::id::Domain;
use jaco_core::ports::WebProbe;
use jaco_testkit::contract::web_probe::{World, suite};

const SERVER: Ipv4Addr = Ipv4Addr::new(127, 44, 0, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 44, 0, 2);
const MUTE: Ipv4Addr = Ipv4Addr::new(127, 44, 0, 3);

/// Without other members.
struct Alone;

#[async_trait]
impl WebProbe for Alone {
    async fn fetch(&self, _: Option<&str>, address: IpAddr, host: &Domain, path: &str) -> Probed {
        HostProbe.fetch(address, host, path).await
    }
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let ours = head.contains("\r\nhost: ours.test\r\n");
        let (status, more, body) = match head.split(' ').nth(1) {
            Some("/page") if ours => ("200 OK", "", "ours"),
            Some("/elsewhere") if ours => ("302 Found", "Location: /page\r\n", ""),
            _ => ("404 Not Found", "", ""),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn the_probe_keeps_the_contract() {
    let server = TcpListener::bind((SERVER, 80)).unwrap();
    thread::spawn(move || serve(&server));
    // Its kernel accepts for it.
    let _mute = TcpListener::bind((MUTE, 80)).unwrap();
    let world = World {
        server: SERVER.into(),
        host: Domain::from("ours.test"),
        nobody: NOBODY.into(),
        mute: MUTE.into(),
    };
    suite(&Alone, &world).await;
}
