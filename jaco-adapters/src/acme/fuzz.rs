//! Bytes of certificate authorities: no answer brings the daemon down.

use http::Response;
use instant_acme::{Error, Problem};
use jaco_core::cluster::certs::Stage;

use super::convert;
use super::error::{Seen, refusal};
use crate::fuzz::each;
use crate::transport::pki;

#[test]
fn no_answer_of_a_ca_brings_the_daemon_down() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
    let chain = params.self_signed(&key).expect("a certificate").pem();
    let corpus: &[&[u8]] = &[
        chain.as_bytes(),
        br#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many","status":429}"#,
        br#"{"type":"urn:ietf:params:acme:error:malformed","subproblems":[{"type":"x","detail":"y",
            "identifier":{"type":"dns","value":"a.test"}}]}"#,
        b"Thu, 01 Jan 2026 01:00:00 GMT",
        b"3600",
        b"99999999999999999999",
        b"",
    ];
    each(corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = convert::leaf(&text);
        let _ = pki::certificates(&text);
        let seen = Seen::default();
        let head = Response::builder().status(429).header("retry-after", bytes);
        let noted = head
            .body(())
            .map(|answer| seen.note(&answer.into_parts().0));
        let error = match serde_json::from_slice::<Problem>(bytes) {
            Ok(problem) => Error::Api(problem),
            Err(error) => Error::Json(error),
        };
        let refused = refusal(Stage::Order, &error, &seen);
        // What no header can hold has not come.
        assert!(refused.rate_limited || noted.is_err());
        assert!(refused.reason.chars().count() <= 500);
    });
}
