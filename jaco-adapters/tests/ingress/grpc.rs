//! HTTP/2 to upstreams: gRPC with streams both ways, and who is asked for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use jaco_adapters::ingress::Limits;
use jaco_core::id::Domain;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::support::{Authority, Body, Http2Upstream, Rig, Upstream, nowhere, ok, route, speak};

type Words = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;
type Sender = SendRequest<tonic::body::Body>;

/// Upstreams behind `a.test` within TLS.
fn rig(authority: &Authority, upstreams: &[SocketAddr]) -> Rig {
    let rig = Rig::with_limits(Limits::default());
    let mut route = route("", false, upstreams);
    route.tls = true;
    rig.add("a.test", route);
    let served = Arc::new(authority.issue("a.test", 1));
    rig.change(|table| drop(table.certificates.insert(Domain::from("a.test"), served)));
    rig
}

/// Repeats each word as soon as it comes, or fails at one that says so. To gRPC a single request
/// or response is a stream of one.
async fn echo(request: Request<Incoming>) -> Response<tonic::body::Body> {
    let repeat = service_fn(|request: tonic::Request<Streaming<String>>| async move {
        let repeated = request.into_inner().map(|word| match word?.as_str() {
            "fail" => Err(Status::data_loss("as asked")),
            word => Ok(format!("{word}!")),
        });
        Ok::<_, Status>(tonic::Response::new(Box::pin(repeated) as Words))
    });
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
    grpc.streaming(repeat, request).await
}

/// Calls `Echo` with words that are still to come.
async fn call(
    sender: &Sender,
    words: impl Stream<Item = String> + Send + 'static,
) -> Result<Streaming<String>, Status> {
    let sender = sender.clone();
    let send = service_fn(move |request| sender.clone().send_request(request));
    let origin = Uri::from_static("https://a.test");
    let mut grpc = tonic::client::Grpc::with_origin(send, origin);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/echo.Echo/Echo");
    let codec = ProstCodec::<String, String>::default();
    let called = grpc.streaming(tonic::Request::new(words), path, codec);
    Ok(called.await?.into_inner())
}

async fn all(words: Streaming<String>) -> Vec<String> {
    words.map(Result::unwrap).collect().await
}

fn words(list: &[&str]) -> impl Stream<Item = String> + Send + 'static {
    stream::iter(list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
}

#[test]
fn calls_pass_with_one_message_or_many_on_either_side() {
    let authority = Authority::new();
    let upstream = Http2Upstream::answering(100, echo);
    let rig = rig(&authority, &[upstream.address]);
    speak(&rig, &authority, |sender: Sender| async move {
        for asked in [&["one"][..], &["one", "two", "three"], &[]] {
            let answered = all(call(&sender, words(asked)).await.unwrap()).await;
            let expected: Vec<_> = asked.iter().map(|word| format!("{word}!")).collect();
            assert_eq!(answered, expected);
        }
    });
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn each_message_of_a_conversation_passes_before_the_next_is_sent() {
    let authority = Authority::new();
    let upstream = Http2Upstream::answering(100, echo);
    let rig = rig(&authority, &[upstream.address]);
    speak(&rig, &authority, |sender: Sender| async move {
        let (say, said) = mpsc::unbounded_channel();
        say.send("0".to_owned()).unwrap();
        let said = UnboundedReceiverStream::new(said);
        let mut heard = call(&sender, said).await.unwrap();
        for number in 1..20 {
            let word = heard.message().await.unwrap().unwrap();
            assert_eq!(word, format!("{}!", number - 1));
            say.send(number.to_string()).unwrap();
        }
        drop(say);
        assert_eq!(all(heard).await, ["19!"]);
    });
}

#[test]
fn the_status_in_the_trailers_arrives() {
    let authority = Authority::new();
    let upstream = Http2Upstream::answering(100, echo);
    let rig = rig(&authority, &[upstream.address]);
    speak(&rig, &authority, |sender: Sender| async move {
        let mut heard = call(&sender, words(&["one", "fail"])).await.unwrap();
        assert_eq!(heard.message().await.unwrap().unwrap(), "one!");
        let status = heard.message().await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::DataLoss, "as asked")
        );
    });
}

#[test]
fn more_calls_than_an_upstream_takes_on_a_connection_get_another() {
    const COUNT: usize = 25;
    let authority = Authority::new();
    let upstream = Http2Upstream::answering(10, echo);
    let rig = rig(&authority, &[upstream.address]);
    speak(&rig, &authority, |sender: Sender| async move {
        let mut open = Vec::new();
        for _ in 0..COUNT {
            let (say, said) = mpsc::unbounded_channel();
            say.send("first".to_owned()).unwrap();
            let said = UnboundedReceiverStream::new(said);
            let mut heard = call(&sender, said).await.unwrap();
            assert_eq!(heard.message().await.unwrap().unwrap(), "first!");
            open.push((say, heard));
        }
        for (say, mut heard) in open {
            say.send("last".to_owned()).unwrap();
            assert_eq!(heard.message().await.unwrap().unwrap(), "last!");
        }
    });
    assert_eq!(upstream.connections(), COUNT.div_ceil(10));
}

#[test]
fn a_caller_is_told_in_his_own_terms_why_there_is_no_answer() {
    let authority = Authority::new();
    let closed = rig(&authority, &[nowhere()]);
    let empty = rig(&authority, &[]);
    for rig in [closed, empty] {
        speak(&rig, &authority, |sender: Sender| async move {
            let status = call(&sender, words(&["one"])).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        });
        speak(
            &rig,
            &authority,
            |mut sender: SendRequest<Body>| async move {
                let request = Request::post("https://a.test/echo.Echo/Echo")
                    .header("content-type", "application/grpc+proto")
                    .body(Full::default().boxed_unsync());
                let response = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
                assert_eq!(response.headers()["grpc-status"], "14");
                assert_eq!(response.headers()["content-type"], "application/grpc");
                assert_eq!(response.headers()["retry-after"], "1");
            },
        );
    }
}

#[test]
fn a_call_goes_on_with_another_connection_when_the_upstream_closes_one() {
    let authority = Authority::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let upstream = Upstream::raw(move |wire| serve_one_call(wire.stream(), &counted));
    let rig = rig(&authority, &[upstream.address]);
    speak(&rig, &authority, |sender: Sender| async move {
        for _ in 0..5 {
            let answered = all(call(&sender, words(&["one"])).await.unwrap()).await;
            assert_eq!(answered, ["one!"]);
        }
    });
    assert_eq!(calls.load(Ordering::SeqCst), 5);
}

/// A server that says farewell after its first call.
fn serve_one_call(stream: &std::net::TcpStream, calls: &Arc<AtomicUsize>) {
    let stream = stream.try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (done, first) = tokio::sync::oneshot::channel();
        let done = Arc::new(std::sync::Mutex::new(Some(done)));
        let serve = hyper::service::service_fn(move |request| {
            calls.fetch_add(1, Ordering::SeqCst);
            let _ = done.lock().unwrap().take().map(|done| done.send(()));
            async move { Ok::<_, Infallible>(echo(request).await) }
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let connection = hyper::server::conn::http2::Builder::new(executor)
            .serve_connection(hyper_util::rt::TokioIo::new(stream), serve);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = first => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    });
}

/// Says how it was asked, and gives the body and the trailers back.
async fn mirror(request: Request<Incoming>) -> Response<Body> {
    let said = |name: &str| request.headers().get(name).cloned();
    let mut response = Response::builder()
        .header("x-version", format!("{:?}", request.version()))
        .header("x-target", request.uri().to_string());
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "te",
        "connection",
    ] {
        if let Some(value) = said(name) {
            response = response.header(format!("x-got-{name}"), value);
        }
    }
    let body = request.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let frames = [Frame::data(body.to_bytes()), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    response.body(body.boxed_unsync()).unwrap()
}

#[test]
fn an_upstream_of_http_2_alone_is_found_out_and_told_about_the_visitor() {
    let authority = Authority::new();
    let upstream = Http2Upstream::answering(100, mirror);
    let rig = rig(&authority, &[upstream.address]);
    speak(
        &rig,
        &authority,
        |mut sender: SendRequest<Body>| async move {
            // Nothing is known of it yet, and no request of gRPC has been made.
            let first = Request::get("https://a.test/a?b").body(Full::default().boxed_unsync());
            let first = sender.send_request(first.unwrap()).await.unwrap();
            assert_eq!(first.status(), StatusCode::OK);
            assert_eq!(first.headers()["x-target"], "http://a.test/a?b");
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().unwrap());
            let frames = [Frame::data(Bytes::from("ab")), Frame::trailers(trailers)];
            let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
            let second = Request::post("https://a.test/")
                .header("te", "trailers")
                .body(body.boxed_unsync());
            let second = sender.send_request(second.unwrap()).await.unwrap();
            for (name, value) in [
                ("x-version", "HTTP/2.0"),
                ("x-got-x-forwarded-for", "127.0.0.1"),
                ("x-got-x-forwarded-proto", "https"),
                ("x-got-x-forwarded-host", "a.test"),
                ("x-got-te", "trailers"),
            ] {
                assert_eq!(second.headers()[name], value, "{name}");
            }
            assert!(!second.headers().contains_key("x-got-connection"));
            let body = second.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["x-sum"], "7");
            assert_eq!(body.to_bytes(), "ab");
        },
    );
}

#[test]
fn an_upstream_of_http_1_is_asked_for_nothing_else() {
    let authority = Authority::new();
    let upstream = Upstream::answering(|request| Some(ok(request.first())));
    let rig = rig(&authority, &[upstream.address]);
    speak(
        &rig,
        &authority,
        |mut sender: SendRequest<Body>| async move {
            for _ in 0..3 {
                let request = Request::get("https://a.test/").body(Full::default().boxed_unsync());
                let response = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(response.version(), Version::HTTP_2);
                let text = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(text, "GET / HTTP/1.1");
            }
        },
    );
    assert_eq!(upstream.connections(), 1);
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn a_call_to_an_upstream_of_http_1_asks_it_once_and_then_goes_as_http_1() {
    let authority = Authority::new();
    let upstream = Upstream::answering(|request| {
        Some(match request.first() {
            "PRI * HTTP/2.0" => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned(),
            first => ok(first),
        })
    });
    let rig = rig(&authority, &[upstream.address]);
    speak(
        &rig,
        &authority,
        |mut sender: SendRequest<Body>| async move {
            for _ in 0..3 {
                let request = Request::post("https://a.test/x")
                    .header("content-type", "application/grpc")
                    .body(Full::from("body").boxed_unsync());
                let response = sender.send_request(request.unwrap()).await.unwrap();
                let text = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(text, "POST /x HTTP/1.1");
            }
        },
    );
    let asked = upstream.requests();
    let asked = asked
        .iter()
        .filter(|request| request.first().starts_with("PRI"));
    assert_eq!(asked.count(), 1);
}
