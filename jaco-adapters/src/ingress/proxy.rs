//! One request: its route, the replica that it goes to, and the way back.

use std::rc::Rc;
use std::time::Instant;

use hyper::body::{Body as _, Incoming};
use hyper::header::{EXPECT, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use jaco_core::certs::CHALLENGE_PATH;
use jaco_core::node::balance::{self, Failure, Next};
use jaco_core::node::ingress::Upstream;

use super::answer::Answer;
use super::body::{Body, RequestBody, Upload};
use super::headers::Forwarded;
use super::http::{Busy, Client};
use super::live::{Flight, Live};
use super::pool::{Lease, Link};
use super::upgrade::Tunnel;
use super::worker::Worker;
use super::{answer, headers, target};

/// Answers one request: with an upstream's response, or with an own one that says why not.
pub(super) async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Response<Body> {
    let forwarded = forward(worker, &client, request).await;
    forwarded.unwrap_or_else(Answer::response)
}

async fn forward(
    worker: Rc<Worker>,
    client: &Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Answer> {
    let busy = Busy::new(client);
    let (mut head, body) = request.into_parts();
    let table = worker.table();
    let host = target::host(&head)?;
    if let Some(answer) = challenge(&table, head.uri.path()) {
        return Ok(answer::challenge(answer));
    }
    let route = table.routes.find(host, head.uri.path());
    // A domain without TLS is not there within it.
    let route = route.filter(|route| route.tls || !client.secure);
    let route = route.ok_or(Answer::NoRoute)?;
    if route.tls && !client.secure && table.certificate(host).is_some() {
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
    head.uri = target::forwarded(&head.uri, strip);
    if head.version == Version::HTTP_2 {
        headers::from_http2(&mut head.headers, !body.is_end_stream());
    }
    let upgrade = headers::wanted_upgrade(&head.headers);
    let told = Forwarded {
        client: &client.address,
        secure: client.secure,
        host,
        request_id: headers::request_id(worker.random(), worker.random()),
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
        upload: (!body.is_end_stream()).then(|| Rc::new(Upload::new(body, expects))),
        message: Message::new(head),
    };
    let done = exchange.run().await?;
    if done.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match upgrade {
            Some(_) => switch(client, done).await.ok_or(Answer::Unreachable),
            None => Err(Answer::Unreachable),
        };
    }
    let Done {
        response,
        link,
        upstream,
        flight,
    } = done;
    let lease = Lease::new(link, Rc::clone(&worker), upstream.address, flight, busy);
    let mut response = response.map(|incoming| Body::download(incoming, lease));
    *response.version_mut() = Version::HTTP_11;
    headers::to_client(response.headers_mut());
    Ok(response)
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
        link,
        flight,
        ..
    } = done;
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

/// The head of a request, to be sent as often as attempts are made.
struct Message {
    method: Method,
    uri: Uri,
    headers: HeaderMap<HeaderValue>,
}

impl Message {
    fn new(head: Parts) -> Self {
        Self {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
        }
    }

    fn with(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// A request with everything that its attempts need.
struct Exchange<'a> {
    worker: &'a Worker,
    client: &'a Client,
    table: &'a Live,
    upstreams: &'a [Upstream],
    began: Instant,
    idempotent: bool,
    /// May use a pooled connection.
    pooled: bool,
    upload: Option<Rc<Upload>>,
    message: Message,
}

/// A response's head with the connection that its body comes on.
struct Done {
    response: Response<Incoming>,
    link: Box<Link>,
    upstream: Upstream,
    flight: Flight,
}

/// An attempt that brought no response.
struct Lost {
    why: Answer,
    sent: bool,
    pooled: bool,
}

impl Exchange<'_> {
    /// Makes attempts until one succeeds or the rules say that it was the last.
    async fn run(&self) -> Result<Done, Answer> {
        let mut tried = Vec::new();
        let mut fresh = !self.pooled;
        let mut why = Answer::NoUpstream;
        let mut again = None;
        for retries in 0.. {
            let Some(at) = again.take().or_else(|| self.choose(&tried)) else {
                break;
            };
            let lost = match self.attempt(&self.upstreams[at], fresh).await {
                Ok(done) => return Ok(done),
                Err(lost) => lost,
            };
            why = lost.why;
            match balance::after(&self.failure(&lost, retries)) {
                Next::GiveUp => break,
                Next::SameReplica => (again, fresh) = (Some(at), true),
                Next::OtherReplica => tried.push(at),
            }
        }
        Err(why)
    }

    fn choose(&self, tried: &[usize]) -> Option<usize> {
        let load = |upstream: &Upstream| self.table.load(upstream);
        balance::power_of_two(self.upstreams, tried, self.worker.random(), load)
    }

    fn failure(&self, lost: &Lost, retries: u8) -> Failure {
        Failure {
            retries,
            elapsed: self.began.elapsed(),
            idempotent: self.idempotent,
            sent: lost.sent,
            replayable: self
                .upload
                .as_ref()
                .is_none_or(|upload| !upload.has_begun()),
            pooled: lost.pooled,
        }
    }

    /// Sends the request to one replica.
    async fn attempt(&self, upstream: &Upstream, fresh: bool) -> Result<Done, Lost> {
        let flight = self.table.begin(upstream);
        let waiting = match fresh {
            true => None,
            false => self.worker.pool.take(upstream.address),
        };
        let pooled = waiting.is_some();
        let mut link = match waiting {
            Some(link) => link,
            None => self.open(upstream, &flight).await?,
        };
        let limits = &self.worker.limits;
        let response = link.send(self.request(), |cx| {
            let mut patience = self.client.patience(limits);
            patience.poll(cx, self.due(), limits.response_header)
        });
        match response.await {
            Some(Ok(response)) => {
                let upstream = upstream.clone();
                Ok(Done {
                    response,
                    link,
                    upstream,
                    flight,
                })
            }
            Some(Err(error)) => {
                let sent = error.message().is_none();
                tracing::debug!(address = %upstream.address, error = %error.error(), sent, "lost");
                Err(Lost {
                    why: Answer::Unreachable,
                    sent,
                    pooled,
                })
            }
            // A replica that is slow with one request would be slow with it again.
            None => Err(Lost {
                why: Answer::Timeout,
                sent: true,
                pooled: false,
            }),
        }
    }

    fn request(&self) -> Request<RequestBody> {
        let Some(upload) = &self.upload else {
            return self.message.with(RequestBody::Empty);
        };
        let mut request = self.message.with(RequestBody::Upload(Rc::clone(upload)));
        upload.listen(&mut request);
        request
    }

    async fn open(&self, upstream: &Upstream, flight: &Flight) -> Result<Box<Link>, Lost> {
        Link::open(upstream.address, &self.worker.limits)
            .await
            .map_err(|error| {
                tracing::debug!(address = %upstream.address, %error, "upstream not reached");
                flight.eject(self.worker.limits.ejection);
                Lost {
                    why: Answer::Unreachable,
                    sent: false,
                    pooled: false,
                }
            })
    }

    /// When the head of a response must have come: its time runs from the last of the request.
    fn due(&self) -> Option<Instant> {
        let since = self
            .upload
            .as_ref()
            .map_or(self.began, |upload| upload.moved());
        since.checked_add(self.worker.limits.response_header)
    }
}
