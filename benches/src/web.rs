//! An image whose web server keeps up with a load generator: the bed's own one starts a process
//! for each request.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use jaco_testkit::bed::Bed;
use tempfile::TempDir;

/// What it is made of, as Debian packages.
pub const PACKAGES: [&str; 1] = ["nginx-light"];

const NGINX: &str = "/usr/sbin/nginx";

/// The scripts of the bed's image are asked behind it.
const START: &str = r#"#!/bin/sh
echo "web $VERSION $(hostname)" > /www/index.html
httpd -f -p 127.0.0.1:8080 -h /www &
nginx -c /etc/nginx.conf &
server=$!
trap 'kill -QUIT $server; wait $server; exit 0' TERM INT
wait $server
"#;

const CONFIG: &str = "
user root;
daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr;
events { worker_connections 512; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen 80;
    root /www;
    location /cgi-bin/ { proxy_pass http://127.0.0.1:8080; }
  }
}
";

/// Makes the image `name` from the bed's image `from` and puts it into the bed's registry.
/// It answers `/` and `/cgi-bin/slow?N` as that one does.
///
/// # Errors
/// When the engine or the registry refuses, and without [`PACKAGES`].
pub fn build(bed: &Bed, from: &str, name: &str) -> Result<()> {
    let context = TempDir::with_prefix("jaco-bench-web-")?;
    let root = context.path().join("root");
    for folder in ["etc", "bin", "tmp", "var/log/nginx", "var/lib/nginx"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(NGINX, root.join("bin/nginx")).context("there is no nginx (nginx-light)")?;
    copy_libraries(&root)?;
    fs::write(root.join("etc/nginx.conf"), CONFIG)?;
    fs::write(root.join("start"), START)?;
    let recipe = format!("FROM {}\nCOPY root/ /\n", bed.image(from));
    fs::write(context.path().join("Dockerfile"), recipe)?;
    let (engine, image) = (bed.host(1).engine(), bed.image(name));
    let context = context.path().to_string_lossy();
    engine.docker_text(&["build", "--quiet", "--tag", &image, &context])?;
    engine.docker_text(&["push", "--quiet", &image])?;
    Ok(())
}

/// The shared libraries of nginx, each at its place.
fn copy_libraries(root: &Path) -> Result<()> {
    let output = Command::new("ldd").arg(NGINX).output()?;
    ensure!(output.status.success(), "ldd knows nothing of {NGINX}");
    let text = String::from_utf8(output.stdout)?;
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(&path[1..]);
        fs::create_dir_all(place.parent().context("a library has a folder")?)?;
        fs::copy(path, place)?;
    }
    Ok(())
}
