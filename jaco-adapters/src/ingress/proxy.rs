//! One request: its route, the replica that it goes to, and the way back.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use jaco_core::certs::CHALLENGE_PATH;
use jaco_core::node::balance;
use jaco_core::node::carrier::{self, Wish};
use jaco_core::node::ingress::{covers, matched_path};

use super::access::Visit;
use super::answer::Answer;
use super::body::{Body, Upload};
use super::exchange::{Done, Exchange, Message};
use super::headers::Forwarded;
use super::http::{Busy, Client};
use super::live::Live;
use super::pool::{Carried, Lease};
use super::upgrade::Tunnel;
use super::worker::Worker;
use super::{answer, headers, target};

/// Answers one request: with an upstream's response, or with an own one that says why not.
pub(super) async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let wish = wish(&head);
    let mut visit = worker.visit(&client, &head);
    let at = Rc::clone(&worker);
    let forwarded = forward(at, &client, head, body, wish, visit.as_deref_mut()).await;
    let mut response = forwarded.unwrap_or_else(|answer| match wish.grpc {
        true => answer.to_grpc(),
        false => answer.response(),
    });
    if !wish.http2 && worker.under_way.is_leaving() {
        headers::end_connection(&mut response);
    }
    match visit {
        Some(mut visit) => {
            visit.status = response.status();
            response.map(|body| body.with(visit))
        }
        None => response,
    }
}

/// What counts for the protocol that a request is forwarded over.
fn wish(head: &Parts) -> Wish {
    let http2 = head.version == Version::HTTP_2;
    let kind = head.headers.get(CONTENT_TYPE).filter(|_| http2);
    Wish {
        http2,
        grpc: kind.is_some_and(|kind| carrier::is_grpc(kind.as_bytes())),
        not_understood: false,
    }
}

const ABOVE_ROOT: Answer = Answer::BadRequest("the path leads above the root\n");

async fn forward(
    worker: Rc<Worker>,
    client: &Rc<Client>,
    mut head: Parts,
    body: Incoming,
    wish: Wish,
    mut visit: Option<&mut Visit>,
) -> Result<Response<Body>, Answer> {
    let busy = Busy::new(client);
    let table = worker.table();
    let host = target::host(&head)?;
    if let Some(answer) = challenge(&table, head.uri.path()) {
        return Ok(answer::challenge(answer));
    }
    let path = matched_path(head.uri.path()).ok_or(ABOVE_ROOT)?;
    let route = table.routes.find(host, &path);
    // A domain without TLS is not there within it.
    let route = route.filter(|route| route.tls || !client.secure);
    let route = route.ok_or(Answer::NoRoute)?;
    if let Some(visit) = &mut visit {
        visit.tally = table.tally(route).cloned();
    }
    // TLS may end at a balancer in front.
    let secure = client.secure || client.trusted && headers::told_secure(&head.headers);
    if route.tls && !secure && table.certificate(host).is_some() {
        let location = target::secure(host, worker.https_port, &head.uri);
        return Ok(answer::redirect(location));
    }
    let strip = if route.strip_path {
        route.path.len()
    } else {
        0
    };
    let host = head
        .uri
        .authority()
        .and_then(|name| name.as_str().parse().ok());
    if let (Cow::Owned(path), true) = (&path, strip > 0)
        && !stays_below(head.uri.path(), &route.path)
    {
        // Without its prefix the path as it is written would lead elsewhere.
        head.uri = target::with_path(&head.uri, path).ok_or(ABOVE_ROOT)?;
    }
    head.uri = target::forwarded(&head.uri, strip);
    if wish.http2 {
        headers::from_http2(&mut head.headers, !body.is_end_stream());
    }
    let upgrade = headers::wanted_upgrade(&head.headers);
    let request_id = headers::request_id(worker.random(), worker.random());
    if let Some(told) = visit.as_mut().and_then(|visit| visit.told.as_mut()) {
        told.id = Some(request_id.clone());
    }
    let told = Forwarded {
        client: &client.address,
        trusted: client.trusted,
        secure: client.secure,
        port: worker.port(secure),
        host,
        request_id,
    };
    headers::to_upstream(&mut head.headers, told)?;
    if let Some(protocol) = &upgrade {
        headers::set_upgrade(&mut head.headers, protocol.clone());
    }
    let expects = head.headers.contains_key(EXPECT) && head.version == Version::HTTP_11;
    if !expects || body.is_end_stream() {
        head.headers.remove(EXPECT);
    }
    let exchange = Exchange {
        worker: &worker,
        client,
        table: &table,
        upstreams: &route.upstreams,
        began: Instant::now(),
        idempotent: balance::is_idempotent(head.method.as_str()),
        pooled: upgrade.is_none(),
        wish,
        upload: (!body.is_end_stream()).then(|| Rc::new(Upload::new(body, expects))),
        message: Message::new(head),
    };
    worker.turns.take().await;
    let done = exchange.run().await?;
    if let Some(told) = visit.and_then(|visit| visit.told.as_mut()) {
        told.upstream = Some(done.upstream.address);
    }
    if done.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match upgrade {
            Some(_) => Box::pin(switch(client, done))
                .await
                .ok_or(Answer::Unreachable),
            None => Err(Answer::Unreachable),
        };
    }
    let Done {
        response,
        carried,
        upstream,
        flight,
    } = done;
    let lease = Lease::new(carried, Rc::clone(&worker), upstream.address, flight, busy);
    let mut response = response.map(|incoming| Body::download(incoming, lease));
    *response.version_mut() = Version::HTTP_11;
    headers::to_client(response.headers_mut());
    Ok(response)
}

/// Whether a path begins with a prefix, and what follows does not lead out of it.
fn stays_below(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix).filter(|_| covers(prefix, path));
    rest.is_some_and(|rest| matched_path(rest).is_some())
}

/// The answer to a CA that asks for the one of a challenge under way.
fn challenge<'a>(table: &'a Live, path: &str) -> Option<&'a str> {
    let challenges = &table.routes.challenges;
    if challenges.is_empty() {
        return None;
    }
    let token = path.strip_prefix(CHALLENGE_PATH)?;
    challenges.get(token).map(String::as_str)
}

/// Leaves the upstream's stream with the client's connection and tells the client to change.
async fn switch(client: &Client, done: Done) -> Option<Response<Body>> {
    let Done {
        response,
        carried: Carried::Alone(link),
        flight,
        ..
    } = done
    else {
        return None;
    };
    let (head, _) = response.into_parts();
    let mut response = Response::from_parts(head, Body::empty());
    let protocol = response.headers().get(hyper::header::UPGRADE).cloned();
    headers::to_client(response.headers_mut());
    if let Some(protocol) = protocol {
        headers::set_upgrade(response.headers_mut(), protocol);
    }
    let (upstream, early) = link.into_stream().await?;
    client.tunnel.replace(Some(Tunnel {
        upstream,
        early,
        flight,
    }));
    Some(response)
}
