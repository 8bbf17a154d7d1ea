//! The answers that the ingress gives itself, when no replica can.

use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, SERVER,
};
use hyper::{Response, StatusCode};

use super::body::Body;

/// Why a request was not forwarded, or its response did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What is wrong with the request; its connection is closed after the answer.
    BadRequest(&'static str),
    /// No route for the host, or none of the host's covers the path.
    NoRoute,
    /// CONNECT, which would make an open proxy of the ingress.
    NoTunnels,
    /// The service has no replica that could be asked.
    NoUpstream,
    /// Replicas were asked; none could be reached, or the connection was lost.
    Unreachable,
    /// The upstream did not begin to answer in time.
    Timeout,
}

/// An answer that the ingress gives on its own behalf, although nothing went wrong.
fn own(status: StatusCode, text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::text(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("jaco"));
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// What a CA finds at a challenge's path.
pub(super) fn challenge(answer: &str) -> Response<Body> {
    own(StatusCode::OK, Bytes::copy_from_slice(answer.as_bytes()))
}

/// Sends a visitor of plain HTTP to the same address within TLS.
pub(super) fn redirect(location: HeaderValue) -> Response<Body> {
    let text = Bytes::from_static(b"this host is served over HTTPS\n");
    let mut response = own(StatusCode::PERMANENT_REDIRECT, text);
    response.headers_mut().insert(LOCATION, location);
    response
}

impl Answer {
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoTunnels => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoUpstream | Self::Unreachable => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::BadRequest(why) => why,
            Self::NoRoute => "no service is routed at this host and path\n",
            Self::NoTunnels => "this server opens no tunnels\n",
            Self::NoUpstream => "the service has no healthy replica\n",
            Self::Unreachable => "no replica of the service could be reached\n",
            Self::Timeout => "the service did not answer in time\n",
        }
    }

    /// What gRPC calls it; without it a client concludes the same from the HTTP status.
    fn grpc_status(self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::NoTunnels => "13",
            Self::NoRoute => "12",
            Self::NoUpstream | Self::Unreachable | Self::Timeout => "14",
        }
    }

    /// The response for a caller of gRPC, who reads headers only.
    pub(super) fn to_grpc(self) -> Response<Body> {
        let mut response = self.response().map(|_| Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let status = HeaderValue::from_static(self.grpc_status());
        headers.insert(HeaderName::from_static("grpc-status"), status);
        let message = HeaderValue::from_static(self.text().trim_end());
        headers.insert(HeaderName::from_static("grpc-message"), message);
        response
    }

    /// The response with a line of text saying what happened.
    pub(super) fn response(self) -> Response<Body> {
        let text = Bytes::from_static(self.text().as_bytes());
        let mut response = own(self.status(), text);
        let headers = response.headers_mut();
        match self {
            Self::NoUpstream | Self::Unreachable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::BadRequest(_) | Self::NoTunnels => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::NoRoute | Self::Timeout => {}
        }
        response
    }
}
