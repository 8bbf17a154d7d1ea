//! The attempts to have a replica answer one request, until one succeeds or the rules say that it
//! was the last.

use std::rc::Rc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, Uri};
use jaco_core::node::balance::{self, Failure, Next};
use jaco_core::node::carrier::{self, Carrier, Wish};
use jaco_core::node::ingress::Upstream;

use super::answer::Answer;
use super::body::{RequestBody, Upload};
use super::h2c::{Stream, Unopened};
use super::http::Client;
use super::live::{Flight, Live};
use super::pool::{Carried, Link};
use super::worker::Worker;

/// The head of a request, to be sent as often as attempts are made.
pub(super) struct Message {
    method: Method,
    uri: Uri,
    headers: HeaderMap<HeaderValue>,
}

impl Message {
    pub(super) fn new(head: Parts) -> Self {
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

    /// The same as HTTP/2 says it: the host in the target, and nothing about the connection.
    fn for_http2(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = self.with(body);
        let headers = request.headers_mut();
        headers.remove(CONNECTION);
        headers.remove(TRANSFER_ENCODING);
        let host = headers.remove(HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut target = self.uri.clone().into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = authority;
        // Without an authority it stays a path, which the library sends as it is.
        if let Ok(target) = Uri::from_parts(target) {
            *request.uri_mut() = target;
        }
        request
    }
}

/// A request with everything that its attempts need.
pub(super) struct Exchange<'a> {
    pub(super) worker: &'a Worker,
    pub(super) client: &'a Client,
    pub(super) table: &'a Live,
    pub(super) upstreams: &'a [Upstream],
    pub(super) began: Instant,
    pub(super) idempotent: bool,
    /// May use a pooled connection.
    pub(super) pooled: bool,
    /// What counts for the protocol that it is forwarded over.
    pub(super) wish: Wish,
    pub(super) upload: Option<Rc<Upload>>,
    pub(super) message: Message,
}

/// A response's head with what its body comes on.
pub(super) struct Done {
    pub(super) response: Response<Incoming>,
    pub(super) carried: Carried,
    pub(super) upstream: Upstream,
    pub(super) flight: Flight,
}

/// An attempt that brought no response.
struct Lost {
    why: Answer,
    sent: bool,
    pooled: bool,
    /// What came back was no HTTP/1.1.
    not_understood: bool,
}

impl Lost {
    /// The replica could not be reached.
    fn unreached() -> Self {
        Self {
            why: Answer::Unreachable,
            sent: false,
            pooled: false,
            not_understood: false,
        }
    }

    /// A replica that is slow with one request would be slow with it again.
    fn overdue() -> Self {
        Self {
            why: Answer::Timeout,
            sent: true,
            pooled: false,
            not_understood: false,
        }
    }

    fn broken(upstream: &Upstream, error: &TrySendError<Request<RequestBody>>) -> Self {
        let (sent, error) = (error.message().is_none(), error.error());
        tracing::debug!(address = %upstream.address, %error, sent, "lost");
        Self {
            why: Answer::Unreachable,
            sent,
            pooled: false,
            not_understood: error.is_parse(),
        }
    }
}

impl Exchange<'_> {
    /// Makes attempts until one succeeds or the rules say that it was the last.
    pub(super) async fn run(mut self) -> Result<Done, Answer> {
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
            match self.after(&lost, retries) {
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

    /// What to do about a failed attempt. What a replica did not understand it has not carried
    /// out; it may understand it as HTTP/2.
    fn after(&mut self, lost: &Lost, retries: u8) -> Next {
        let not_understood = lost.not_understood && self.wish.http2;
        self.wish.not_understood |= not_understood;
        balance::after(&Failure {
            retries,
            elapsed: self.began.elapsed(),
            idempotent: self.idempotent,
            sent: lost.sent && !not_understood,
            replayable: self
                .upload
                .as_ref()
                .is_none_or(|upload| !upload.has_begun()),
            pooled: lost.pooled || not_understood,
        })
    }

    /// Sends the request to one replica.
    async fn attempt(&self, upstream: &Upstream, fresh: bool) -> Result<Done, Lost> {
        let flight = self.table.begin(upstream);
        if carrier::carrier(flight.spoken(), self.wish) == Carrier::H2c {
            let (channels, limits) = (&self.worker.channels, &self.worker.limits);
            // On the heap, like all that most requests do without: every request's future has room
            // for the largest of its steps.
            match Box::pin(channels.take(upstream.address, limits)).await {
                Ok(stream) => {
                    flight.speaks(true);
                    return Box::pin(self.beside_others(upstream, flight, stream)).await;
                }
                Err(Unopened::NotHttp2) => flight.speaks(false),
                Err(Unopened::Unreachable(kind)) => {
                    return Err(self.unreached(upstream, &flight, &kind.into()));
                }
            }
        }
        self.alone(upstream, flight, fresh).await
    }

    /// Over HTTP/1.1.
    async fn alone(&self, upstream: &Upstream, flight: Flight, fresh: bool) -> Result<Done, Lost> {
        let waiting = match fresh {
            true => None,
            false => self.worker.pool.take(upstream.address),
        };
        let pooled = waiting.is_some();
        let mut link = match waiting {
            Some(link) => link,
            None => {
                let opened = Box::pin(Link::open(upstream.address, &self.worker.limits)).await;
                opened.map_err(|error| self.unreached(upstream, &flight, &error))?
            }
        };
        let limits = &self.worker.limits;
        let request = self.request(|body| self.message.with(body));
        let response = link.send(request, |cx| {
            let mut patience = self.client.patience(limits);
            patience.poll(cx, self.due(), limits.response_header)
        });
        match response.await {
            Some(Ok(response)) => Ok(Done {
                response,
                carried: Carried::Alone(link),
                upstream: upstream.clone(),
                flight,
            }),
            Some(Err(error)) => {
                let mut lost = Lost::broken(upstream, &error);
                lost.pooled = pooled;
                // On a new connection it spoke before it was asked, or closed.
                lost.not_understood |= !pooled && !lost.sent;
                Err(lost)
            }
            None => Err(Lost::overdue()),
        }
    }

    /// Over HTTP/2.
    async fn beside_others(
        &self,
        upstream: &Upstream,
        flight: Flight,
        stream: Stream,
    ) -> Result<Done, Lost> {
        let limits = &self.worker.limits;
        let request = self.request(|body| self.message.for_http2(body));
        let response = stream.send(request, |cx| {
            let mut patience = self.client.patience(limits);
            patience.poll(cx, self.due(), limits.response_header)
        });
        match response.await {
            Some(Ok(response)) => Ok(Done {
                response,
                carried: Carried::Beside { _stream: stream },
                upstream: upstream.clone(),
                flight,
            }),
            // Its connection may just have been closed; another one shows more.
            Some(Err(error)) => Err(Lost {
                pooled: true,
                ..Lost::broken(upstream, &error)
            }),
            None => Err(Lost::overdue()),
        }
    }

    fn request(
        &self,
        message: impl FnOnce(RequestBody) -> Request<RequestBody>,
    ) -> Request<RequestBody> {
        let Some(upload) = &self.upload else {
            return message(RequestBody::Empty);
        };
        let mut request = message(RequestBody::Upload(Rc::clone(upload)));
        upload.listen(&mut request);
        request
    }

    fn unreached(&self, upstream: &Upstream, flight: &Flight, error: &std::io::Error) -> Lost {
        tracing::debug!(address = %upstream.address, %error, "upstream not reached");
        flight.eject(self.worker.limits.ejection);
        Lost::unreached()
    }

    /// When the head of a response must have come: its time runs from the last of the request.
    /// A call of gRPC may pause for as long as it likes before it ends.
    fn due(&self) -> Option<Instant> {
        let since = match &self.upload {
            Some(upload) if self.wish.grpc && !upload.has_ended() => return None,
            Some(upload) => upload.moved(),
            None => self.began,
        };
        since.checked_add(self.worker.limits.response_header)
    }
}
