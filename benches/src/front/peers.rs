//! nginx, HAProxy and Caddy, set up to do what ours does.

use std::path::Path;

use anyhow::Result;

use super::{Front, HOST, PLAIN, Ports, certificate, run, write};
use crate::peer::{Running, free_port};

/// Where Debian has the module that forwards bytes.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// An nginx that answers everything with a hundred bytes from memory; its port.
///
/// # Errors
/// When it does not come up.
pub fn backend(files: &Path) -> Result<(Running, u16)> {
    let port = free_port()?;
    let text = "x".repeat(100);
    let server = format!(
        "server {{ listen 127.0.0.1:{port} backlog=4096; default_type text/plain;\n\
         location / {{ return 200 \"{text}\"; }} }}"
    );
    Ok((start_nginx(files, "backend", &server, "", port)?, port))
}

/// Starts nginx as one process, so that there is one to end. Without being told so, this version
/// speaks TLS 1.2 at most, whose resumed sessions need no key agreement: the others' are 1.3.
fn start_nginx(files: &Path, name: &str, server: &str, stream: &str, port: u16) -> Result<Running> {
    let home = files.join(name);
    std::fs::create_dir(&home)?;
    let home = home.to_string_lossy();
    let load = match stream {
        "" => String::new(),
        _ => format!("load_module {STREAM};\n"),
    };
    let config = format!(
        "{load}daemon off; master_process off; worker_processes 1; pid {home}/pid;\n\
         error_log /dev/null crit;\n\
         events {{ worker_connections 8192; }}\n{stream}\n\
         http {{\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n\
         access_log off; keepalive_requests 100000000; keepalive_timeout 600;\n\
         client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
         fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi;\n\
         scgi_temp_path {home}/scgi; server_names_hash_max_size 65536;\n\
         {server}\n}}\n"
    );
    let config = write(files, &format!("{name}.conf"), &config)?;
    run("nginx", &["-p", &home, "-c", &config], port, &[])
}

/// nginx with keep-alive to the backend, and headers about the client; with so many other hosts.
///
/// # Errors
/// When it does not come up.
pub fn nginx(files: &Path, backend: u16, others: usize) -> Result<Front> {
    let Ports { http, https, tcp } = Ports::free()?;
    let location = "location / { proxy_pass http://web; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Host $host;\n\
         proxy_set_header X-Request-Id $request_id; }";
    let mut servers = format!(
        "upstream web {{ server 127.0.0.1:{backend}; keepalive 1024;\n\
         keepalive_requests 100000000; }}\n"
    );
    let home = format!("nginx-{others}");
    for number in 0..=others {
        let name = match number {
            0 => HOST.to_owned(),
            number => format!("host-{number}.test"),
        };
        let (chain, key) = certificate(&name)?;
        let chain = write(files, &format!("{home}-{number}.pem"), &chain)?;
        let key = write(files, &format!("{home}-{number}.key"), &key)?;
        let backlog = if number == 0 { " backlog=4096" } else { "" };
        servers += &format!(
            "server {{ listen 127.0.0.1:{http}{backlog};\n\
             listen 127.0.0.1:{https} ssl http2{backlog};\n\
             server_name {name}; ssl_certificate {chain}; ssl_certificate_key {key};\n\
             {location} }}\n"
        );
    }
    let stream = format!(
        "stream {{ upstream bytes {{ server 127.0.0.1:{backend}; }}\n\
         server {{ listen 127.0.0.1:{tcp} backlog=4096; proxy_pass bytes; }} }}"
    );
    Ok(Front {
        name: "nginx",
        http,
        https,
        tcp: Some(tcp),
        running: start_nginx(files, &home, &servers, &stream, http)?,
        thread: None,
    })
}

/// HAProxy, the same.
///
/// # Errors
/// When it does not come up.
pub fn haproxy(files: &Path, backend: u16) -> Result<Front> {
    let Ports { http, https, tcp } = Ports::free()?;
    let (chain, key) = certificate(HOST)?;
    let pem = write(files, "haproxy.pem", &(chain + &key))?;
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n\
         \x20 timeout server 60s\n  option http-keep-alive\n  http-reuse always\n\
         frontend in\n  bind 127.0.0.1:{http} backlog 4096\n\
         \x20 bind 127.0.0.1:{https} ssl crt {pem} alpn h2,http/1.1 backlog 4096\n\
         \x20 unique-id-format %[uuid()]\n  unique-id-header X-Request-Id\n\
         \x20 http-request set-header X-Forwarded-For %[src]\n\
         \x20 http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]\n\
         \x20 http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         \x20 acl web hdr(host),field(1,:) -i {HOST} {PLAIN}\n  use_backend web if web\n\
         backend web\n  server one 127.0.0.1:{backend}\n\
         frontend bytes\n  mode tcp\n  bind 127.0.0.1:{tcp} backlog 4096\n\
         \x20 default_backend raw\n\
         backend raw\n  mode tcp\n  server one 127.0.0.1:{backend}\n"
    );
    let config = write(files, "haproxy.cfg", &config)?;
    Ok(Front {
        name: "haproxy",
        http,
        https,
        tcp: Some(tcp),
        running: run("haproxy", &["-db", "-f", &config], http, &[])?,
        thread: None,
    })
}

/// Caddy, the same; it forwards no bytes.
///
/// # Errors
/// When it does not come up.
pub fn caddy(files: &Path, backend: u16) -> Result<Front> {
    let Ports { http, https, .. } = Ports::free()?;
    let (chain, key) = certificate(HOST)?;
    let chain = write(files, "caddy.pem", &chain)?;
    let key = write(files, "caddy.key", &key)?;
    let proxy = format!(
        "bind 127.0.0.1\n  reverse_proxy 127.0.0.1:{backend} {{\n\
         \x20   header_up X-Request-Id {{http.request.uuid}}\n  }}"
    );
    let config = format!(
        "{{\n  admin off\n  auto_https off\n  skip_install_trust\n}}\n\
         http://{PLAIN}:{http} {{\n  {proxy}\n}}\n\
         https://{HOST}:{https} {{\n  tls {chain} {key}\n  {proxy}\n}}\n"
    );
    let config = write(files, "Caddyfile", &config)?;
    let home = files.to_string_lossy();
    let one_core = [("GOMAXPROCS", "1"), ("HOME", &*home)];
    let arguments = ["run", "--config", &config, "--adapter", "caddyfile"];
    Ok(Front {
        name: "caddy",
        http,
        https,
        tcp: None,
        running: run("caddy", &arguments, http, &one_core)?,
        thread: None,
    })
}
